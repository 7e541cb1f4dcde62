"""2.5D: a scan as its axial, coronal and sagittal slices, at most so many of each, evenly spaced."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tomogen.volume import Volume

PLANES = ("axial", "coronal", "sagittal")
"""The planes across depth, height and width of a volume whose axes run S, P, L."""
MOST = 16
"""Slices of one scan in one plane, at most."""


def places(size: int, most: int = MOST) -> list[int]:
    """Indices of the slices that are taken of `size`: all, or the middles of `most` equal parts."""
    if size <= most:
        return list(range(size))
    return [(2 * part + 1) * size // (2 * most) for part in range(most)]


def cut(volume: Volume, most: int = MOST, planes: Sequence[str] = PLANES) -> dict[str, NDArray[np.float32]]:
    """Slices in HU by plane: axial `(n, height, width)`, coronal `(n, depth, width)`, sagittal `(n, depth, height)`.

    The scan is turned to S, P, L before, which changes no voxel. Pixels stay as they are, square or not; slices
    without a body count like all others.
    """
    hu = volume.reorient().hu
    found = {}
    for plane in planes:
        axis = PLANES.index(plane)
        slices = np.moveaxis(hu, axis, 0)[places(hu.shape[axis], most)]
        found[plane] = np.ascontiguousarray(slices, dtype=np.float32)
    return found


def pixel(spacing: Sequence[float], plane: str) -> tuple[float, float]:
    """Pixels of a plane in mm (rows, columns), of a volume with this spacing along (depth, height, width)."""
    rows, columns = (spacing[axis] for axis in range(3) if axis != PLANES.index(plane))
    return rows, columns
