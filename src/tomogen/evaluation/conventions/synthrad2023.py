"""As the SynthRAD2023 challenge scores a synthetic CT (github.com/SynthRAD2023/metrics).

`mae`: |difference| in HU summed inside the mask over the mask's voxels, nothing clipped. `psnr`: both clipped to
[-1024, 3000] HU, peak 4024, mean squared error over the mask. `ssim`: clipped, voxels outside the mask set to -1024 in
both, 1024 added, SSIM with 7^3 uniform windows and sample covariance, its map averaged over mask voxels at least 3
from the border; windows reach into the equalised outside. `*_no_mask`: the same functions given no mask.

The shipped `score_patient` hands the mask to `ssim` as an image and not as an array, which fails with present
packages; this is the evident intention. It casts to float32 first, which moves `ssim` by up to 5e-8 (not done here).
"""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.local import uniform
from tomogen.evaluation.pair import HU, Pair, Reading
from tomogen.evaluation.similarity import offset, slabs
from tomogen.evaluation.structure import floats, means

LOW, HIGH = -1024, 3000
PEAK = HIGH - LOW
Mask = NDArray[np.bool_] | None


def mae(truth: HU, made: HU, mask: Mask = None) -> float:
    """Mean absolute error in HU over the mask's voxels, or over all; NaN for an empty mask."""
    total, count = 0.0, 0
    for span, a, b in slabs(truth, made, floats):
        difference = np.abs(a - b) if mask is None else np.abs(a - b)[mask[span]]
        total += float(difference.sum())
        count += difference.size
    return total / count if count else math.nan


def psnr(truth: HU, made: HU, mask: Mask = None, use_population_range: bool = True) -> float:
    """PSNR in dB: infinite for an error of zero, minus infinity for a peak of zero; NaN for an empty mask.

    Without `use_population_range` nothing is clipped, and the peak is the whole truth's max - min.
    """
    change = offset(LOW, HIGH) if use_population_range else floats
    peak = PEAK if use_population_range else float(truth.max()) - float(truth.min())
    total, count = 0.0, 0
    for span, a, b in slabs(truth, made, change):
        difference = a - b if mask is None else (a - b)[mask[span]]
        total += float(np.vdot(difference, difference))
        count += difference.size
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(10 * np.log10(np.float64(peak) ** 2 / (np.float64(total) / count)))


def ssim(truth: HU, made: HU, mask: Mask = None) -> float:
    """Mean SSIM over the mask's voxels 3 from the border, or over all such; NaN where an axis has fewer than 7."""
    if mask is not None:
        truth, made = (np.where(mask, image, image.dtype.type(LOW)) for image in (truth, made))
    return means(truth, made, uniform(7), PEAK, change=offset(LOW, HIGH), sample=True, where=mask).ssim


def measure(pair: Pair) -> Iterator[Reading]:
    """`mae`, `psnr`, `ssim` where there is a mask; and the same without it."""
    if pair.mask is not None:
        yield from _scores(pair, pair.mask, pair.mask_name)
    yield from _scores(pair, None, "none")
    yield Reading(
        _define(
            metric="psnr_truth_range_no_clip",
            unit="dB",
            better="higher",
            mask=pair.mask_name if pair.mask is not None else "none",
            reduction="of the mean over voxels",
            parameters={"peak": "truth max - min"},
            departs="HU are not clipped, the peak is the whole truth's max - min"
            + (", and the mean is over the mask." if pair.mask is not None else "."),
        ),
        psnr(pair.truth, pair.made, pair.mask, use_population_range=False),
    )


_define = partial(Definition, convention="synthrad2023")


def _scores(pair: Pair, mask: Mask, mask_name: str) -> Iterator[Reading]:
    ending, over = ("_no_mask", "") if mask is None else ("", "the mean is over the mask alone")
    clipped = (float(LOW), float(HIGH))
    yield Reading(
        _define(
            metric=f"mae{ending}", unit="HU", better="lower", mask=mask_name, reduction="mean over voxels",
            departs=_sentence("HU are not clipped", over),
        ),
        mae(pair.truth, pair.made, mask),
    )  # fmt: skip
    yield Reading(
        _define(
            metric=f"psnr{ending}", unit="dB", better="higher", range=clipped, mask=mask_name,
            reduction="of the mean over voxels", parameters={"peak": PEAK}, departs=_sentence(over),
        ),
        psnr(pair.truth, pair.made, mask),
    )  # fmt: skip
    outside = "voxels outside it are -1024 HU in both, and windows reach into them" if mask is not None else ""
    yield Reading(
        _define(
            metric=f"ssim{ending}", better="higher", range=clipped, mask=mask_name, reduction="mean over windows",
            parameters={"window": "uniform", "taps": 7, "covariance": "sample", "peak": PEAK},
            departs=_sentence("takes 7^3 uniform windows and sample covariance", over, outside),
        ),
        ssim(pair.truth, pair.made, mask),
    )  # fmt: skip


def _sentence(*parts: str) -> str:
    text = "; ".join(part for part in parts if part)
    return text[:1].upper() + text[1:] + "." if text else ""
