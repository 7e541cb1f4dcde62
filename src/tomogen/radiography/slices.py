"""Reading and writing slices along any axis of a volume, some at a time, at the speed of memory.

Along the last axis a slice is one voxel of every row. torch copies such a permutation voxel by voxel (82 ms for 256^3
on one core); a copy of the rows' parts and then a plain matrix transpose take a quarter of that.
"""

from torch import Tensor

TOGETHER = 16
"""Slices at a time: what they need stays in the cache, and along any axis whole cache lines are read."""

Order = tuple[int, int, int]


def groups(begin: int, end: int) -> list[slice]:
    """The slices from `begin` to `end`, `TOGETHER` at a time."""
    return [slice(start, min(start + TOGETHER, end)) for start in range(begin, end, TOGETHER)]


def gathered(volume: Tensor, order: Order, some: slice) -> Tensor:
    """`volume.permute(order)[some]`, in memory such that the rows or the columns of each slice are in one piece."""
    if order[0] != 2:
        return volume.permute(order)[some]
    piece = volume[:, :, some].contiguous()
    slices = piece.flatten(0, 1).t().contiguous().view(-1, *piece.shape[:2])
    return slices if order[1] == 0 else slices.mT


def scattered(slices: Tensor, volume: Tensor, order: Order, some: slice) -> None:
    """Add to `volume` what `gathered` would take from it."""
    if order[0] != 2:
        volume.permute(order)[some] += slices
        return
    slices = slices if order[1] == 0 else slices.mT
    volume[:, :, some] += slices.flatten(1).t().contiguous().view(*volume.shape[:2], -1)
