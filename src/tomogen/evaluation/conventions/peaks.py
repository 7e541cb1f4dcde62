"""PSNR under the clips and peaks found in papers: one error, a dozen numbers.

PSNR = 20 log10(peak) - 10 log10(MSE) in dB, the MSE in HU^2 over all voxels, or over the mask where the name says so.
Names tell the clip and the peak: `clip2500_peak4095` is X2CT's mix, `unclipped_peak_truth_max` what follows from the
habit of 8-bit pictures. Windows: soft tissue [-160, 240] HU, lung [-1350, 150] HU.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.pair import HU, Pair, Reading
from tomogen.evaluation.similarity import Change, offset, slabs
from tomogen.evaluation.structure import floats


class Way(NamedTuple):
    """One definition of PSNR."""

    clip: tuple[float, float] | None
    peak: float | str
    """HU, or what is taken from the truth: `truth max`, `truth max - min`."""
    masked: bool
    departs: str


WAYS = {
    "unclipped_peak4095": Way(None, 4095, False, "HU are not clipped, and the peak is 4095 HU instead of 4024."),
    "unclipped_peak4024": Way(None, 4024, False, "HU are not clipped, so errors outside [-1024, 3000] HU count."),
    "unclipped_peak_truth_max_minus_min": Way(
        None, "truth max - min", False,
        "HU are not clipped, and the peak is the truth's max - min: the same error scores otherwise in another scan.",
    ),
    "unclipped_peak_truth_max": Way(
        None, "truth max", False,
        "HU are not clipped, and the peak is the truth's largest HU, which moves with the zero of the HU scale.",
    ),
    "clip4024_peak4024": Way((-1024, 3000), 4024, False, ""),
    "clip4024_peak4024_in_mask": Way((-1024, 3000), 4024, True, "The mean is over the voxels of the mask alone."),
    "clip2500_peak2500": Way((-1024, 1476), 2500, False, "Clips to [-1024, 1476] HU, and the peak is 2500 HU."),
    "clip2500_peak4095": Way(
        (-1024, 1476), 4095, False,
        "Clips to [-1024, 1476] HU but takes 4095 as the peak: 4.286 dB above the peak of its own range.",
    ),
    "clip2000_peak2000": Way((-1000, 1000), 2000, False, "Clips to [-1000, 1000] HU, and the peak is 2000 HU."),
    "window_soft_400_peak400": Way(
        (-160, 240), 400, False, "Clips to the soft tissue window [-160, 240] HU, and the peak is 400 HU."
    ),
    "window_lung_1500_peak1500": Way(
        (-1350, 150), 1500, False, "Clips to the lung window [-1350, 150] HU, and the peak is 1500 HU."
    ),
}  # fmt: skip


def psnr(mse: float, peak: float) -> float:
    """dB: infinite for an error of zero, minus infinity for a peak of zero, NaN for one below."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(20 * np.log10(peak) - 10 * np.log10(mse))


def mean_squared_error(truth: HU, made: HU, change: Change = floats, mask: NDArray[np.bool_] | None = None) -> float:
    """HU^2 over all voxels, or over those of the mask; NaN where the mask is empty."""
    total, count = 0.0, 0
    for span, a, b in slabs(truth, made, change):
        difference = a - b
        if mask is not None:
            difference = difference[mask[span]]
        total += float(np.vdot(difference, difference))
        count += difference.size
    return total / count if count else math.nan


def measure(pair: Pair) -> Iterator[Reading]:
    """PSNR in all these ways; the one in the mask only where there is a mask."""
    low, high = float(pair.truth.min()), float(pair.truth.max())
    taken = {"truth max": high, "truth max - min": high - low}
    errors: dict[tuple[object, bool], float] = {}
    for name, way in WAYS.items():
        if way.masked and pair.mask is None:
            continue
        key = (way.clip, way.masked)
        if key not in errors:
            change = offset(*way.clip) if way.clip else floats
            errors[key] = mean_squared_error(pair.truth, pair.made, change, pair.mask if way.masked else None)
        peak = taken[way.peak] if isinstance(way.peak, str) else way.peak
        yield Reading(
            Definition(
                metric=name,
                convention="peaks",
                unit="dB",
                better="higher",
                range=way.clip,
                mask=pair.mask_name if way.masked else "none",
                reduction="of the mean over voxels",
                parameters={"peak": way.peak},
                departs=way.departs,
            ),
            psnr(errors[key], peak),
        )
