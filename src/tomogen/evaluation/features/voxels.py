"""Voxels themselves as features, as 3dbraingen's notebook compares volumes: one row a volume.

Under a linear kernel they see mean volumes alone, and only volumes on one grid can be compared.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason
from tomogen.intensity import Window

WINDOW = Window(-1024, 3000)
"""HU that become -1..1."""


def rows(volumes: "Sequence[NDArray[Any]]", window: Window = WINDOW) -> NDArray[np.float64]:
    """Rows `(n, voxels)` of volumes of one shape in HU.

    Raises:
        DataInvalid: no volume, or unlike shapes.
    """
    shapes = {np.shape(volume) for volume in volumes}
    if len(shapes) != 1:
        raise DataInvalid(f"voxels compare on one grid only, not {sorted(shapes)}", reason=Reason.MIXED)
    return np.stack([window.to_unit(np.asarray(volume, dtype=np.float64)).ravel() for volume in volumes])
