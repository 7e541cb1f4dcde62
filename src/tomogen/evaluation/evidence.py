"""Evidence: the few scans and curves that a report shows beside the scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tomogen.volume import Volume

SHOWN = 4
"""Cases, or scans of each set, that a report shows at most."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One case, for montages and difference maps: what is true, what was made, and what it was made from."""

    case: str
    truth: Volume
    made: Volume
    source: Volume | None = None


@dataclass(frozen=True, eq=False)
class Evidence:
    """What there is to look at; everything may be missing."""

    pairs: Sequence[Shown] = ()
    real: Sequence[Volume] = ()
    made: Sequence[Volume] = ()
    edges: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """HU at the edges of the histograms' bins, one more than bins."""
    histograms: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Voxels in each bin, by what was counted: `real`, `made`, `truth`."""
    profiles: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Inter-slice coherence by what was measured: a value for each distance of 1, 2, ... slices."""
