"""As cyclomon/3dbraingen scores MS-SSIM (`pytorch_ssim`, its 3D branch), after Kwon, Han, Kim (MICCAI 2019).

Images lie in [-1, 1] (here HU clipped to [-1024, 3000]), yet C1 = .01^2 and C2 = .03^2 as for a range of 1. Windows: 13
taps of a Gaussian of sigma 1.5 (cut at 4 sigma), edges reflected with the edge voxel repeated, population covariance,
the whole map averaged; at small scales the window is larger than the image. Scales by means of 2^3 voxels, an odd
last plane dropped; float32 weights. The result is the product of cs_j^w_j ssim_5^w_5 for j = 1..4, which counts the
last scale four times: ssim_5 has the exponent 4 * .1333.

The shipped last step mixes an array with a tensor, which fails with torch 2.13; here the same maps are combined in
float64. Its filter runs along channels and batch too, harmless for one of each. An axis shorter than 16 has no fifth
scale (the original raises), and a negative mean no power: NaN.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from numpy.typing import NDArray

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.local import Floats, gaussian
from tomogen.evaluation.pair import HU, Pair, Reading
from tomogen.evaluation.similarity import WANG_WEIGHTS, Change, product, pyramid, single, unit
from tomogen.evaluation.structure import floats, means

WEIGHTS = single(WANG_WEIGHTS)
TAPS = 13
SHORTEST = 16
"""Voxels of an axis that is halved four times."""

define = partial(
    Definition,
    convention="braingen3d",
    better="higher",
    range=(-1024.0, 3000.0),
    parameters={"window": "Gaussian, sigma 1.5", "taps": TAPS, "covariance": "population", "peak": 1, "scales": 5},
)
_DEPARTS = (
    "Values span 2 and the constants are for a range of 1; Gaussian windows have 13 taps, reach over reflected edges "
    "and count there"
)


class Scales(NamedTuple):
    """What is read at each scale, the finest first, and two ways to combine it."""

    ssim: list[float]
    contrast: list[float]
    """Contrast and structure together."""

    @property
    def shipped(self) -> float:
        """The last scale's SSIM in each of four factors."""
        return product([*self.contrast[:-1], self.ssim[-1]], [*WEIGHTS[:-1], 4 * WEIGHTS[-1]])

    @property
    def wang(self) -> float:
        """The last scale's SSIM once, as Wang, Simoncelli, Bovik 2003 define it."""
        return product([*self.contrast[:-1], self.ssim[-1]], WEIGHTS)


def signed_unit(hu: NDArray[Any]) -> Floats:
    """HU clipped to [-1024, 3000] and mapped to [-1, 1]."""
    return 2 * unit(-1024, 3000)(hu) - 1


def msssim_3d(truth: HU, made: HU, change: Change = floats) -> Scales:
    """Five scales of what `change` makes of the values, which should lie in [-1, 1]."""
    if min(truth.shape) < SHORTEST:
        return Scales([math.nan] * len(WEIGHTS), [math.nan] * len(WEIGHTS))
    found = []
    for x, y, still in pyramid(truth, made, len(WEIGHTS), change):
        found.append(means(x, y, gaussian(1.5, TAPS), 1.0, change=still, edges="reflect"))
    return Scales([one.ssim for one in found], [one.contrast for one in found])


def measure(pair: Pair) -> Iterator[Reading]:
    """Its score, the definition's combination of the same scales, and the scales; masks are not looked at."""
    scales = msssim_3d(pair.truth, pair.made, signed_unit)
    combined = "product over scales of means over all voxels"
    yield Reading(
        define(
            metric="msssim_3d",
            reduction=combined,
            departs=f"{_DEPARTS}; the last scale's exponent is four times its weight.",
        ),
        scales.shipped,
    )
    yield Reading(
        define(
            metric="wang_combination_of_same_scales",
            reduction=combined,
            departs=f"{_DEPARTS}. No part of the original: its scales combined as the definition says.",
        ),
        scales.wang,
    )
    for name, values in (("ssim_by_scale", scales.ssim), ("cs_by_scale", scales.contrast)):
        for number, value in enumerate(values, start=1):
            yield Reading(
                define(metric=f"{name}/{number}", reduction="mean over all voxels", departs=f"{_DEPARTS}."), value
            )
