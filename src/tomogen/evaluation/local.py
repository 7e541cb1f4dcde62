"""Local means, variances and covariances under a sliding window: what all kinds of SSIM are made of.

A window is separable, the same weights along every axis. Images are worked through in tiles that stay in the
processor's cache: along each axis the outputs of a tile touch a narrow band of inputs, so each axis is one small dense
product. Everything is float64, at several times the speed of a filter that passes over the whole image axis by axis
(`benchmarks/ssim.json` has the figures), and memory beyond the result is a few MB whatever the image's size.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from tomogen.threads import spread

Floats = NDArray[np.floating]
Edges = Literal["inside", "reflect", "mirror"]
"""Windows wholly inside (the result is smaller); or the array continued: `reflect` repeats the edge voxel
(d c b a | a b c d), `mirror` does not (d c b | a b c d)."""

Place = tuple[slice, ...]
Smooth = Callable[[Floats], Floats]
Result = TypeVar("Result")

BLOCKS = (16, 16, 32)
"""Windows of a tile along depth and height, and of one product along the width, which a tile spans: some 10 MB for
the maps of a scan 512 wide."""


class Moments(NamedTuple):
    """Under each window: means, (co)variances."""

    mean_x: Floats
    mean_y: Floats
    var_x: Floats
    var_y: Floats
    cov: Floats


class Band(NamedTuple):
    """Outputs `start..stop` of an axis are `weights (stop - start, high - low) @ inputs[low:high]`."""

    start: int
    stop: int
    low: int
    high: int
    weights: torch.Tensor


def gaussian(sigma: float, taps: int) -> Floats:
    """Weights of a sampled Gaussian, their sum 1."""
    offset: Floats = np.arange(taps) - (taps - 1) / 2
    weights: Floats = np.exp(-(offset**2) / (2 * sigma**2))
    weights /= weights.sum()
    return weights


def uniform(taps: int) -> Floats:
    """Equal weights, their sum 1."""
    return np.full(taps, 1 / taps)


def smooth(image: NDArray[Any], weights: Floats, edges: Edges = "inside") -> Floats:
    """The image of one to three axes under a separable window; empty where the window is longer than an axis.

    Raises:
        ValueError: the window has an even number of taps, or the image another number of axes.
    """
    out = np.empty(windows(image.shape, weights, edges))

    def work(place: Place, tiles: list[NDArray[Any]], under: Smooth) -> None:
        out[place] = under(tiles[0][None].astype(np.float64))[0]

    tiled([image], weights, edges, work)
    return out


def moments(
    x: NDArray[Any], y: NDArray[Any], weights: Floats, edges: Edges = "inside", sample: bool = False
) -> Moments:
    """Moments of two images of one shape; `sample`: (co)variances with N/(N-1), N the window's voxels.

    Raises:
        ValueError: as `smooth`.
    """
    count = len(weights) ** x.ndim
    factor = count / (count - 1) if sample else 1.0
    out = Moments(*np.empty((5, *windows(x.shape, weights, edges))))

    def work(place: Place, tiles: list[NDArray[Any]], under: Smooth) -> None:
        a, b = (tile.astype(np.float64) for tile in tiles)
        mean_x, mean_y, square_x, square_y, product = under(np.stack([a, b, a * a, b * b, a * b]))
        out.mean_x[place], out.mean_y[place] = mean_x, mean_y
        out.var_x[place] = factor * (square_x - mean_x * mean_x)
        out.var_y[place] = factor * (square_y - mean_y * mean_y)
        out.cov[place] = factor * (product - mean_x * mean_y)

    tiled([x, y], weights, edges, work)
    return out


def windows(shape: tuple[int, ...], weights: Floats, edges: Edges) -> tuple[int, ...]:
    """Windows along each axis."""
    return tuple(max(0, size - len(weights) + 1) if edges == "inside" else size for size in shape)


def tiled(
    images: Sequence[NDArray[Any]],
    weights: Floats,
    edges: Edges,
    work: Callable[[Place, list[NDArray[Any]], Smooth], Result],
) -> list[Result]:
    """What `work(place, tiles, under)` gives for each tile, in order.

    `place` are the tile's windows, `tiles` what they see of each image, as it is stored. `under(maps)` takes float64
    maps `(m, *tile)` that `work` makes of them, and gives them under the tile's windows. Tiles are shared among as many
    threads as torch is set to use, so `work` may write to its place only; what it returns does not depend on them.

    Raises:
        ValueError: as `smooth`.
    """
    shape = images[0].shape
    if len(weights) % 2 == 0 or not 1 <= len(shape) <= 3:
        raise ValueError(f"windows have an odd number of taps and 1 to 3 axes, not {len(weights)} and {len(shape)}")
    blocks = BLOCKS[3 - len(shape) :]
    *outer, width = (list(bands(size, weights, edges, block)) for size, block in zip(shape, blocks, strict=True))
    if not width:
        return []

    def one(bounds: tuple[Band, ...]) -> Result:
        place = (*(slice(band.start, band.stop) for band in bounds), slice(0, width[-1].stop))
        seen = tuple(slice(band.low, band.high) for band in bounds)
        return work(place, [image[seen] for image in images], lambda maps: _under(maps, bounds, width))

    return spread(one, itertools.product(*outer))


def bands(size: int, weights: Floats, edges: Edges, block: int) -> Iterator[Band]:
    """The windows of an axis of `size` voxels, `block` at a time; none where the window is longer than the axis."""
    taps = len(weights)
    inputs = np.arange(size)
    if edges != "inside":
        inputs = np.pad(inputs, taps // 2, mode="symmetric" if edges == "reflect" else "reflect")
    count = len(inputs) - taps + 1
    for start in range(0, count, block):
        stop = min(start + block, count)
        touched = inputs[start : stop + taps - 1]
        low, high = int(touched.min()), int(touched.max()) + 1
        dense = np.zeros((stop - start, high - low))
        for row in range(stop - start):
            np.add.at(dense[row], touched[row : row + taps] - low, weights)
        yield Band(start, stop, low, high, torch.from_numpy(dense))


def _under(maps: Floats, outer: Sequence[Band], width: Sequence[Band]) -> Floats:
    """Maps `(m, *tile)` under the windows of a tile, `(m, *windows)`."""
    found = torch.from_numpy(np.ascontiguousarray(maps))
    size = found.shape[-1]
    sizes = [len(maps)]
    for axis, band in enumerate(outer):
        # Axes that are done stand before this one, those to come behind it.
        found = torch.matmul(band.weights, found.reshape(int(np.prod(sizes)), maps.shape[1 + axis], -1))
        sizes.append(band.stop - band.start)
    rows = found.reshape(-1, size)
    out = torch.empty((len(rows), width[-1].stop), dtype=torch.float64)
    for band in width:
        torch.mm(rows[:, band.low : band.high], band.weights.T, out=out[:, band.start : band.stop])
    result: Floats = out.numpy().reshape(*sizes, -1)
    return result
