"""Fixed images that a run looks at again and again: held-out ones, or the first of training."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from tomogen.batch import Batch, seed_of
from tomogen.cases.feed import Feed
from tomogen.cases.folder import CaseFolder
from tomogen.errors import DataInvalid
from tomogen.recipe import Recipe
from tomogen.synthesizer import Synthesizer


@dataclass(frozen=True)
class Looks:
    """The first images of the stream of a split, without random shifts; drawn anew each time, so that none is kept."""

    feed: Feed
    split: str
    count: int
    seed: int

    def batches(self, size: int) -> Iterator[Batch]:
        """All of them in order, in batches of at most `size`."""
        for first in range(0, self.count, size):
            numbers = range(first, min(first + size, self.count))
            samples = [self.feed.draw(self.seed, number) for number in numbers]
            image = torch.from_numpy(np.stack([sample.image for sample in samples]))
            condition = {
                name: torch.from_numpy(np.stack([sample.condition[name] for sample in samples]))
                for name in samples[0].condition
            }
            yield Batch(image, condition, tuple(seed_of(self.seed, "look", number) for number in numbers))

    def first(self, count: int) -> Batch:
        """The first `count`, or all where there are fewer."""
        return next(self.batches(min(count, self.count)))


def of_training(synthesizer: Synthesizer, recipe: Recipe, cases: CaseFolder, most: int) -> Looks:
    """At most `most` images of the training split, none like another."""
    found = _of(synthesizer, recipe, cases, "train", most)
    if found is None:
        raise AssertionError("training began without images")
    return found


def held_out(synthesizer: Synthesizer, recipe: Recipe, cases: CaseFolder, most: int) -> Looks | None:
    """At most `most` images of the validation split; None where it holds none that this model can take."""
    if not cases.of("val"):
        return None
    with contextlib.suppress(DataInvalid):  # a split so small that it lacks labels, or radiographs of a kind
        return _of(synthesizer, recipe, cases, "val", most)
    return None


def _of(synthesizer: Synthesizer, recipe: Recipe, cases: CaseFolder, split: str, most: int) -> Looks | None:
    feed = synthesizer.feed(cases, replace(recipe.data, shift=0), split)
    count = next((count for count in range(most, 0, -1) if _enough(feed, count)), 0)
    return Looks(feed, split, count, recipe.training.seed) if count else None


def _enough(feed: Feed, count: int) -> bool:
    with contextlib.suppress(DataInvalid):
        feed.enough(count)
        return True
    return False
