"""Prepared cases -> an endless stream of Batches that can start at any image.

Image number n is a function of (seed, n) alone: which case or slice it shows, where it is cropped, how it is
shifted. A resumed run, or one on other ranks, sees the same images as an unbroken one on a single rank.
Batches are made by a thread ahead of the trainer, in order.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.batch import Batch
from tomogen.cases.folder import Case, CaseFolder
from tomogen.errors import DataInvalid, Reason
from tomogen.intensity import HU_FLOOR, Window

AHEAD = 3
"""Batches made before they are asked for."""

OPEN_MAPS = 256
"""Volumes kept mapped at a time; each holds a file descriptor, of which a process may have 1024."""


class Item(NamedTuple):
    """What can be drawn: a case, and for 2D images one of its slices."""

    case: Case
    slice: int | None = None


def stream(
    folder: CaseFolder,
    *,
    shape: Sequence[int],
    window: Window,
    batch: int,
    seed: int,
    start: int = 0,
    rank: int = 0,
    ranks: int = 1,
    split: str = "train",
    shift: int = 0,
) -> Iterator[Batch]:
    """Batches `image (batch, 1, *shape)` float32 on -1..1, without end, each image once in every pass.

    Three axes in `shape` give volumes, or random crops of larger ones; two give axial slices that hold a body.
    `batch` is the share of one rank: each round of all `ranks` takes `ranks * batch` images, of which rank r has
    rows `r * batch` to `(r + 1) * batch`, so that the ranks together see what one process with `ranks * batch`
    sees. `start` counts the images already taken by all ranks. `shift` moves each image by up to that many voxels
    along every axis, at random; what comes in from outside is the HU floor.

    Raises:
        DataInvalid: a split without cases, cases smaller than `shape`, or fewer images than one round takes.
    """
    items = items_of(folder, shape, split)
    _enough(folder, items, shape, batch * ranks, split)
    return _prefetched(folder, items, tuple(shape), window, batch, seed, start, rank, ranks, shift)


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


def draw(
    folder: CaseFolder, items: Sequence[Item], shape: Sequence[int], seed: int, number: int, shift: int = 0
) -> NDArray[np.int16]:
    """Image `number` of the stream in HU, `shape` voxels."""
    lap, position = divmod(number, len(items))
    return _cut(folder, items[_order(len(items), seed, lap)[position]], shape, seed, number, shift)


def _prefetched(
    folder: CaseFolder,
    items: Sequence[Item],
    shape: tuple[int, ...],
    window: Window,
    batch: int,
    seed: int,
    start: int,
    rank: int,
    ranks: int,
    shift: int,
) -> Iterator[Batch]:
    import torch

    def make(first: int) -> Batch:
        hu = np.empty((batch, 1, *shape), dtype=np.float32)
        for row in range(batch):
            hu[row, 0] = draw(folder, items, shape, seed, first + row, shift)
        return Batch(torch.from_numpy(window.to_unit(hu)), {})

    first = start + rank * batch
    pending: deque[object] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="cases")
    try:
        while True:
            while len(pending) <= AHEAD:
                pending.append(pool.submit(make, first))
                first += batch * ranks
            yield pending.popleft().result()  # type: ignore[attr-defined]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _cut(folder: CaseFolder, item: Item, shape: Sequence[int], seed: int, number: int, shift: int) -> NDArray[np.int16]:
    hu = _mapped(folder, item.case)
    space: NDArray[np.int16] = hu if item.slice is None else hu[item.slice]
    room = np.subtract(space.shape, shape, dtype=np.int64)
    random = np.random.default_rng((seed, number))
    corner = random.integers(0, room + 1) + random.integers(-shift, shift + 1, size=len(shape))
    first, last = np.maximum(corner, 0), np.minimum(corner + shape, space.shape)
    inside = space[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    if inside.shape == tuple(shape):
        return inside
    out = np.full(tuple(shape), HU_FLOOR, dtype=np.int16)
    out[tuple(slice(a, a + n) for a, n in zip(first - corner, inside.shape, strict=True))] = inside
    return out


@lru_cache(maxsize=OPEN_MAPS)
def _mapped(folder: CaseFolder, case: Case) -> NDArray[np.int16]:
    return folder.hu(case)


@lru_cache(maxsize=4)
def _order(size: int, seed: int, lap: int) -> NDArray[np.int64]:
    """The order of pass `lap`; the leading 1 keeps these numbers apart from those of the crops."""
    return np.random.default_rng((1, seed, lap)).permutation(size)


def _enough(folder: CaseFolder, items: Sequence[Item], shape: Sequence[int], needed: int, split: str) -> None:
    """Raise if one round would show the same crop twice: places counted side by side, without overlap."""
    axes = -len(shape)
    places = sum(int(np.prod(np.array(item.case.shape[axes:]) // shape)) for item in items)
    if places < needed:
        kind = "volumes" if len(shape) == 3 else "slices"
        raise DataInvalid(
            f"{places} {kind} in split {split!r}, batch {needed}",
            reason=Reason.TOO_SMALL,
            at=folder.path,
            fix=f"--set training.batch={places}, or more scans, or prepare with --split 1 0 0",
        )


def _spelled(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)
