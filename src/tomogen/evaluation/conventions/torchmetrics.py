"""As torchmetrics scores a pair (1.9.0, `torchmetrics.functional.image`), under settings that people use; in float64.

SSIM: the volume is mirrored at its edges (the edge voxel not repeated) and the whole map is averaged, so the border
counts. A Gaussian has the 11 taps that sigma 1.5 gives. `data_range=None` takes the larger of the two volumes'
max - min. A tuple clips to itself but takes its lower end from nothing, so luminance sees negative numbers. MS-SSIM:
mean contrast-structure of each scale without the border, and SSIM of the last with it, each clipped at 0, to the power
of float32 weights; between scales means of 2^3 voxels, an odd last plane dropped. PSNR goes through float32 constants:
2e-6 dB off. Where it raises for a volume too small, NaN stands here.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.local import Floats, gaussian, uniform
from tomogen.evaluation.pair import HU, Pair, Reading
from tomogen.evaluation.similarity import (
    WANG_WEIGHTS,
    Change,
    clipped,
    first_weights,
    product,
    pyramid,
    single,
    slabs,
    unit,
)
from tomogen.evaluation.structure import floats, means

define = partial(Definition, convention="torchmetrics")


def structural_similarity(
    made: HU, truth: HU, weights: Floats, data_range: float | None = None, change: Change = floats
) -> float:
    """Mean SSIM over all voxels, mirrored at the edges; NaN where an axis is not longer than the window's radius.

    `data_range` None: the larger max - min of the two.
    """
    if min(truth.shape) <= len(weights) // 2:
        return math.nan
    if data_range is None:
        data_range = max(_extent(made, change), _extent(truth, change))
        if data_range == 0:
            return math.nan
    return means(made, truth, weights, data_range, change=change, edges="mirror").ssim


def multiscale(
    made: HU,
    truth: HU,
    weights: Floats,
    data_range: float,
    change: Change = floats,
    betas: Sequence[float] = WANG_WEIGHTS,
) -> float:
    """Multi-scale SSIM; NaN where height or width, or any axis at the last scale, is too short."""
    scales, taps = len(betas), len(weights)
    plane = min(truth.shape[1:])
    if plane < 2**scales or plane // max(1, scales - 1) ** 2 <= taps - 1:
        return math.nan
    terms = []
    for scale, (x, y, still) in enumerate(pyramid(made, truth, scales, change)):
        if scale == scales - 1:
            terms.append(structural_similarity(x, y, weights, data_range, still))
        else:
            terms.append(means(x, y, weights, data_range, change=still).contrast)
    return product([float(np.maximum(term, 0)) for term in terms], single(betas))


def peak_signal_noise_ratio(mse: float, data_range: float) -> float:
    """PSNR in dB with the constants rounded to float32; infinite for an error of zero."""
    with np.errstate(divide="ignore"):
        nepers = float(np.float32(2) * np.log(np.float32(data_range))) - float(np.log(np.float64(mse)))
    return nepers * float(np.float32(10) / np.log(np.float32(10)))


class Way(NamedTuple):
    """One setting of SSIM or MS-SSIM."""

    weights: Floats
    clip: tuple[int, int]
    departs: str
    data_range: float | None = 1.0
    """None: from the pair."""
    betas: Sequence[float] = ()
    scaled: bool = True
    """Whether HU are mapped to [0, 1]."""


_FULL, _NARROW = (-1024, 3000), (-1024, 1476)
_BORDER = "Windows at the border see a mirrored volume, and count"
_ENDS = "The last scale's windows at the border see a mirrored volume, and count"
WAYS = {
    "ssim_gauss_clip4024": Way(gaussian(1.5, 11), _FULL, f"{_BORDER}."),
    "ssim_uniform7_clip4024": Way(uniform(7), _FULL, f"{_BORDER}; takes 7^3 uniform windows."),
    "ssim_gauss_clip4024_data_range_none": Way(
        gaussian(1.5, 11), _FULL,
        f"{_BORDER}; the data range is the larger max - min of the two, so the same error scores otherwise elsewhere.",
        data_range=None,
    ),
    "ssim_gauss_hu_tuple_range": Way(
        gaussian(1.5, 11), _FULL, f"{_BORDER}; HU keep their sign, where luminance needs values from 0 up.",
        data_range=4024.0, scaled=False,
    ),
    "ssim_gauss_clip2500": Way(
        gaussian(1.5, 11), _NARROW, f"{_BORDER}; clips to [-1024, 1476] HU, data range 2500."
    ),
    "ms_ssim_gauss_3scales_clip4024": Way(
        gaussian(1.5, 11), _FULL, f"{_ENDS}; takes three scales, their weights divided by their sum.",
        betas=first_weights(3),
    ),
    "ms_ssim_uniform3_5scales_clip4024": Way(
        uniform(3), _FULL, f"{_ENDS}; takes uniform windows of 3^3 voxels.", betas=WANG_WEIGHTS
    ),
    "ms_ssim_default_5scales_clip4024_float32": Way(
        gaussian(1.5, 11), _FULL, f"{_ENDS}; the original computed in float32.", betas=WANG_WEIGHTS
    ),
}  # fmt: skip


def measure(pair: Pair) -> Iterator[Reading]:
    """PSNR, SSIM and MS-SSIM in these ways; masks are not looked at."""
    yield from _decibels(pair)
    for name, way in WAYS.items():
        change = unit(*way.clip) if way.scaled else clipped(*way.clip)
        if way.betas:
            value = multiscale(pair.made, pair.truth, way.weights, way.data_range or 1.0, change, way.betas)
        else:
            value = structural_similarity(pair.made, pair.truth, way.weights, way.data_range, change)
        yield Reading(
            define(
                metric=name,
                better="higher",
                range=way.clip,
                reduction="product over scales of means over windows" if way.betas else "mean over all voxels",
                parameters={
                    "window": "uniform" if "uniform" in name else "Gaussian, sigma 1.5",
                    "taps": len(way.weights),
                    "covariance": "population",
                    "peak": way.data_range or "larger max - min of the pair",
                    "scales": len(way.betas) or 1,
                },
                departs=way.departs,
            ),
            value,
        )


def _decibels(pair: Pair) -> Iterator[Reading]:
    decibels = partial(
        define, unit="dB", better="higher", reduction="of the mean over voxels", parameters={"peak": 4024}
    )
    constants = "Constants are rounded to float32: 2e-6 dB off"
    whole = (-1024.0, 3000.0)
    yield Reading(
        decibels(metric="psnr_raw_4024", departs=f"HU are not clipped. {constants}."),
        peak_signal_noise_ratio(_mean_squared(pair, floats), 4024),
    )
    yield Reading(
        decibels(metric="psnr_tuple_range", range=whole, departs=f"{constants}."),
        peak_signal_noise_ratio(_mean_squared(pair, clipped(*_FULL)), 4024),
    )
    yield Reading(
        decibels(metric="psnr_clip4024", range=whole, parameters={"peak": 1}, departs=f"{constants}."),
        peak_signal_noise_ratio(_mean_squared(pair, unit(*_FULL)), 1),
    )


def _mean_squared(pair: Pair, change: Change) -> float:
    return sum(float(np.vdot(a - b, a - b)) for _, a, b in slabs(pair.truth, pair.made, change)) / pair.truth.size


def _extent(image: HU, change: Change) -> float:
    """Largest minus smallest value; a change keeps the order of values."""
    low, high = change(np.array([image.min(), image.max()]))
    return float(high - low)
