"""Whether two scans lie voxel on voxel, and bringing one onto the grid of the other."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.cases.resample import Line, bands, resample
from tomogen.errors import DataInvalid, Reason
from tomogen.volume import Volume

NEAR = 0.05
"""Voxels by which corners may lie apart: what headers round away, and no more."""

PARALLEL = 1e-3
"""Sine of the angle from which axes are no longer the same: half a millimetre across a chest."""


Box = tuple[slice, slice, slice]
"""Voxels `(depth, height, width)` that one scan has of the grid of another."""


class Placed(NamedTuple):
    """A scan on the grid of another."""

    scan: Volume
    """Where it does not reach, -1024 HU."""
    covered: Box
    """Voxels that it does reach: only these can be scored."""
    moved: str = ""
    """How it came there; nothing where it lay there already."""


def difference(truth: Volume, made: Volume) -> str:
    """What keeps two scans from lying voxel on voxel, both shown; nothing if they do."""
    degrees = angle(truth, made)
    tilted = f"axes at an angle of {degrees:.1f} degrees" if degrees else ""
    if truth.shape != made.shape:
        return _joined(f"{_spelled(truth.shape)} voxels against {_spelled(made.shape)}", tilted)
    if not np.allclose(truth.spacing, made.spacing, rtol=1e-3):
        return _joined(f"voxels of {_mm(truth.spacing)} mm against {_mm(made.spacing)} mm", tilted)
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in truth.shape])).reshape(3, -1).T
    apart = np.abs(truth.index(made.world(corners)) - corners).max()
    if apart <= NEAR:
        return ""
    if tilted:
        return tilted
    far = float(np.linalg.norm(made.world(corners) - truth.world(corners), axis=-1).max())
    return (
        f"they lie {far:.1f} mm apart: first voxels at ({_mm(truth.origin)}) and ({_mm(made.origin)}) mm LPS, "
        f"axes {truth.orientation} and {made.orientation}"
    )


def angle(truth: Volume, made: Volume) -> float:
    """Degrees between the axes of two scans, the largest of three; 0 where they are parallel."""
    sine = float(np.linalg.norm(np.cross(truth.directions.T, made.directions.T), axis=-1).max())
    return float(np.degrees(np.arcsin(min(1.0, sine)))) if sine > PARALLEL else 0.0


def on_grid(truth: Volume, made: Volume, *, resampled: bool, at: str | Path | None = None) -> Placed:
    """`made` on the voxels of `truth`.

    Axes that run the other way or in another order are turned, which changes no voxel.

    Raises:
        DataInvalid: the grids differ and `resampled` is not set, their axes are at an angle, or they share no voxel.
    """
    turned = made if made.orientation == truth.orientation else made.reorient(truth.orientation)
    unlike = difference(truth, turned)
    if not unlike:
        return Placed(turned, whole(truth))
    tilted = angle(truth, turned) > 0
    if tilted or not resampled:
        fix = "register them first" if tilted else "--resample, if they match"
        raise DataInvalid(f"the grids differ: {unlike}", reason=Reason.UNPAIRED, at=at, fix=fix)
    first = turned.index(truth.origin)
    steps = np.array(truth.spacing) / turned.spacing
    reached = [
        bands(Line(float(start), float(step), count), size)
        for start, step, count, size in zip(first, steps, truth.shape, turned.shape, strict=True)
    ]
    if not all(reached):
        raise DataInvalid(
            f"the two share no voxel: centres at ({_mm(truth.centre)}) and ({_mm(turned.centre)}) mm LPS",
            reason=Reason.UNPAIRED,
            at=at,
            fix="register them first",
        )
    d, h, w = (slice(along[0].start, along[-1].stop) for along in reached)
    placed = resample(turned, truth.spacing, truth.shape, first.tolist())
    scan = Volume(placed.hu, truth.affine, made.acquisition)
    return Placed(scan, (d, h, w), f"resampled onto the truth's grid ({unlike})")


def whole(scan: Volume) -> Box:
    """All voxels of a scan."""
    d, h, w = (slice(0, size) for size in scan.shape)
    return d, h, w


def shared(first: Box, second: Box) -> Box:
    """Voxels of both; along an axis where there are none the slice is empty."""
    d, h, w = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
    return d, h, w


def size(box: Box) -> tuple[int, int, int]:
    """Voxels along (depth, height, width)."""
    d, h, w = (max(0, along.stop - along.start) for along in box)
    return d, h, w


def cropped(scan: Volume, box: Box) -> Volume:
    """The part of a scan in the box; the scan itself where that is all of it."""
    return scan if box == whole(scan) else scan.crop([along.start for along in box], size(box))


def _joined(*words: str) -> str:
    return ", ".join(word for word in words if word)


def _spelled(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _mm(values: tuple[float, ...] | NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
