"""Two sets of feature rows, looked over before a distance is taken."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason

Rows = NDArray[np.float64]
"""Feature rows `(n, d)`: one row an image."""


def checked(real: "NDArray[Any]", made: "NDArray[Any]", least: int) -> tuple[Rows, Rows]:
    """Both sets `(n, d)` and `(m, d)` in float64.

    Raises:
        DataInvalid: no matrices of equal width, fewer than `least` rows in one, NaN or infinity.
    """
    found = (np.asarray(real, dtype=np.float64), np.asarray(made, dtype=np.float64))
    if found[0].ndim != 2 or found[1].ndim != 2 or found[0].shape[1] != found[1].shape[1] or found[0].shape[1] == 0:
        shapes = " and ".join(str(rows.shape) for rows in found)
        raise DataInvalid(
            f"feature rows (n, d) and (m, d) of one width are compared, not {shapes}", reason=Reason.MIXED
        )
    for rows, name in zip(found, ("real", "made"), strict=True):
        if len(rows) < least:
            raise DataInvalid(
                f"{len(rows)} rows in the {name} set; this distance takes {least} or more",
                reason=Reason.TOO_SMALL,
                fix="more scans, or cuts through them",
            )
        if not np.isfinite(rows).all():
            raise DataInvalid(f"NaN or infinity among the {name} features", reason=Reason.NOT_FINITE)
    return found
