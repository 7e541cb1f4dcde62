"""Histograms of HU, and how far one must be carried to become another."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason

LOW, HIGH = -1024, 3072
"""HU that the bins cover, the upper end left out: the 12 bits of a CT."""


def counts(hu: "NDArray[Any]", low: float = LOW, high: float = HIGH, width: float = 1.0) -> NDArray[np.int64]:
    """Voxels of a volume per bin; those of several volumes add up.

    Bin i holds `low + i * width` up to, not including, `low + (i + 1) * width`; what lies outside counts in the
    first or last bin. HU that are not whole fall into the bin below them.

    Raises:
        DataInvalid: NaN or infinity.
    """
    bins = round((high - low) / width)
    if width <= 0 or bins < 1 or not np.isclose(low + bins * width, high):
        raise ValueError(f"{low:g} to {high:g} HU does not divide into bins of {width:g}")
    found = np.zeros(bins, dtype=np.int64)
    for plane in np.atleast_2d(hu):  # one plane at a time: the indices of a whole scan would be four times its size
        if plane.dtype.kind == "f" and not np.isfinite(plane).all():
            raise DataInvalid("NaN or infinity among the HU", reason=Reason.NOT_FINITE)
        index = np.floor((plane.astype(np.float64) - low) / width).clip(0, bins - 1).astype(np.int64)
        found += np.bincount(index.ravel(), minlength=bins)
    return found


def wasserstein(real_counts: "NDArray[Any]", made_counts: "NDArray[Any]", width_hu: float = 1.0) -> float:
    """1-Wasserstein (earth mover's) distance in HU between two histograms over the same bins `(bins,)`.

    The area between the two cumulative distributions (Vallender 1974). Each histogram is taken as shares, so sets of
    unlike size compare.

    Raises:
        DataInvalid: bins differ, or a histogram holds nothing.
    """
    real, made = np.asarray(real_counts, dtype=np.float64), np.asarray(made_counts, dtype=np.float64)
    if real.ndim != 1 or real.shape != made.shape:
        raise DataInvalid(f"histograms over unlike bins: {real.shape} and {made.shape}", reason=Reason.MIXED)
    if not (real.sum() > 0 and made.sum() > 0):
        raise DataInvalid("a histogram without a voxel", reason=Reason.EMPTY)
    carried = np.cumsum(real) / real.sum() - np.cumsum(made) / made.sum()
    return float(np.abs(carried).sum() * width_hu)
