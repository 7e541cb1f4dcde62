"""Structural similarity of large pairs: slabs that fit in memory, and the means of its maps over them."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.evaluation.local import Edges, Floats, moments

SLAB = 8_000_000
"""Windows of one slab: about 1 GB at work, whatever the scan's size. Slabs share a window's width of slices."""

WANG_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, the finest first (Wang, Simoncelli, Bovik 2003, section 3.2)."""

Change = Callable[[NDArray[Any]], Floats]
"""From stored values to the float64 ones that a convention compares."""


class Means(NamedTuple):
    """Means over windows of SSIM and of its two factors."""

    ssim: float
    luminance: float
    contrast: float
    """Contrast and structure together (2 cov + C2) / (var_x + var_y + C2)."""


NOTHING = Means(math.nan, math.nan, math.nan)
"""Where no window fits, or no voxel counts."""


def floats(values: NDArray[Any]) -> Floats:
    """The values as they are."""
    return values.astype(np.float64)


def unit(low: float, high: float) -> Change:
    """HU clipped to [low, high] and mapped to [0, 1]."""
    return lambda hu: (np.clip(hu, low, high) - float(low)) / (high - low)


def offset(low: float, high: float = math.inf) -> Change:
    """HU clipped to [low, high], and `low` taken away."""
    return lambda hu: np.clip(hu, low, high) - float(low)


def continued(size: int, radius: int, edges: Edges) -> NDArray[np.intp]:
    """Indices of an axis of `size` voxels carried on by `radius` at both ends, as often as it takes."""
    index = np.arange(-radius, size + radius)
    if edges == "reflect":
        index %= 2 * size
        return np.minimum(index, 2 * size - 1 - index)
    if edges == "mirror":
        index %= max(2 * size - 2, 1)
        return np.minimum(index, 2 * size - 2 - index)
    return np.arange(size)


def slabs(
    x: NDArray[Any], y: NDArray[Any], window: int, change: Change = floats, edges: Edges = "inside"
) -> Iterator[tuple[slice, Floats, Floats]]:
    """Both images in slabs along the first axis: each window that lies inside lies in exactly one.

    With `edges` other than `inside` the images are carried on first, so that every voxel has its window. The slice
    says which windows the slab holds along the first axis. Nothing comes where the window is longer than an axis.
    """
    axes = [continued(size, window // 2, edges) for size in x.shape]
    if min(map(len, axes)) < window:
        return
    windows = len(axes[0]) - window + 1
    step = max(1, SLAB // math.prod(len(axis) for axis in axes[1:]))
    for start in range(0, windows, step):
        stop = min(start + step, windows)
        rows = axes[0][start : stop + window - 1]
        part: Any = slice(rows[0], rows[-1] + 1) if edges == "inside" else np.ix_(rows, *axes[1:])
        yield slice(start, stop), change(x[part]), change(y[part])


def means(
    x: NDArray[Any],
    y: NDArray[Any],
    weights: Floats,
    peak: float,
    *,
    change: Change = floats,
    edges: Edges = "inside",
    sample: bool = False,
    where: NDArray[np.bool_] | None = None,
) -> Means:
    """Mean SSIM, luminance and contrast-structure of two images of 2 or 3 axes (Wang et al. 2004, equations 6, 9, 13).

    C1 = (.01 peak)^2, C2 = (.03 peak)^2. `where`, of the images' shape, names the windows by their centres. NaN where
    the window is longer than an axis, or `where` names no window.
    """
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    radius = len(weights) // 2 if edges == "inside" else 0
    centres = None if where is None else where[tuple(slice(radius, size - radius) for size in where.shape)]
    sums, count = np.zeros(3), 0
    for span, a, b in slabs(x, y, len(weights), change, edges):
        m = moments(a, b, weights, sample=sample)
        luminance = (2 * m.mean_x * m.mean_y + c1) / (m.mean_x**2 + m.mean_y**2 + c1)
        contrast = (2 * m.cov + c2) / (m.var_x + m.var_y + c2)
        maps = [luminance * contrast, luminance, contrast]
        if centres is not None:
            maps = [one[centres[span]] for one in maps]
        sums += [one.sum() for one in maps]
        count += maps[0].size
    return Means(*(float(total) / count for total in sums)) if count else NOTHING


def halved(image: NDArray[Any], change: Change = floats) -> Floats:
    """Means of 2 x 2 x 2 voxels, one side by side with the next; an odd last plane is dropped."""
    d, h, w = (size // 2 for size in image.shape)
    half = np.empty((d, h, w))
    step = max(1, SLAB // max(1, h * w * 8))
    for start in range(0, d, step):
        block = change(image[2 * start : 2 * min(start + step, d), : 2 * h, : 2 * w])
        half[start : start + step] = block.reshape(-1, 2, h, 2, w, 2).mean(axis=(1, 3, 5))
    return half


def pyramid(
    x: NDArray[Any], y: NDArray[Any], scales: int, change: Change = floats
) -> Iterator[tuple[NDArray[Any], NDArray[Any], Change]]:
    """A pair at each scale, the finest first and as it is stored, with the change it still needs."""
    for scale in range(scales):
        if scale:
            x, y, change = halved(x, change), halved(y, change), floats
        yield x, y, change


def first_weights(scales: int) -> list[float]:
    """The first of the five weights divided by their sum, for volumes too small for all; all five as they are."""
    weights = WANG_WEIGHTS[:scales]
    return list(weights) if scales == len(WANG_WEIGHTS) else [weight / sum(weights) for weight in weights]


def single(weights: Sequence[float]) -> list[float]:
    """Weights as float32 holds them."""
    rounded: list[float] = np.asarray(weights, np.float32).astype(np.float64).tolist()
    return rounded


def product(terms: Sequence[float], weights: Sequence[float]) -> float:
    """The product of terms to the power of their weights; NaN where a term is negative."""
    return math.prod(term**weight if term >= 0 else math.nan for term, weight in zip(terms, weights, strict=True))
