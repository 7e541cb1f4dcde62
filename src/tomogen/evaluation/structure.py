"""Mean structural similarity of two images of any size, tile by tile, no map of it ever whole."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.evaluation.local import Edges, Floats, Place, Smooth, tiled

K1, K2 = 0.01, 0.03


class Means(NamedTuple):
    """Means over windows of SSIM and of its two factors."""

    ssim: float
    luminance: float
    contrast: float
    """Contrast and structure together, (2 cov + C2) / (var_x + var_y + C2)."""


def floats(values: NDArray[Any]) -> Floats:
    """The values as they are, in float64."""
    return values.astype(np.float64)


def means(
    x: NDArray[Any],
    y: NDArray[Any],
    weights: Floats,
    peak: float,
    *,
    change: Callable[[NDArray[Any]], Floats] = floats,
    edges: Edges = "inside",
    sample: bool = False,
    where: NDArray[Any] | None = None,
) -> Means:
    """Mean SSIM, luminance and contrast-structure of two images of 1 to 3 axes (Wang et al. 2004, equations 6, 9, 13).

    C1 = (.01 peak)^2, C2 = (.03 peak)^2. `change` makes of stored values those that are compared. `where`, of the
    images' shape, weighs each window by its centre. `sample`: (co)variances with N/(N-1). NaN where the window is
    longer than an axis, or no window weighs anything.

    With u = x + y and d = x - y only four maps need smoothing: var_x + var_y = (var_u + var_d) / 2, contrast and
    structure are 1 - var_d / (var_x + var_y + C2), luminance 1 - mean_d^2 / (mean_x^2 + mean_y^2 + C1). Equal images
    score 1 exactly, and small errors keep their digits.

    Raises:
        ValueError: as `local.smooth`.
    """
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    count = len(weights) ** x.ndim
    factor = count / (count - 1) if sample else 1.0
    radius = len(weights) // 2 if edges == "inside" else 0

    def work(place: Place, tiles: list[NDArray[Any]], under: Smooth) -> tuple[float, float, float, float]:
        weight = None
        if where is not None:
            weight = where[tuple(slice(part.start + radius, part.stop + radius) for part in place)].astype(np.float64)
            if not weight.any():
                return 0.0, 0.0, 0.0, 0.0
        a, b = (change(tile) for tile in tiles)
        maps = np.empty((4, *a.shape))
        np.add(a, b, out=maps[0])
        np.subtract(a, b, out=maps[1])
        np.multiply(maps[:2], maps[:2], out=maps[2:])
        sum_, difference, sum_square, difference_square = under(maps)
        mean_difference_square = difference * difference
        mean_square = sum_ * sum_
        var_d = factor * (difference_square - mean_difference_square)
        var_u = factor * (sum_square - mean_square)
        with np.errstate(divide="ignore", invalid="ignore"):  # peak 0, and both 0: not a number
            contrast = 1 - var_d / ((var_u + var_d) / 2 + c2)
            luminance = 1 - mean_difference_square / ((mean_square + mean_difference_square) / 2 + c1)
        # Not np.vdot, whose BLAS starts threads of its own: milliseconds for each tile on a busy machine.
        if weight is None:
            return float((luminance * contrast).sum()), float(luminance.sum()), float(contrast.sum()), contrast.size
        luminance *= weight
        ssim, bright = (luminance * contrast).sum(), luminance.sum()
        contrast *= weight
        return float(ssim), float(bright), float(contrast.sum()), float(weight.sum())

    parts = tiled([x, y], weights, edges, work)
    ssim, luminance, contrast, total = (
        (math.fsum(column) for column in zip(*parts, strict=True)) if parts else (0.0,) * 4
    )
    if not total:
        return Means(math.nan, math.nan, math.nan)
    return Means(ssim / total, luminance / total, contrast / total)
