"""Bands of HU that stand for tissues. They tile the scale: each voxel is in exactly one."""

import math
from typing import NamedTuple


class Tissue(NamedTuple):
    """Voxels from `low` HU up to, not including, `high`."""

    name: str
    low: float
    high: float

    def limits(self) -> dict[str, float]:
        """For a definition: the limits that are finite, in HU."""
        limits = {"from HU": self.low, "below HU": self.high}
        return {name: limit for name, limit in limits.items() if math.isfinite(limit)}


TISSUES = (
    Tissue("air", -math.inf, -950.0),
    Tissue("lung", -950.0, -190.0),
    Tissue("fat", -190.0, -29.0),
    Tissue("soft", -29.0, 151.0),
    Tissue("bone", 151.0, math.inf),
)
"""Sources:

-950  below it lung is emphysema, which is air (Gevenois et al. 1995, Am J Respir Crit Care Med 152:653).
-190  to -30 adipose tissue, -29 to 150 muscle (Mitsiopoulos et al. 1998, J Appl Physiol 85:115): whole HU, ends
      included, so that the first voxel of soft tissue has -29 and the first above it 151.

What lies between the lung and fat of the literature is lung here: vessels, bronchi and poorly aerated parts, and the
skin's edge. Above 150 are, with bone, vessels full of contrast agent, calcifications and metal; below -29, with fat,
the edges between tissue and air. A band names voxels by their HU, not by anatomy.
"""
