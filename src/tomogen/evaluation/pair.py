"""Pair: a scan and what was made to be like it, on one grid; and what a metric reads off it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tomogen.evaluation.definition import Definition

HU = NDArray[np.int16 | np.float32 | np.float64]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two scans `(depth, height, width)` in HU, voxel on voxel."""

    truth: HU
    made: HU
    mask: NDArray[np.bool_] | None = None
    """Voxels that count, of the same shape; None: all."""
    mask_name: str = "none"
    """What the mask is, for the definition."""
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """mm along (depth, height, width)."""
    case: str = ""
    patient: str = ""


class Reading(NamedTuple):
    """One number of one pair; `definition.n` is filled in when readings become a score."""

    definition: Definition
    value: float


class Metric(Protocol):
    """A module of `metrics` or `conventions`."""

    def measure(self, pair: Pair) -> Iterator[Reading]:
        """What the metric says of a pair. A number it cannot give (an empty band) is NaN."""
