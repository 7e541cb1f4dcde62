"""The feed of models that learn from scans alone: volumes, random crops of larger ones, or slices."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.cases.feed import Sample
from tomogen.cases.folder import Case, CaseFolder
from tomogen.errors import DataInvalid, Reason
from tomogen.intensity import HU_FLOOR, Window

OPEN_MAPS = 256
"""Volumes kept mapped at a time; each holds a file descriptor, of which a process may have 1024."""


class Item(NamedTuple):
    """What can be drawn: a case, and for 2D images one of its slices."""

    case: Case
    slice: int | None = None


class Place(NamedTuple):
    """Where an image was drawn from: an item, and the corner of the box, which may reach out of it."""

    item: Item
    corner: NDArray[np.int64]


class Scans:
    """Images `(1, *shape)` of the cases of a split, each once in every pass.

    Three axes in `shape` give volumes, or random crops of larger ones; two give axial slices that hold a body.
    `shift` moves each image by up to that many voxels along every axis, at random; what comes in from outside is the
    HU floor.
    """

    def __init__(
        self, folder: CaseFolder, shape: Sequence[int], window: Window, *, split: str = "train", shift: int = 0
    ) -> None:
        """Raises DataInvalid where the split has no cases, or one is smaller than `shape`."""
        self.folder, self.shape, self.window = folder, tuple(shape), window
        self.split, self.shift = split, shift
        self.items = items_of(folder, shape, split)

    @property
    def beside(self) -> str:
        """Nothing."""
        return ""

    def enough(self, needed: int) -> None:
        """Raise if one round would show the same crop twice: places counted side by side, without overlap."""
        axes = -len(self.shape)
        places = sum(int(np.prod(np.array(item.case.shape[axes:]) // self.shape)) for item in self.items)
        if places < needed:
            kind = "volumes" if len(self.shape) == 3 else "slices"
            raise DataInvalid(
                f"{places} {kind} in split {self.split!r}, batch {needed}",
                reason=Reason.TOO_SMALL,
                at=self.folder.path,
                fix=f"--set training.batch={places}, or more scans, or prepare with --split 1 0 0",
            )

    def draw(self, seed: int, number: int) -> Sample:
        """Image `number` of the stream of `seed`."""
        return Sample(self.window.to_unit(self.hu(self.place(seed, number)).astype(np.float32))[None], {})

    def place(self, seed: int, number: int) -> Place:
        """Where image `number` comes from."""
        lap, position = divmod(number, len(self.items))
        item = self.items[_order(len(self.items), seed, lap)[position]]
        space = item.case.shape[-len(self.shape) :]
        random = np.random.default_rng((seed, number))
        corner = random.integers(0, np.subtract(space, self.shape, dtype=np.int64) + 1)
        return Place(item, corner + random.integers(-self.shift, self.shift + 1, size=len(self.shape)))

    def hu(self, place: Place) -> NDArray[np.int16]:
        """The voxels `shape` at a place, int16 HU."""
        mapped = _mapped(self.folder, place.item.case)
        return boxed(mapped if place.item.slice is None else mapped[place.item.slice], place.corner, self.shape)


def boxed(space: NDArray[np.int16], corner: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int16]:
    """The box of `shape` voxels at `corner`; the HU floor where it reaches out of `space`."""
    first, last = np.maximum(corner, 0), np.minimum(corner + shape, space.shape)
    inside = space[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    if inside.shape == shape:
        return inside
    out = np.full(shape, HU_FLOOR, dtype=np.int16)
    out[tuple(slice(a, a + n) for a, n in zip(first - corner, inside.shape, strict=True))] = inside
    return out


def items_of(folder: CaseFolder, shape: Sequence[int], split: str = "train") -> list[Item]:
    """All that can be drawn from a split: its volumes for a 3D shape, their slices that are not blank for a 2D one.

    Raises:
        DataInvalid: there are no cases, or one is smaller than `shape`.
    """
    cases = folder.of(split)
    if not cases:
        raise DataInvalid(
            f"no cases in split {split!r}; the folder holds {len(folder.cases)}",
            reason=Reason.TOO_SMALL,
            at=folder.path,
            fix="prepare with --split 1 0 0 to train on all patients",
        )
    for case in cases:
        if any(have < need for have, need in zip(case.shape[-len(shape) :], shape, strict=True)):
            depth = case.shape[0] if len(shape) == 2 else shape[0]
            raise DataInvalid(
                f"images of {_spelled(shape)} voxels do not fit into case {case.id} of {_spelled(case.shape)}",
                reason=Reason.TOO_SMALL,
                at=folder.path,
                fix=f"tomogen prepare SCANS CASES --shape {depth} {shape[-2]} {shape[-1]}",
            )
    if len(shape) == 3:
        return [Item(case) for case in cases]
    return [Item(case, int(k)) for case in cases for k in folder.sidecar(case)["slices"]]


@lru_cache(maxsize=OPEN_MAPS)
def _mapped(folder: CaseFolder, case: Case) -> NDArray[np.int16]:
    return folder.hu(case)


@lru_cache(maxsize=4)
def _order(size: int, seed: int, lap: int) -> NDArray[np.int64]:
    """The order of pass `lap`; the leading 1 keeps these numbers apart from those of the crops."""
    return np.random.default_rng((1, seed, lap)).permutation(size)


def _spelled(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)
