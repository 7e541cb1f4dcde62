"""Resampling along the array axes, always with a low-pass filter where voxels grow: nothing aliases.

Along each axis an output voxel is a triangle-weighted mean of input voxels, the triangle reaching one output voxel
to either side (one input voxel where the grid gets finer, which is linear interpolation). These are the weights of
`torch.nn.functional.interpolate(..., antialias=True)`, to which results are equal before rounding: within 0.002 HU in
float64, within 0.03 HU in torch's own float32.

The weights of 16 neighbouring outputs touch a narrow band of inputs, so each axis is a row of small dense products,
a slice at a time; `benchmarks/resample.json` has the figures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.intensity import HU_FLOOR
from tomogen.threads import spread
from tomogen.volume import Volume

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 16
"""Outputs per product: wide enough for matrix kernels, narrow enough that its band of inputs holds few zeros."""


@dataclass(frozen=True)
class Line:
    """Sample positions along one axis in input voxels: `first`, `first + step`, ... `count` of them."""

    first: float
    step: float
    count: int


class Band(NamedTuple):
    """Outputs `start..stop` of a line are `weights (stop - start, width) @ inputs[low : low + width]`."""

    start: int
    stop: int
    low: int
    weights: NDArray[np.float32]

    @property
    def high(self) -> int:
        """One past the last input."""
        return self.low + len(self.weights[0])


def bands(line: Line, size: int) -> list[Band]:
    """The weights of a line over an axis of `size` voxels.

    At the ends the weights are shared among the inputs that are there. Outputs whose centre lies outside the field,
    that is more than half an input voxel beyond the last centre, are in no band.
    """
    centres = line.first + line.step * np.arange(line.count)
    reach = max(1.0, line.step)
    inside = np.flatnonzero((centres > -0.5 - 1e-6) & (centres < size - 0.5 + 1e-6))
    found = []
    for start in range(int(inside[0]), int(inside[-1]) + 1, BLOCK) if inside.size else ():
        stop = min(start + BLOCK, int(inside[-1]) + 1)
        low = max(int(np.ceil(centres[start] - reach)), 0)
        high = min(int(np.floor(centres[stop - 1] + reach)), size - 1)
        weights = np.maximum(1 - np.abs(centres[start:stop, None] - np.arange(low, high + 1)) / reach, 0)
        weights /= weights.sum(axis=1, keepdims=True)
        found.append(Band(start, stop, low, weights.astype(np.float32)))
    return found


def resample(volume: Volume, spacing: Sequence[float], shape: Sequence[int], first: Sequence[float]) -> Volume:
    """The scan on a grid along its own axes: `spacing` mm, `shape` voxels, voxel (0, 0, 0) at index `first`.

    `first` is in voxels of the input. Values are int16 HU, rounded, floor -1024; beyond the field they are the floor.
    """
    steps = np.asarray(spacing, dtype=np.float64) / volume.spacing
    lines = [Line(float(a), float(b), int(n)) for a, b, n in zip(first, steps, shape, strict=True)]
    affine = volume.affine.copy()
    affine[:3, 3] = volume.world(first)
    affine[:3, :3] = volume.affine[:3, :3] * steps
    return replace(volume, hu=resample_array(volume.hu, lines), affine=affine)


def resample_whole(volume: Volume, spacing: Sequence[float]) -> Volume:
    """The whole field of a scan at another spacing, about the same centre."""
    size, steps = np.array(volume.shape), np.asarray(spacing, dtype=np.float64) / volume.spacing
    shape = np.maximum(np.rint(size / steps), 1).astype(int)
    return resample(volume, spacing, shape.tolist(), centred(size, shape, steps).tolist())


def centred(size: NDArray[np.int64], shape: NDArray[np.int64], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Index of the first voxel of a grid of `shape` voxels, `steps` apart, in the middle of `size` voxels."""
    first: NDArray[np.float64] = (size - 1) / 2 - (shape - 1) / 2 * steps
    return first


def resample_array(hu: NDArray[np.int16 | np.float32], lines: Sequence[Line]) -> NDArray[np.int16]:
    """The values of `hu` at the lines' positions along its three axes; int16, the HU floor outside the field.

    Slices are shared among as many threads as torch is set to use.
    """
    import torch

    depth, height, width = (bands(line, size) for line, size in zip(lines, hu.shape, strict=True))
    out = np.full([line.count for line in lines], HU_FLOOR, dtype=np.int16)
    if not (depth and height and width):
        return out
    field = torch.from_numpy(out)[:, height[0].start : height[-1].stop, width[0].start : width[-1].stop]
    first = round(lines[0].first)

    def copied(slices: range) -> None:
        for k, plane in zip(slices, _planes(hu, slices, height, width), strict=True):
            field[k - first] = _hu(plane)

    def kept(slices: range) -> None:
        for k, plane in zip(slices, _planes(hu, slices, height, width), strict=True):
            planes[k - depth[0].low] = plane

    def mixed(band: Band) -> None:
        inputs = planes[band.low - depth[0].low : band.high - depth[0].low].flatten(1)
        field[band.start : band.stop] = _hu(torch.from_numpy(band.weights) @ inputs).view(-1, *field.shape[1:])

    if lines[0].step == 1 and lines[0].first == first:  # slices stay slices
        spread(copied, _parts(first + depth[0].start, first + depth[-1].stop))
    else:
        planes = torch.empty((depth[-1].high - depth[0].low, *field.shape[1:]))
        spread(kept, _parts(depth[0].low, depth[-1].high))
        spread(mixed, depth)
    return out


def _parts(low: int, high: int) -> list[range]:
    """Slices `low..high` in parts of a block."""
    return [range(k, min(k + BLOCK, high)) for k in range(low, high, BLOCK)]


def _planes(
    hu: NDArray[np.int16 | np.float32], slices: range, height: list[Band], width: list[Band]
) -> Iterator["Tensor"]:
    """Slices `(H, W)` in float32 through the weights of their two axes.

    All use the same memory, each until the next: new pages for every slice would cost half as much as the products.
    """
    import torch

    left, top = width[0].start, height[0].start
    whole = torch.empty(hu.shape[1:])
    narrow = torch.empty((hu.shape[1], width[-1].stop - left))
    out = torch.empty((height[-1].stop - top, narrow.shape[1]))
    across = [(band, torch.from_numpy(band.weights).T) for band in width]
    along = [(band, torch.from_numpy(band.weights)) for band in height]
    for k in slices:
        whole.numpy()[...] = hu[k]
        for band, weights in across:
            torch.mm(whole[:, band.low : band.high], weights, out=narrow[:, band.start - left : band.stop - left])
        for band, weights in along:
            torch.mm(weights, narrow[band.low : band.high], out=out[band.start - top : band.stop - top])
        yield out


def _hu(values: "Tensor") -> "Tensor":
    """Float HU, changed in place to the nearest that int16 holds, none below the floor."""
    return values.round_().clamp_(HU_FLOOR, 32767)
