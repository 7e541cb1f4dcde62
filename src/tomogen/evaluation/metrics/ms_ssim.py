"""Multi-scale structural similarity in three dimensions (Wang, Simoncelli, Bovik 2003, equation 7).

    MS-SSIM = ssim_M^w_M  prod_(j < M) cs_j^w_j,  w = .0448 .2856 .3001 .2363 .1333, the finest scale first

The terms are means over windows, as in SSIM: of contrast and structure at the finer scales, of SSIM at the coarsest,
the only place where luminance enters. Power after mean; a mean below zero counts as zero. From scale to scale
both scans are halved by means of 2 x 2 x 2 voxels, an odd last plane dropped; so is the mask, whose means then weigh
the windows by their centres.

Windows have 11 taps, so five scales need 176 voxels along every axis. Thinner scans have as many scales as fit, the
weights of those divided by their sum: 11 slices have one (which is SSIM), 22 two, 44 three. The number of scales
is part of the definition, since scores of unlike numbers do not compare. Fewer than 11 slices: NaN, no scale.
"""

import math
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.local import gaussian
from tomogen.evaluation.pair import HU, Pair, Reading
from tomogen.evaluation.similarity import WANG_WEIGHTS, Change, first_weights, halved
from tomogen.evaluation.standard import PEAK, RANGE, above_low, check
from tomogen.evaluation.structure import K1, K2, floats, means

SIGMA, TAPS = 1.5, 11


def measure(pair: Pair) -> Iterator[Reading]:
    """`ms_ssim` in float64, with as many scales as fit; NaN where none does, or a scale has no window in the mask.

    Raises:
        DataInvalid: as `standard.check`.
    """
    check(pair)
    scales = fitting(pair.truth.shape)
    yield Reading(
        Definition(
            metric="ms_ssim",
            better="higher",
            range=RANGE,
            mask=pair.mask_name,
            reduction="product over scales of means over windows wholly inside",
            parameters={
                "scales": scales, "window": "Gaussian", "sigma": SIGMA, "taps": TAPS, "K1": K1, "K2": K2, "peak": PEAK,
            },
        ),
        _value(pair.truth, pair.made, pair.mask, scales) if scales else math.nan,
    )  # fmt: skip


def fitting(shape: tuple[int, ...]) -> int:
    """Scales, five at most, at which the shortest axis still holds a window."""
    return sum(min(shape) // 2**scale >= TAPS for scale in range(len(WANG_WEIGHTS)))


def _value(truth: HU, made: HU, where: NDArray[Any] | None, scales: int) -> float:
    x: NDArray[Any] = truth
    y: NDArray[Any] = made
    change: Change = above_low
    value = 1.0
    for scale, weight in enumerate(first_weights(scales), start=1):
        found = means(x, y, gaussian(SIGMA, TAPS), PEAK, change=change, where=where)
        term = found.ssim if scale == scales else found.contrast
        value *= max(term, 0.0) ** weight if not math.isnan(term) else math.nan
        if scale < scales:
            x, y, change = halved(x, change), halved(y, change), floats
            where = None if where is None else halved(where)
    return float(value)
