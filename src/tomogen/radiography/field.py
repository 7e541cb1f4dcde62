"""How much of a patient a beam misses."""

import numpy as np
from numpy.typing import NDArray

from tomogen.radiography.geometry import Geometry, View
from tomogen.volume import Volume

BODY = -400
"""HU above which a voxel is tissue, and not lung or air."""
FINE = 4.0
"""mm between the voxels that are looked at."""


def missed(volume: Volume, geometry: Geometry, view: View, *, least: float = BODY) -> float:
    """The part of the scan's tissue, 0 to 1, that lies beside the beam, behind the detector or behind the source."""
    tissue = _tissue(volume, least)
    if not len(tissue):
        return 0.0
    isocentre = volume.centre if geometry.isocentre is None else np.array(geometry.isocentre)
    _, inside = geometry.landing(view, tissue - isocentre)
    return float(1 - inside.mean())


def _tissue(volume: Volume, least: float) -> NDArray[np.float64]:
    """LPS positions `(n, 3)` of tissue, one for about every `FINE` mm."""
    steps = [max(1, round(FINE / mm)) for mm in volume.spacing]
    some = tuple(slice((n - 1) % step // 2, None, step) for n, step in zip(volume.shape, steps, strict=True))
    found = np.argwhere(volume.hu[some] > least) * steps + [part.start for part in some]
    return volume.world(found)
