"""The feed of models that make one scan out of another: the same box of the target and of its source."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.cases.feed import Sample
from tomogen.cases.folder import Case, CaseFolder, no_pairs
from tomogen.cases.scans import OPEN_MAPS, boxed, items_of
from tomogen.errors import DataInvalid, Reason
from tomogen.intensity import Window


class Place(NamedTuple):
    """Where a pair of boxes was drawn from: a case, the corner, which may reach out of it, and whether flipped."""

    case: Case
    corner: NDArray[np.int64]
    flip: bool


class Paired:
    """Targets `(1, *shape)` of the cases of a split, each once in every pass, and as condition `source` the sources.

    Along an axis on which a case is larger than `shape` the box is cut out at random; where it is smaller, the HU
    floor is added evenly on both sides. `shift` moves the box by up to that many voxels along every axis at random,
    and with the probability `flip` left and right are exchanged: the same on both halves.
    """

    def __init__(
        self,
        folder: CaseFolder,
        shape: Sequence[int],
        window: Window,
        *,
        split: str = "train",
        shift: int = 0,
        flip: float = 0.0,
    ) -> None:
        """Raises DataInvalid where the split has no cases, or they are no pairs; ValueError unless `shape` is 3D."""
        depth, height, width = shape
        self.folder, self.shape, self.window = folder, (depth, height, width), window
        self.split, self.shift, self.flip = split, shift, flip
        self.cases = tuple(item.case for item in items_of(folder, (1, 1, 1), split))
        if any(case.source is None for case in self.cases):
            raise no_pairs(folder.path)

    @property
    def beside(self) -> str:
        """Nothing."""
        return ""

    def enough(self, needed: int) -> None:
        """Raise if one round would show the same box twice: places counted side by side, without overlap."""
        places = sum(
            int(np.prod([max(1, have // need) for have, need in zip(case.shape, self.shape, strict=True)]))
            for case in self.cases
        )
        if places < needed:
            raise DataInvalid(
                f"{places} pairs in split {self.split!r}, batch {needed}",
                reason=Reason.TOO_SMALL,
                at=self.folder.path,
                fix=f"--set training.batch={places}, or more pairs, or prepare with --split 1 0 0",
            )

    def draw(self, seed: int, number: int) -> Sample:
        """Image `number` of the stream of `seed`."""
        target, source = (self._unit(hu) for hu in self.hu(self.place(seed, number)))
        return Sample(target, {"source": source})

    def place(self, seed: int, number: int) -> Place:
        """Where image `number` comes from."""
        lap, position = divmod(number, len(self.cases))
        case = self.cases[_order(len(self.cases), seed, lap)[position]]
        random = np.random.default_rng((seed, number))
        spare = np.subtract(case.shape, self.shape, dtype=np.int64)
        corner = np.where(spare >= 0, random.integers(0, np.maximum(spare, 0) + 1), -(-spare // 2))
        corner = corner + random.integers(-self.shift, self.shift + 1, size=3)
        return Place(case, corner, bool(random.random() < self.flip))

    def hu(self, place: Place) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """The voxels `shape` of target and source at a place, int16 HU."""
        target, source = (boxed(whole, place.corner, self.shape) for whole in _mapped(self.folder, place.case))
        return (target[..., ::-1], source[..., ::-1]) if place.flip else (target, source)

    def _unit(self, hu: NDArray[np.int16]) -> NDArray[np.float32]:
        return self.window.to_unit(hu.astype(np.float32))[None]


@lru_cache(maxsize=OPEN_MAPS)
def _mapped(folder: CaseFolder, case: Case) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    return folder.hu(case), folder.source(case)


@lru_cache(maxsize=4)
def _order(size: int, seed: int, lap: int) -> NDArray[np.int64]:
    """The order of pass `lap`; the leading 1 keeps these numbers apart from those of the boxes."""
    return np.random.default_rng((1, seed, lap)).permutation(size)
