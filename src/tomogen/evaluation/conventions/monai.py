"""As MONAI scores a pair (1.6.1, `monai.metrics`), under settings that people use.

SSIM: 11 taps of a Gaussian of sigma 1.5 (a window of 3 keeps that sigma) or a uniform window, windows inside,
population covariance. MS-SSIM: mean contrast-structure of each scale and SSIM of the last, each clipped at 0, to
the power of float32 weights; between scales means of 2^3 voxels, an odd last plane dropped. The original computes SSIM
in float32, here it is float64: they agree to about 3e-5. Where it raises for a volume too small, NaN stands here: SSIM with
an axis shorter than the window, MS-SSIM unless axis // (scales - 1)^2 > taps - 1 (176 voxels for its default).
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
    WANG_WEIGHTS, Change, floats, means, offset, product, pyramid, slabs, unit,
)  # fmt: skip

define = partial(Definition, convention="monai")
_FLOAT32 = "The original computes in float32"


def ssim(made: HU, truth: HU, weights: Floats, data_range: float = 1.0, change: Change = floats) -> float:
    """Mean SSIM over windows inside of what `change` makes of the HU; NaN where an axis is shorter than the window."""
    return means(made, truth, weights, data_range, change=change).ssim


def ms_ssim(
    made: HU,
    truth: HU,
    weights: Floats,
    data_range: float = 1.0,
    change: Change = floats,
    scale_weights: Sequence[float] = WANG_WEIGHTS,
) -> float:
    """Multi-scale SSIM; NaN where an axis is too short for so many scales."""
    scales = len(scale_weights)
    if min(truth.shape) // max(1, scales - 1) ** 2 <= len(weights) - 1:
        return math.nan
    terms = []
    for scale, (x, y, still) in enumerate(pyramid(made, truth, scales, change)):
        found = means(x, y, weights, data_range, change=still)
        terms.append(np.maximum(found.ssim if scale == scales - 1 else found.contrast, 0))
    return product(terms, np.float32(scale_weights).astype(float).tolist())


def first(scales: int) -> list[float]:
    """The first weights of the five, divided by their sum: for volumes too small for all."""
    total = sum(WANG_WEIGHTS[:scales])
    return [weight / total for weight in WANG_WEIGHTS[:scales]]


class Way(NamedTuple):
    """One setting of SSIM or MS-SSIM."""

    weights: Floats
    clip: tuple[int, int] | None
    departs: str
    scale_weights: Sequence[float] = ()


_FULL, _NARROW = (-1024, 3000), (-1024, 1476)
WAYS = {
    "ssim_gauss11_clip4024": Way(gaussian(1.5, 11), _FULL, f"{_FLOAT32}."),
    "ssim_uniform7_clip4024": Way(uniform(7), _FULL, f"Takes 7^3 uniform windows. {_FLOAT32}."),
    "ssim_gauss11_clip2500": Way(
        gaussian(1.5, 11), _NARROW, f"Clips to [-1024, 1476] HU, data range 2500. {_FLOAT32}."
    ),
    "ssim_gauss11_hu_offset_R4024": Way(
        gaussian(1.5, 11), None, f"HU + 1024 are not clipped, so luminance may see negative values. {_FLOAT32}."
    ),
    "ms_ssim_gauss11_3scales_clip4024": Way(
        gaussian(1.5, 11), _FULL, f"Takes three scales, their weights divided by their sum. {_FLOAT32}.", first(3)
    ),
    "ms_ssim_gauss3_5scales_clip4024": Way(
        gaussian(1.5, 3), _FULL, f"Takes windows of 3^3 voxels. {_FLOAT32}.", WANG_WEIGHTS
    ),
    "ms_ssim_uniform3_5scales_clip4024": Way(
        uniform(3), _FULL, f"Takes uniform windows of 3^3 voxels. {_FLOAT32}.", WANG_WEIGHTS
    ),
    "ms_ssim_default_gauss11_5scales_clip4024": Way(
        gaussian(1.5, 11), _FULL, f"{_FLOAT32}, and refuses an axis shorter than 176.", WANG_WEIGHTS
    ),
}


def measure(pair: Pair) -> Iterator[Reading]:
    """Errors, SSIM and MS-SSIM in these ways; masks are not looked at."""
    yield from _errors(pair)
    for name, way in WAYS.items():
        change = unit(*way.clip) if way.clip else offset(-1024)
        data_range = 1.0 if way.clip else 4024.0
        if way.scale_weights:
            value = ms_ssim(pair.made, pair.truth, way.weights, data_range, change, way.scale_weights)
        else:
            value = ssim(pair.made, pair.truth, way.weights, data_range, change)
        yield Reading(
            define(
                metric=name,
                better="higher",
                range=way.clip,
                reduction="product over scales of means over windows" if way.scale_weights else "mean over windows",
                parameters={
                    "window": "uniform" if "uniform" in name else "Gaussian, sigma 1.5",
                    "taps": len(way.weights),
                    "covariance": "population",
                    "peak": 1 if way.clip else 4024,
                    "scales": len(way.scale_weights) or 1,
                },
                departs=way.departs,
            ),
            value,
        )


def _errors(pair: Pair) -> Iterator[Reading]:
    absolute, square = _mean_errors(pair.truth, pair.made, floats)
    clipped = _mean_errors(pair.truth, pair.made, offset(*_FULL))[1]
    decibels = partial(define, unit="dB", better="higher", reduction="of the mean over voxels", parameters={"peak": 4024})
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
    for _, a, b in slabs(truth, made, 1, change):
        absolute += float(np.abs(a - b).sum())
        square += float(np.vdot(a - b, a - b))
    return absolute / truth.size, square / truth.size


def _decibels(mse: float) -> float:
    return math.inf if mse == 0 else 20 * math.log10(4024) - 10 * math.log10(mse)
