"""Validation: how far what a model makes lies from a truth that it never saw, and when it lay nearest."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tomogen import catalog
from tomogen.cases.folder import CaseFolder
from tomogen.errors import DataInvalid, Reason, RecipeMismatch
from tomogen.intensity import Window
from tomogen.recipe import Recipe
from tomogen.training import looks
from tomogen.training.looks import Looks
from tomogen.training.trainer import Game

MOST = {2: 32, 3: 8}
"""Images that are compared, at most, by their number of axes."""


@dataclass(frozen=True)
class Best:
    """The validation with the least error so far."""

    step: int
    mae: float
    """Mean over its images, HU."""
    weights: Mapping[str, Tensor]
    """Those that generation would use; empty unless they are to be published."""


class Validation:
    """Fixed images with a truth, and the best that was made of them. Every process holds one and does the same."""

    def __init__(self, game: Game, images: Looks) -> None:
        self.game = game
        self.images = images
        self.best: Best | None = None

    def measure(self, step: int) -> list[float | None]:
        """Mean absolute error in HU of each image by the averaged weights, None where it is no number.

        The least mean is kept as `best`; of equal ones the first.
        """
        training, window = self.game.recipe.training, Window(*self.game.recipe.data.window)
        found: list[float] = []
        for batch in self.images.batches(training.micro_batch or training.batch):
            made = self.game.remake(batch)
            if made is None:
                raise TypeError(f"{type(self.game.synthesizer).__module__}: `remade` gives nothing")
            apart = (made - batch.image).abs().flatten(1).mean(1, dtype=torch.float64)
            found += (apart * (window.high - window.low) / 2).tolist()
        mean = sum(found) / len(found)
        better = math.isfinite(mean) and (self.best is None or mean < self.best.mae)
        if self.game.fabric.broadcast(better):  # one judge: weights are gathered from all processes
            weights = self.game.weights() if training.publish == "best" else {}
            self.best = Best(step, mean, {name: tensor.clone() for name, tensor in weights.items()})
        return [value if math.isfinite(value) else None for value in found]

    def event(self, mae: list[float | None]) -> dict[str, Any]:
        """What the log is told of a measurement: the errors, of which split's images, and the best step so far."""
        return {"split": self.images.split, "mae": mae, "best": self.best.step if self.best else None}

    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the best weights."""
        return {"best": {"step": self.best.step, "mae": self.best.mae}} if self.best else {}

    def resume(self, facts: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Set the best to what a checkpoint kept."""
        if "best" in facts:
            self.best = Best(int(facts["best"]["step"]), float(facts["best"]["mae"]), weights)


def of(game: Game, cases: CaseFolder) -> Validation | None:
    """Of held-out images, or of training's where none are held out; None for a model without a truth."""
    synthesizer, recipe = game.synthesizer, game.recipe
    if not synthesizer.has_truth():
        return None
    most = MOST[len(synthesizer.shape)]
    images = looks.held_out(synthesizer, recipe, cases, most)
    return Validation(game, images or looks.of_training(synthesizer, recipe, cases, most))


def require(recipe: Recipe, cases: CaseFolder) -> None:
    """Raise unless held-out images can tell which weights are best.

    Raises:
        RecipeMismatch: what the model makes has no truth.
        DataInvalid: no cases are held out that it can take.
    """
    recipe.config  # noqa: B018  # its own checks, which name an unknown model
    last = "--set training.publish=last"
    if not catalog.load("models", recipe.model).Model.has_truth():
        raise RecipeMismatch(
            f"`publish`: what {recipe.model} makes has no truth that could tell which weights are best",
            at=recipe.origins.get("training.publish"),
            fix=last,
        )
    with torch.device("meta"):
        synthesizer = recipe.build()
    if looks.held_out(synthesizer, recipe, cases, 1) is None:
        raise DataInvalid(
            "no cases are held out that could tell which weights are best",
            reason=Reason.TOO_SMALL,
            at=cases.path,
            fix=f"prepare with patients for validation, as in --split 0.8 0.1 0.1, or {last}",
        )
