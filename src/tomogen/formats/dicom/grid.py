"""A Volume as DICOM wants it: a stack of slices that ascends along its normal, in stored integers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason
from tomogen.formats import SKEW
from tomogen.volume import Affine, Volume

_LIMITS = np.iinfo(np.int16)


@dataclass(frozen=True)
class Stack:
    """Stored values `(slice, row, column)`, int16, with `HU = slope * stored + intercept`, and their place."""

    stored: NDArray[np.int16]
    slope: float
    intercept: float
    affine: Affine
    """Index (slice, row, column) to LPS mm."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm of slices (along the stack), rows and columns."""
        d, h, w = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(d), float(h), float(w)

    @property
    def orientation(self) -> list[float]:
        """ImageOrientationPatient: direction of growing column, then of growing row."""
        _, down, across = (self.affine[:3, :3] / np.array(self.spacing)).T
        return [*across.tolist(), *down.tolist()]

    def position(self, k: int) -> list[float]:
        """ImagePositionPatient of slice k."""
        found: list[float] = (self.affine[:3, 3] + k * self.affine[:3, 0]).tolist()
        return found


def stack_of(volume: Volume, path: Path) -> Stack:
    """The volume as a stack; no voxel is interpolated and none changes its place.

    Slices are taken in the order that makes (row, column, slice) right-handed; a grid whose rows and columns are
    not at right angles is cut along another axis.

    Raises:
        DataInvalid: no two axes are at right angles; NaN or infinity.
    """
    order = _order(volume, path)
    hu = volume.hu.transpose(order)
    affine = volume.affine[:, [*order, 3]]
    slices, down, across = affine[:3, :3].T
    if np.cross(across, down) @ slices < 0:
        hu = hu[::-1]
        affine = affine.copy()
        affine[:3, 3] += (len(hu) - 1) * slices
        affine[:3, 0] = -slices
    if hu.dtype == np.int16:
        return Stack(hu, 1.0, 0.0, affine)  # type: ignore[arg-type]
    return _rounded(hu, affine, path)


def _order(volume: Volume, path: Path) -> list[int]:
    axes = volume.directions
    for order in ([0, 1, 2], [1, 0, 2], [2, 0, 1]):
        if abs(axes[:, order[1]] @ axes[:, order[2]]) <= SKEW:
            return order
    raise DataInvalid("no two axes are at right angles: no DICOM slice", reason=Reason.BAD_GEOMETRY, at=path)


def _rounded(hu: NDArray[np.int16 | np.float32], affine: Affine, path: Path) -> Stack:
    """Whole HU where they fit 16 bits, otherwise the finest step that does."""
    low, high = float(hu.min()), float(hu.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataInvalid("NaN or infinity cannot be written as DICOM", reason=Reason.NOT_FINITE, at=path)
    slope, intercept = 1.0, 0.0
    if round(low) < _LIMITS.min or round(high) > _LIMITS.max:
        # One part in a thousand to spare, so that the 16 characters of a decimal string cannot cut the ends off.
        slope = float(f"{(high - low) / (_LIMITS.max - _LIMITS.min) * 1.001:.8g}")
        intercept = float(f"{(high + low) / 2:.8g}")
    stored = np.empty(hu.shape, dtype=np.int16)
    for k, plane in enumerate(hu):
        stored[k] = np.rint((plane - intercept) / slope)
    return Stack(stored, slope, intercept, affine)
