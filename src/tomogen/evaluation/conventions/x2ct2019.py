"""As X2CT scores a CT made from radiographs (Ying et al., CVPR 2019; `test.py` of kylekma/X2CT, settings of 2500 HU).

HU + 1024 are clipped to [0, 2500], divided by 2500, rounded to six decimals and kept as float32: `MAE0`, `MSE0`,
`CosineSimilarity` and `SSIM-*` are of these. `MAE`, `MSE` and `PSNR-*` are of counts: the same times 2500 in float32,
cut to whole numbers, which takes one count from some voxels. There truth and what was made take the same way; in the
original the network's output is not rounded.

Where a dataset's name has neither `std` nor `baseline` in it, the original exchanges depth and height first, and with
them -1 and -2. It leaves a patient out of its averages when the cosine exceeds 1 by rounding; this is not done here.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.local import uniform
from tomogen.evaluation.pair import HU, Pair, Reading
from tomogen.evaluation.similarity import slabs
from tomogen.evaluation.structure import floats, means

LOW, SPAN = -1024, 2500
PEAK = 4095
"""The largest value of 12 bits; the data span 2500: 20 log10(4095 / 2500) = 4.286 dB too much."""
PERFECT = 100.0
"""dB given for an error of zero."""

define = partial(Definition, convention="x2ct2019", range=(float(LOW), float(LOW + SPAN)))
_COUNTS = "Clips to [-1024, 1476] HU and cuts to whole counts after float32"
_FRACTIONS = "Divides HU clipped to [-1024, 1476] by 2500, to six decimals in float32"
_PEAK = f"{_COUNTS}; takes 4095 as the peak of data that span 2500 (4.286 dB more); an error of zero gives 100 dB"


def fractions(hu: HU) -> NDArray[np.float32]:
    """HU as the original stores them for scoring: [0, 1] in float32."""
    kept = np.empty(hu.shape, np.float32)
    for k in range(len(hu)):
        kept[k] = np.round(np.clip(hu[k].astype(np.float64) - LOW, 0, SPAN) / SPAN, 6)
    return kept


def counts(image: NDArray[np.float32]) -> NDArray[np.int32]:
    """Fractions times 2500 in float32, cut (not rounded) to whole numbers."""
    return (image * np.float32(SPAN)).astype(np.int32)


def psnr(mse: float, peak: float = PEAK) -> float:
    """Peak signal to noise in dB; 100 for an error of zero."""
    return PERFECT if mse == 0 else 20 * math.log10(peak / math.sqrt(mse))


def ssim(truth: NDArray[np.float32], made: NDArray[np.float32], axis: int) -> float:
    """Mean over the slices along `axis` of 2D SSIM of fractions: 7 x 7 uniform, sample covariance, windows inside."""
    a, b = np.moveaxis(truth, axis, 0), np.moveaxis(made, axis, 0)
    return float(np.mean([means(x, y, uniform(7), 1.0, sample=True).ssim for x, y in zip(a, b, strict=True)]))


def measure(pair: Pair) -> Iterator[Reading]:
    """Its numbers by its names; masks are not looked at. SSIM is NaN where a slice is smaller than 7 x 7."""
    truth, made = fractions(pair.truth), fractions(pair.made)
    yield from _fraction_errors(truth, made)
    yield from _similarities(truth, made)
    yield from _count_errors(truth, made)
    yield Reading(
        define(
            metric="truth_voxels_lost_to_truncation",
            unit="voxels",
            reduction="number of voxels",
            departs=f"{_COUNTS}: in so many voxels of the truth a count is lost. No part of the original.",
        ),
        float(lost(pair.truth, truth)),
    )


def lost(hu: HU, kept: NDArray[np.float32]) -> int:
    """Voxels whose count is not the whole number that HU + 1024 in [0, 2500] have."""
    return sum(
        int((counts(kept[k]) != np.clip(hu[k].astype(np.float64) - LOW, 0, SPAN).astype(np.int32)).sum())
        for k in range(len(hu))
    )


def _fraction_errors(truth: NDArray[np.float32], made: NDArray[np.float32]) -> Iterator[Reading]:
    absolute = square = cross = aa = bb = 0.0
    for _, a, b in slabs(truth, made, floats):
        absolute += float(np.abs(a - b).sum())
        square += _dot(a - b, a - b)
        cross, aa, bb = cross + _dot(a, b), aa + _dot(a, a), bb + _dot(b, b)
    length = math.sqrt(aa) * math.sqrt(bb)
    mean = partial(define, reduction="mean over voxels", parameters={"scale": SPAN}, departs=f"{_FRACTIONS}.")
    yield Reading(mean(metric="MAE0", better="lower"), absolute / truth.size)
    yield Reading(mean(metric="MSE0", better="lower"), square / truth.size)
    yield Reading(
        define(
            metric="CosineSimilarity",
            better="higher",
            reduction="of all voxels as one vector",
            parameters={"scale": SPAN},
            departs=f"{_FRACTIONS}: the cosine of values counted from -1024 HU, not from 0.",
        ),
        cross / length if length else math.nan,
    )


def _similarities(truth: NDArray[np.float32], made: NDArray[np.float32]) -> Iterator[Reading]:
    values = [ssim(truth, made, axis) for axis in range(3)]
    constants: dict[str, float | int | str] = {"window": "uniform", "taps": 7, "covariance": "sample", "peak": 1}
    for name, axis, value in zip(
        ("1", "2", "3", "avg"), (*_AXES, "mean of the three"), (*values, sum(values) / 3), strict=True
    ):
        yield Reading(
            define(
                metric=f"SSIM-{name}",
                better="higher",
                axis=axis,
                reduction="mean over windows of each slice, then over slices",
                parameters=constants,
                departs=f"{_FRACTIONS}; takes 2D slices, 7 x 7 uniform windows and sample covariance.",
            ),
            value,
        )


def _count_errors(truth: NDArray[np.float32], made: NDArray[np.float32]) -> Iterator[Reading]:
    absolute, slices = 0, [np.zeros(size) for size in truth.shape]
    for span, a, b in slabs(truth, made, _whole):
        difference = a - b
        absolute += int(np.abs(difference).sum())
        square = difference * difference
        slices[0][span] = square.sum(axis=(1, 2))
        slices[1] += square.sum(axis=(0, 2))
        slices[2] += square.sum(axis=(0, 1))
    mse = float(slices[0].sum()) / truth.size
    by_axis = [
        float(np.mean([psnr(one / (truth.size / size)) for one in total]))
        for size, total in zip(truth.shape, slices, strict=True)
    ]
    decibels = partial(define, unit="dB", better="higher")
    voxels = partial(define, unit="HU", better="lower", reduction="mean over voxels", departs=f"{_COUNTS}.")
    yield Reading(voxels(metric="MAE"), absolute / truth.size)
    yield Reading(voxels(metric="MSE", unit="HU^2"), mse)
    peak = {"peak": PEAK}
    yield Reading(
        decibels(metric="psnr-3d", reduction="of the mean over voxels", parameters=peak, departs=f"{_PEAK}."), psnr(mse)
    )
    for name, axis, value in zip(
        ("1", "2", "3", "avg"), (*_AXES, "mean of the three"), (*by_axis, sum(by_axis) / 3), strict=True
    ):
        yield Reading(
            decibels(
                metric=f"PSNR-{name}",
                axis=axis,
                reduction="of the mean over each slice, then mean over slices",
                parameters=peak,
                departs=f"{_PEAK}, each slice without error too; averages the dB of slices, never below those of all.",
            ),
            value,
        )
    yield Reading(
        decibels(
            metric="psnr-3d_with_true_range_2500",
            reduction="of the mean over voxels",
            parameters={"peak": SPAN},
            departs=f"{_COUNTS}; an error of zero gives 100 dB. No part of the original: `psnr-3d` with the true peak.",
        ),
        psnr(mse, SPAN),
    )


_AXES = ("slices along depth", "slices along height", "slices along width")


def _whole(image: NDArray[Any]) -> NDArray[np.float64]:
    return counts(image).astype(np.float64)


def _dot(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(np.vdot(a, b))
