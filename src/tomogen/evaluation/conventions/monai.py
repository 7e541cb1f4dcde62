"""As MONAI scores a pair (1.6.1, `monai.metrics`), under settings that people use.

SSIM: 11 taps of a Gaussian of sigma 1.5 (a window of 3 keeps that sigma) or a uniform window, windows inside,
population covariance. MS-SSIM: mean contrast-structure of each scale and SSIM of the last, each clipped at 0, to
the power of float32 weights; between scales means of 2^3 voxels, an odd last plane dropped. Where the original raises
for a volume too small, NaN stands here: SSIM with an axis shorter than the window, MS-SSIM unless
axis // (scales - 1)^2 > taps - 1 (176 voxels for its default).

The original computes SSIM in float32 under a window that is not separated. In wide even regions its rounding moves SSIM
by up to 1e-4, so up to `FAITHFUL` voxels the same is done here, at about 2 seconds for a million voxels and a core;
larger volumes are computed in float64, which is quick and nearer to the definition.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.local import Floats, gaussian, uniform
from tomogen.evaluation.pair import HU, Pair, Reading
from tomogen.evaluation.similarity import (
    WANG_WEIGHTS,
    Change,
    first_weights,
    offset,
    product,
    pyramid,
    single,
    slabs,
    unit,
)
from tomogen.evaluation.structure import Means, floats, means

FAITHFUL = 1_000_000
"""Voxels up to which SSIM is computed in float32 as the original does."""
SIGMA = 1.5
Kernel = Literal["gaussian", "uniform"]

define = partial(Definition, convention="monai")
_FLOAT32 = "The original computes in float32, and so does this up to a million voxels"


def ssim(
    made: HU,
    truth: HU,
    *,
    data_range: float = 1.0,
    kernel_type: Kernel = "gaussian",
    win_size: int = 11,
    change: Change = floats,
) -> float:
    """Mean SSIM over windows inside of what `change` makes of the HU; NaN where an axis is shorter than the window."""
    return _means(made, truth, data_range, kernel_type, win_size, change).ssim


def ms_ssim(
    made: HU,
    truth: HU,
    *,
    data_range: float = 1.0,
    kernel_type: Kernel = "gaussian",
    kernel_size: int = 11,
    weights: Sequence[float] = WANG_WEIGHTS,
    change: Change = floats,
) -> float:
    """Multi-scale SSIM; NaN where an axis is too short for so many scales."""
    scales = len(weights)
    if min(truth.shape) // max(1, scales - 1) ** 2 <= kernel_size - 1:
        return math.nan
    terms = []
    for scale, (x, y, still) in enumerate(pyramid(made, truth, scales, change)):
        found = _means(x, y, data_range, kernel_type, kernel_size, still)
        terms.append(np.maximum(found.ssim if scale == scales - 1 else found.contrast, 0))
    return product(terms, single(weights))


def _means(
    x: NDArray[Any], y: NDArray[Any], data_range: float, kernel_type: Kernel, taps: int, change: Change
) -> Means:
    if min(x.shape) < taps:
        return Means(math.nan, math.nan, math.nan)
    if x.size <= FAITHFUL:
        return _float32_means(change(x), change(y), data_range, _window(kernel_type, taps))
    weights = gaussian(SIGMA, taps) if kernel_type == "gaussian" else uniform(taps)
    return means(x, y, weights, data_range, change=change)


def _window(kernel_type: Kernel, taps: int) -> torch.Tensor:
    """Float32 weights (taps, taps, taps)."""
    if kernel_type == "uniform":
        return torch.ones(taps, taps, taps) / taps**3
    offset_from_middle = torch.arange(taps, dtype=torch.float32) - (taps - 1) / 2
    line = torch.exp(-((offset_from_middle / SIGMA) ** 2) / 2)
    line = line / line.sum()
    return line[:, None, None] * line[:, None] * line


def _float32_means(x: Floats, y: Floats, data_range: float, window: torch.Tensor) -> Means:
    """Means of SSIM and its factors, in float32 throughout."""
    a, b = (torch.from_numpy(np.ascontiguousarray(image)).float()[None, None] for image in (x, y))
    mean_a, mean_b, aa, bb, ab = (
        torch.nn.functional.conv3d(image, window[None, None]) for image in (a, b, a * a, b * b, a * b)
    )
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    variances = (aa - mean_a * mean_a) + (bb - mean_b * mean_b)
    contrast = (2 * (ab - mean_a * mean_b) + c2) / (variances + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return Means(*(float(image.mean()) for image in (luminance * contrast, luminance, contrast)))


class Way(NamedTuple):
    """One setting of SSIM or MS-SSIM."""

    kernel: Kernel
    taps: int
    clip: tuple[int, int]
    departs: str
    weights: Sequence[float] = ()
    """Of scales; none for SSIM."""
    peak: int = 1
    """What the clipped range is mapped to from 0: 1, or its width in HU."""


_FULL, _NARROW = (-1024, 3000), (-1024, 1476)
WAYS = {
    "ssim_gauss11_clip4024": Way("gaussian", 11, _FULL, f"{_FLOAT32}."),
    "ssim_uniform7_clip4024": Way("uniform", 7, _FULL, f"Takes 7^3 uniform windows. {_FLOAT32}."),
    "ssim_gauss11_clip2500": Way(
        "gaussian", 11, _NARROW, f"Clips to [-1024, 1476] HU, data range 2500. {_FLOAT32}."
    ),
    "ssim_gauss11_hu_offset_R4024": Way(
        "gaussian", 11, _FULL, f"Clipped at both ends, 1024 HU added, as in the standard. {_FLOAT32}.", peak=4024
    ),
    "ms_ssim_gauss11_3scales_clip4024": Way(
        "gaussian", 11, _FULL, f"Takes three scales, their weights divided by their sum. {_FLOAT32}.", first_weights(3)
    ),
    "ms_ssim_gauss3_5scales_clip4024": Way(
        "gaussian", 3, _FULL, f"Takes windows of 3^3 voxels. {_FLOAT32}.", WANG_WEIGHTS
    ),
    "ms_ssim_uniform3_5scales_clip4024": Way(
        "uniform", 3, _FULL, f"Takes uniform windows of 3^3 voxels. {_FLOAT32}.", WANG_WEIGHTS
    ),
    "ms_ssim_default_gauss11_5scales_clip4024": Way(
        "gaussian", 11, _FULL, f"Not a number where an axis is shorter than 176. {_FLOAT32}.", WANG_WEIGHTS
    ),
}  # fmt: skip


def measure(pair: Pair) -> Iterator[Reading]:
    """Errors, SSIM and MS-SSIM in these ways; masks are not looked at."""
    yield from _errors(pair)
    for name, way in WAYS.items():
        change = unit(*way.clip) if way.peak == 1 else offset(*way.clip)
        if way.weights:
            value = ms_ssim(
                pair.made, pair.truth, data_range=way.peak, kernel_type=way.kernel, kernel_size=way.taps,
                weights=way.weights, change=change,
            )  # fmt: skip
        else:
            value = ssim(
                pair.made, pair.truth, data_range=way.peak, kernel_type=way.kernel, win_size=way.taps, change=change
            )
        yield Reading(
            define(
                metric=name,
                better="higher",
                range=way.clip,
                reduction="product over scales of means over windows" if way.weights else "mean over windows",
                parameters={
                    "window": "uniform" if way.kernel == "uniform" else "Gaussian, sigma 1.5",
                    "taps": way.taps,
                    "covariance": "population",
                    "peak": way.peak,
                    "scales": len(way.weights) or 1,
                },
                departs=way.departs,
            ),
            value,
        )


def _errors(pair: Pair) -> Iterator[Reading]:
    absolute, square = _mean_errors(pair.truth, pair.made, floats)
    clipped = _mean_errors(pair.truth, pair.made, offset(*_FULL))[1]
    decibels = partial(
        define, unit="dB", better="higher", reduction="of the mean over voxels", parameters={"peak": 4024}
    )
    yield Reading(
        decibels(metric="psnr_raw_max4024", departs="HU are not clipped, so errors outside [-1024, 3000] HU count."),
        _decibels(square),
    )
    yield Reading(decibels(metric="psnr_clip4024", range=(-1024.0, 3000.0)), _decibels(clipped))
    voxels = partial(define, unit="HU", better="lower", reduction="mean over voxels", departs="HU are not clipped.")
    yield Reading(voxels(metric="mae_raw"), absolute)
    yield Reading(voxels(metric="mse_raw", unit="HU^2"), square)
    yield Reading(voxels(metric="rmse_raw", reduction="root of the mean over voxels"), math.sqrt(square))


def _mean_errors(truth: HU, made: HU, change: Change) -> tuple[float, float]:
    """Mean absolute and mean squared difference."""
    absolute = square = 0.0
    for _, a, b in slabs(truth, made, change):
        absolute += float(np.abs(a - b).sum())
        square += float(np.vdot(a - b, a - b))
    return absolute / truth.size, square / truth.size


def _decibels(mse: float) -> float:
    return math.inf if mse == 0 else 20 * math.log10(4024) - 10 * math.log10(mse)
