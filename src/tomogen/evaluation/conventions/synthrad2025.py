"""As the SynthRAD2025 challenge scores a synthetic CT (github.com/SynthRAD2025/metrics).

Voxels outside the mask are -1024 HU in both first. `mae` and `psnr` are those of 2023. `ms_ssim`, at each of five
scales, takes maps l, c, s under 7^3 uniform windows (sample covariance 343/342, C1 = (.01 * 4024)^2,
C2 = (.03 * 4024)^2, C3 = C2 / 2), each clipped at 0, and averages l^w c^w s^w over the mask's voxels off a border of 3;
the product over scales is the score. An axis shorter than 97 is padded to 97 by its edge voxels. Between scales: a box
of 2^3 that averages voxels i - 1 and i, with zero before the first, and every second voxel of it and of the mask.

It departs from Wang, Simoncelli, Bovik 2003: luminance at every scale, not only at the coarsest (the weights are
overwritten before the test that would choose); powers of each voxel, not of the mean; uniform windows and sample
covariance; contrast and structure clipped apart. Without a mask the shipped method fails.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.local import Floats, Place, Smooth, tiled, uniform
from tomogen.evaluation.pair import HU, Pair, Reading
from tomogen.evaluation.similarity import WANG_WEIGHTS, Change, offset, slabs
from tomogen.evaluation.structure import floats

LOW, HIGH = -1024, 3000
PEAK = HIGH - LOW
TAPS, BORDER = 7, 3
SHORTEST = 97
"""Voxels of an axis after padding: the fifth scale has 7, one window."""

Mask = NDArray[np.bool_]
Luminance = Literal["every scale", "coarsest scale", "none"]


class Scales(NamedTuple):
    """MS-SSIM of one pair."""

    masked: float
    """Over the mask's voxels off the border: the challenge's `ms_ssim`."""
    whole: float
    """Over all voxels off the border, of the same equalised images."""


def mae(truth: HU, made: HU, mask: Mask | None = None) -> float:
    """Mean absolute error in HU over the mask's voxels, or over all; NaN for an empty mask."""
    total, count = 0.0, 0
    for span, a, b in slabs(truth, made, floats):
        difference = np.abs(a - b) if mask is None else np.abs(a - b)[mask[span]]
        total += float(difference.sum())
        count += difference.size
    return total / count if count else math.nan


def psnr(truth: HU, made: HU, mask: Mask | None = None, use_population_range: bool = True) -> float:
    """PSNR in dB: infinite for an error of zero, minus infinity for a peak of zero; NaN for an empty mask.

    Both are clipped to [-1024, 3000] HU, peak 4024; or else what was made is clipped to the truth's extremes, and the
    peak is their distance.
    """
    low, high = (LOW, HIGH) if use_population_range else (float(truth.min()), float(truth.max()))
    total, count = 0.0, 0
    for span, a, b in slabs(truth, made, offset(low, high)):
        difference = a - b if mask is None else (a - b)[mask[span]]
        total += float(np.vdot(difference, difference))
        count += difference.size
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(10 * np.log10(np.float64(high - low) ** 2 / (np.float64(total) / count)))


def ms_ssim(truth: HU, made: HU, mask: Mask | None = None, luminance: Luminance = "every scale") -> Scales:
    """MS-SSIM in [0, 1]; without a mask nothing is equalised, and both numbers are the same.

    The challenge's luminance stands at every scale. NaN where a scale has no voxel of the mask off the border.
    """
    if mask is not None:
        truth, made = (np.where(mask, image, image.dtype.type(LOW)) for image in (truth, made))
        mask = _padded(mask)
    x, y, change = _padded(truth), _padded(made), offset(LOW, HIGH)
    masked = whole = 1.0
    for scale, weight in enumerate(WANG_WEIGHTS):
        if scale:
            x, y, change = _coarser(x, change), _coarser(y, change), floats
            mask = None if mask is None else mask[::2, ::2, ::2]
        shines = luminance == "every scale" or (luminance == "coarsest scale" and scale == len(WANG_WEIGHTS) - 1)
        inside, everywhere = _scale(x, y, change, mask, weight, shines)
        masked *= float(np.clip(inside, 0, 1))
        whole *= float(np.clip(everywhere, 0, 1))
    return Scales(masked, whole)


def _scale(
    x: NDArray[Any], y: NDArray[Any], change: Change, mask: Mask | None, weight: float, shines: bool
) -> tuple[float, float]:
    """Mean of (l^w) c^w s^w over voxels off the border: those of the mask, and all."""
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    sample = TAPS**3 / (TAPS**3 - 1)
    centres = None if mask is None else mask[(slice(BORDER, -BORDER),) * 3]

    def work(place: Place, tiles: list[NDArray[Any]], under: Smooth) -> tuple[float, float, int, int]:
        a, b = (change(tile) for tile in tiles)
        mean_a, mean_b, aa, bb, ab = under(np.stack([a, b, a * a, b * b, a * b]))
        var_a, var_b = (np.maximum(sample * square, 0) for square in (aa - mean_a**2, bb - mean_b**2))
        deviations, cov = np.sqrt(var_a * var_b), sample * (ab - mean_a * mean_b)
        terms: Floats = np.maximum((2 * deviations + c2) / (var_a + var_b + c2), 0)
        terms *= np.maximum((cov + c2 / 2) / (deviations + c2 / 2), 0)
        if shines:
            terms *= np.maximum((2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1), 0)
        terms **= weight
        counted = terms if centres is None else terms[centres[place]]
        return float(counted.sum()), float(terms.sum()), counted.size, terms.size

    inside, everywhere, few, many = np.sum(tiled([x, y], uniform(TAPS), "inside", work), axis=0)
    return (float(inside / few) if few else math.nan), float(everywhere / many)


def _padded(image: NDArray[Any]) -> NDArray[Any]:
    """Axes shorter than 97 carried on to 97 by their edge voxels, the smaller half before."""
    missing = [max(0, SHORTEST - size) for size in image.shape]
    return np.pad(image, [(n // 2, n - n // 2) for n in missing], mode="edge") if any(missing) else image


def _coarser(image: NDArray[Any], change: Change) -> Floats:
    """Every second voxel of the mean of each voxel and the one before it along every axis, zero before the first."""
    planes = []
    for k in range(0, len(image), 2):
        plane = change(image[k]) + change(image[k - 1]) if k else change(image[k])
        planes.append(_looking_back(_looking_back(plane).T).T / 8)
    return np.stack(planes)


def _looking_back(plane: Floats) -> Floats:
    """Every second row with the one before it added; the first has none."""
    rows = plane[::2].copy()
    rows[1:] += plane[1:-1:2]
    return rows


def measure(pair: Pair) -> Iterator[Reading]:
    """`mae`, `psnr`, `ms_ssim` where there is a mask; then errors and MS-SSIM over all voxels."""
    if pair.mask is not None:
        yield from _errors(pair, pair.mask, pair.mask_name)
    yield from _errors(pair, None, "none")
    yield from _structure(pair)
    yield Reading(
        _define(
            metric="psnr_truth_range_pred_clipped",
            unit="dB",
            better="higher",
            mask=pair.mask_name if pair.mask is not None else "none",
            reduction="of the mean over voxels",
            parameters={"peak": "truth max - min"},
            departs="What was made is clipped to the whole truth's extremes, and the peak is their distance"
            + ("; the mean is over the mask." if pair.mask is not None else "."),
        ),
        psnr(pair.truth, pair.made, pair.mask, use_population_range=False),
    )


_define = partial(Definition, convention="synthrad2025")


def _errors(pair: Pair, mask: Mask | None, mask_name: str) -> Iterator[Reading]:
    ending, over = ("_no_mask", "") if mask is None else ("", "the mean is over the mask alone.")
    yield Reading(
        _define(
            metric=f"mae{ending}", unit="HU", better="lower", mask=mask_name, reduction="mean over voxels",
            departs=f"HU are not clipped; {over}" if over else "HU are not clipped.",
        ),
        mae(pair.truth, pair.made, mask),
    )  # fmt: skip
    yield Reading(
        _define(
            metric=f"psnr{ending}", unit="dB", better="higher", range=(float(LOW), float(HIGH)), mask=mask_name,
            reduction="of the mean over voxels", parameters={"peak": PEAK}, departs=over.capitalize(),
        ),
        psnr(pair.truth, pair.made, mask),
    )  # fmt: skip


def _structure(pair: Pair) -> Iterator[Reading]:
    departs = (
        "Luminance at every scale and not only at the coarsest; powers of each voxel before the mean; 7^3 uniform "
        "windows, sample covariance; contrast and structure clipped apart; axes padded to 97; halving by a box of 2^3 "
        "with zero before the first voxel"
    )
    masked = pair.mask is not None
    equalised = "; outside the mask -1024 HU in both" if masked else ""
    scores = ms_ssim(pair.truth, pair.made, pair.mask)
    define = partial(
        _define, better="higher", range=(float(LOW), float(HIGH)), mask=pair.mask_name if masked else "none",
        parameters={"window": "uniform", "taps": TAPS, "covariance": "sample", "peak": PEAK, "scales": 5},
    )  # fmt: skip
    if masked:
        yield Reading(
            define(
                metric="ms_ssim",
                reduction="product over scales of means over the mask",
                departs=f"{departs}{equalised}; the mean is over the mask.",
            ),
            scores.masked,
        )
    yield Reading(
        define(
            metric="ms_ssim_unmasked_by_product",
            reduction="product over scales of means over all windows",
            departs=f"{departs}{equalised}; the mean is over all windows, as no mask enters it.",
        ),
        scores.whole,
    )
