"""The rays of one view through a voxel grid, as where they cross its slices.

Along the grid axis that the central ray follows most, each ray crosses slice after slice. In voxel indices the
crossing moves evenly: at slice n it is `mid + (n - middle) * step`. A line integral is then the sum of the slices'
values there, bilinear in the slice, times the ray's length in mm from slice to slice (Joseph, IEEE Transactions on
Medical Imaging 1, 192 (1982)).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason
from tomogen.radiography.geometry import Geometry, View
from tomogen.volume import Affine

Array = NDArray[np.float64]

STEEPEST = 0.25
"""Least cosine between a ray and the axis it is summed along: 75 degrees. Rays that cross fewer slices are refused."""

_EVEN = 1e-6
"""Voxels by which crossings may differ and still count as one row or column."""


@dataclass(frozen=True)
class Rays:
    """Crossings of `(rows, columns)` rays with the slices along grid axis `axis`; u, v are the other axes in order."""

    axis: int
    slices: int
    mid: Array
    """`(rows, columns, 2)`: index (u, v) at the middle of the slices, (slices - 1) / 2."""
    step: Array
    """`(rows, columns, 2)`: how far the index moves from one slice to the next."""
    length: Array
    """`(rows, columns)`: mm of ray per slice."""
    first: Array
    """`(rows, columns)`: the ray begins (source, or before the grid) at this fractional slice..."""
    last: Array
    """...and ends here (detector, or behind the grid); first < last."""

    @property
    def cut(self) -> bool:
        """Whether some slices lie behind the source or the detector of some rays."""
        return bool((self.first > 0).any() or (self.last < self.slices - 1).any())

    @property
    def across(self) -> tuple[int, int] | None:
        """For views along the grid: which of (u, v) runs down the rows, and which along the columns."""
        for down in (0, 1):
            right = 1 - down
            parts = [(part[..., down], part[..., right]) for part in (self.mid, self.step * max(1, self.slices))]
            if (
                all(
                    np.ptp(by_row, axis=1).max() < _EVEN and np.ptp(by_column, axis=0).max() < _EVEN
                    for by_row, by_column in parts
                )
                and max(np.ptp(self.first), np.ptp(self.last)) < _EVEN
            ):
                return down, right
        return None


def rays_of(view: View, geometry: Geometry, shape: tuple[int, int, int], affine: Affine) -> Rays:
    """The rays of a view through a grid of `shape` voxels with an affine to LPS mm.

    Raises:
        DataInvalid: the source lies within the grid, or the beam is too wide or too slanted for it.
    """
    into = np.linalg.inv(affine[:3, :3])
    centre = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    isocentre = centre if geometry.isocentre is None else np.array(geometry.isocentre)
    pixels = (geometry.pixels(view) + (isocentre - affine[:3, 3])) @ into.T
    source = into @ (np.array(view.source) + isocentre - affine[:3, 3])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if geometry.beam == "cone":
        direction = pixels - source
        if (np.abs(source - (np.array(shape) - 1) / 2) <= np.array(shape) / 2).all():
            raise _unfit(view, "its source lies within the scan")
    else:
        middle = into @ (np.array(view.detector) + isocentre - affine[:3, 3])
        direction = np.broadcast_to(middle - source, pixels.shape)
    central = np.abs(direction.mean(axis=(0, 1))) * spacing
    axis = int(np.argmax(np.round(central / central.max(), 9)))
    u, v = (other for other in range(3) if other != axis)
    along = direction[..., axis]
    mm = np.linalg.norm(direction @ affine[:3, :3].T, axis=-1)
    if (np.sign(along) != np.sign(along.flat[0])).any() or (np.abs(along) * spacing[axis] < STEEPEST * mm).any():
        raise _unfit(view, "some of its rays are nearly parallel to the slices that they are summed over")
    step = direction[..., [u, v]] / along[..., None]
    slices = shape[axis]
    ahead = (slices - 1) / 2 - pixels[..., axis]
    begin, end = np.full(along.shape, -1.0), np.full(along.shape, float(slices))
    if geometry.beam == "cone":
        begin, end = np.full(along.shape, source[axis]), pixels[..., axis]
    return Rays(
        axis=axis,
        slices=slices,
        mid=pixels[..., [u, v]] + ahead[..., None] * step,
        step=step,
        length=mm / np.abs(along),
        first=np.minimum(begin, end),
        last=np.maximum(begin, end),
    )


def _unfit(view: View, what: str) -> DataInvalid:
    return DataInvalid(
        f"view {view.name!r} does not fit the scan: {what}",
        reason=Reason.BAD_GEOMETRY,
        fix="a source further away, or a smaller detector",
    )
