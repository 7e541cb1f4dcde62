"""Views along the grid's axes: interpolation in each slice is separable, and so a product of banded matrices.

With slice S_n `(U, V)`, R_n `(rows, U)` and C_n `(columns, V)` holding the two weights of each row and column, the
sum over slices is P = sum_n R_n S_n C_n^T, and its adjoint S_n = R_n^T P C_n. Rows and columns are taken in blocks,
so that of each matrix only the band that is not zero is multiplied.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tomogen.radiography.rays import Array, Rays
from tomogen.radiography.slices import Order, gathered, groups, scattered

BLOCK = 32
"""Rows or columns at a time."""


@dataclass(frozen=True)
class Band:
    """Weights `(slices, pixels, voxels)` of a block of rows or columns over the voxels that it touches."""

    pixels: slice
    voxels: slice
    weights: Tensor


@dataclass(frozen=True)
class Group:
    """Some neighbouring slices with their weights."""

    slices: slice
    rows: list[Band]
    columns: list[Band]


class Banded:
    """Projection of one view and its adjoint; weights are made once for a dtype and device."""

    def __init__(self, rays: Rays, shape: tuple[int, int, int], like: Tensor) -> None:
        down, right = rays.across or (0, 1)
        others = [axis for axis in range(3) if axis != rays.axis]
        self.order: Order = (rays.axis, others[down], others[right])
        self.size = rays.length.shape
        self.length = torch.as_tensor(rays.length, dtype=_wide(like.dtype), device=like.device)
        _, high, wide = (shape[axis] for axis in self.order)
        row = rays.mid[:, 0, down], rays.step[:, 0, down]
        column = rays.mid[0, :, right], rays.step[0, :, right]
        # Along the grid all rays begin at one slice and end at one; a rounding error must not drop it.
        begin = int(np.ceil(max(0.0, rays.first.flat[0] - 1e-9)))
        end = int(np.floor(min(rays.slices - 1.0, rays.last.flat[0] + 1e-9))) + 1
        self.groups: list[Group] = []
        for slices in groups(begin, end):
            offset = np.arange(slices.start, slices.stop)[:, None] - (rays.slices - 1) / 2
            rows = _bands(row[0] + offset * row[1], high, like)
            columns = _bands(column[0] + offset * column[1], wide, like)
            if rows and columns:
                self.groups.append(Group(slices, rows, columns))

    def forward(self, volumes: Tensor) -> Tensor:
        """Line integrals `(B, rows, columns)` of `(B, depth, height, width)`."""
        out = torch.zeros(len(volumes), *self.size, dtype=self.length.dtype, device=volumes.device)
        for volume, image in zip(volumes, out, strict=True):
            for group in self.groups:
                some = gathered(volume, self.order, group.slices).contiguous()
                narrow = some.new_zeros(len(some), some.shape[1], self.size[1])
                for band in group.columns:
                    narrow[:, :, band.pixels] = some[:, :, band.voxels] @ band.weights.mT
                for band in group.rows:
                    image[band.pixels] += _summed(band.weights, narrow[:, band.voxels])
        return out * self.length

    def adjoint(self, images: Tensor, volumes: Tensor) -> None:
        """Add the adjoint of `(B, rows, columns)` to `volumes (B, depth, height, width)`."""
        images = (images * self.length).to(volumes.dtype)
        for volume, image in zip(volumes, images, strict=True):
            high, wide = (volume.shape[axis] for axis in self.order[1:])
            for group in self.groups:
                count = group.slices.stop - group.slices.start
                narrow = volume.new_zeros(count, high, self.size[1])
                for band in group.rows:
                    narrow[:, band.voxels] += band.weights.mT @ image[band.pixels]
                whole = volume.new_zeros(count, high, wide)
                for band in group.columns:
                    whole[:, :, band.voxels] += narrow[:, :, band.pixels] @ band.weights
                scattered(whole, volume, self.order, group.slices)


def _summed(weights: Tensor, narrow: Tensor) -> Tensor:
    """The sum over slices of weights `(n, r, u)` times narrow `(n, u, c)`, as one product."""
    n, r, u = weights.shape
    return weights.transpose(0, 1).reshape(r, n * u) @ narrow.reshape(n * u, -1)


def _bands(position: Array, voxels: int, like: Tensor) -> list[Band]:
    """Linear weights of positions `(slices, pixels)` on a line of voxels, nothing outside it."""
    bands = []
    for start in range(0, position.shape[1], BLOCK):
        pixels = slice(start, min(start + BLOCK, position.shape[1]))
        block = position[:, pixels]
        low = max(0, int(np.floor(block.min())))
        high = min(voxels, int(np.ceil(block.max())) + 1)
        if low < high:
            apart = np.abs(block[:, :, None] - np.arange(low, high))
            weights = torch.as_tensor(np.maximum(1 - apart, 0)).to(like.device, like.dtype)
            bands.append(Band(pixels, slice(low, high), weights))
    return bands


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What sums are kept in: float32 for half precision."""
    return dtype if dtype == torch.float64 else torch.float32
