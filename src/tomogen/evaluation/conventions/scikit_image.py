"""As scikit-image scores a pair (0.26, `skimage.metrics`), under settings that people use; in float64.

SSIM by default has 7^3 uniform windows and sample covariance, and drops a border of 3; with Gaussian weights of sigma
1.5, cut at 3.5 sigma (11 taps), and population covariance it is the standard. The 2D forms are means over the slices
along one axis. An axis shorter than the window raises there, and is NaN here.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.local import gaussian, uniform
from tomogen.evaluation.pair import HU, Pair, Reading
from tomogen.evaluation.similarity import Change, clipped, offset, slabs, unit
from tomogen.evaluation.structure import floats, means

define = partial(Definition, convention="scikit_image")
_PLANES = ("axial", "coronal", "sagittal")


def structural_similarity(
    truth: HU,
    made: HU,
    *,
    data_range: float,
    change: Change = floats,
    win_size: int = 7,
    gaussian_weights: bool = False,
    use_sample_covariance: bool = True,
    axis: int | None = None,
) -> float:
    """Mean SSIM as `skimage.metrics.structural_similarity` has it, of what `change` makes of the HU.

    With `gaussian_weights` the window is 11 taps of sigma 1.5, whatever `win_size` is. `axis`: the mean over the slices
    along it, 2D windows (there: `channel_axis`). NaN where the window is larger than the image.
    """
    weights = gaussian(1.5, 11) if gaussian_weights else uniform(win_size)
    one = partial(means, weights=weights, peak=data_range, change=change, sample=use_sample_covariance)
    if axis is None:
        return one(truth, made).ssim
    slices = zip(np.moveaxis(truth, axis, 0), np.moveaxis(made, axis, 0), strict=True)
    return float(np.mean([one(a, b).ssim for a, b in slices]))


def mean_squared_error(truth: HU, made: HU, change: Change = floats) -> float:
    """Mean squared difference over all voxels."""
    return sum(float(np.vdot(a - b, a - b)) for _, a, b in slabs(truth, made, change)) / truth.size


def peak_signal_noise_ratio(truth: HU, made: HU, *, data_range: float, change: Change = floats) -> float:
    """10 log10(data_range^2 / MSE) in dB; infinite for an error of zero."""
    mse = mean_squared_error(truth, made, change)
    return math.inf if mse == 0 else 10 * math.log10(data_range**2 / mse)


def normalized_root_mse(truth: HU, made: HU) -> float:
    """RMSE over the root mean square of the truth (the default, `euclidean`); NaN or infinite for a truth of zeros."""
    square = sum(float(np.vdot(a, a)) for _, a, _ in slabs(truth, truth))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt(mean_squared_error(truth, made)) / np.sqrt(np.float64(square) / truth.size))


class Way(NamedTuple):
    """One setting of SSIM."""

    clip: tuple[int, int] | None
    departs: str
    taps: int = 7
    gaussian: bool = False
    sample: bool = True
    axis: int | None = None
    scaled: bool = True
    """Whether HU are mapped to [0, 1]; else they keep their sign, and the data range is 4024."""


_FULL, _NARROW = (-1024, 3000), (-1024, 1476)
_UNIFORM = "7^3 uniform windows and sample covariance"
SSIM = {
    "ssim_uniform7_raw_R4024": Way(None, f"Takes {_UNIFORM}; HU with their sign, not clipped.", scaled=False),
    "ssim_uniform7_clip4024": Way(_FULL, f"Takes {_UNIFORM}: the library's default."),
    "ssim_uniform7_hu_clip4024_not_offset": Way(
        _FULL, f"Takes {_UNIFORM}; HU with their sign, where luminance needs values from 0 up.", scaled=False
    ),
    "ssim_uniform7_clip2500": Way(_NARROW, f"Takes {_UNIFORM}; clips to [-1024, 1476] HU, data range 2500."),
    "ssim_gauss1.5_clip4024": Way(_FULL, "", 11, gaussian=True, sample=False),
    "ssim_gauss1.5_clip2500": Way(
        _NARROW, "Clips to [-1024, 1476] HU, data range 2500.", 11, gaussian=True, sample=False
    ),
    "ssim_gauss1.5_sample_cov_clip4024": Way(
        _FULL, "Multiplies covariances by 1331/1330, the library's default for Gaussian windows too.", 11, gaussian=True
    ),
    "ssim_uniform7_pop_cov_clip4024": Way(_FULL, "Takes 7^3 uniform windows.", sample=False),
    "ssim_uniform11_clip4024": Way(_FULL, "Takes 11^3 uniform windows and sample covariance.", 11),
    **{
        f"ssim_2d_uniform7_mean_over_axis{axis}_clip2500": Way(
            _NARROW,
            "Takes 2D slices, 7 x 7 uniform windows and sample covariance; clips to [-1024, 1476] HU, data range 2500.",
            axis=axis,
        )
        for axis in range(3)
    },
    "ssim_2d_gauss1.5_mean_over_axis0_clip4024": Way(
        _FULL, "Takes 2D slices and windows.", 11, gaussian=True, sample=False, axis=0
    ),
}


def measure(pair: Pair) -> Iterator[Reading]:
    """Errors and SSIM in these ways; masks are not looked at."""
    yield from _errors(pair)
    for name, way in SSIM.items():
        value = structural_similarity(
            pair.truth,
            pair.made,
            data_range=1.0 if way.scaled else 4024.0,
            change=_change(way),
            win_size=way.taps,
            gaussian_weights=way.gaussian,
            use_sample_covariance=way.sample,
            axis=way.axis,
        )
        yield Reading(
            define(
                metric=name,
                better="higher",
                range=way.clip,
                axis="3d" if way.axis is None else _PLANES[way.axis],
                reduction="mean over windows" if way.axis is None else "mean over windows of each slice, then slices",
                parameters={
                    "window": "Gaussian, sigma 1.5" if way.gaussian else "uniform",
                    "taps": way.taps,
                    "covariance": "sample" if way.sample else "population",
                    "peak": 1 if way.scaled else 4024,
                },
                departs=way.departs,
            ),
            value,
        )


def _change(way: Way) -> Change:
    if way.clip is None:
        return floats
    low, high = way.clip
    return unit(low, high) if way.scaled else clipped(low, high)


def _errors(pair: Pair) -> Iterator[Reading]:
    truth, made = pair.truth, pair.made
    decibels = partial(define, unit="dB", better="higher", reduction="of the mean over voxels")
    yield Reading(
        decibels(
            metric="psnr_raw_R4024",
            parameters={"peak": 4024},
            departs="HU are not clipped, so errors outside [-1024, 3000] HU count.",
        ),
        peak_signal_noise_ratio(truth, made, data_range=4024),
    )
    yield Reading(
        decibels(metric="psnr_clip4024", range=(-1024.0, 3000.0), parameters={"peak": 4024}),
        peak_signal_noise_ratio(truth, made, data_range=4024, change=offset(*_FULL)),
    )
    yield Reading(
        decibels(
            metric="psnr_clip2500",
            range=(-1024.0, 1476.0),
            parameters={"peak": 2500},
            departs="Clips to [-1024, 1476] HU, and the peak is 2500 HU.",
        ),
        peak_signal_noise_ratio(truth, made, data_range=2500, change=offset(*_NARROW)),
    )
    voxels = partial(define, better="lower", departs="HU are not clipped.")
    yield Reading(voxels(metric="mse_raw", unit="HU^2", reduction="mean over voxels"), mean_squared_error(truth, made))
    yield Reading(
        voxels(
            metric="nrmse_euclidean_raw",
            reduction="root mean square error over that of the truth",
            departs="HU are not clipped, and the truth's mean square depends on the zero of the HU scale.",
        ),
        normalized_root_mse(truth, made),
    )
