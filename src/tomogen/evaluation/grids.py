"""Whether two scans lie voxel on voxel, and bringing one onto the grid of the other."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomogen.cases.resample import resample
from tomogen.errors import DataInvalid, Reason
from tomogen.volume import Volume

NEAR = 0.05
"""Voxels by which corners may lie apart: what headers round away, and no more."""

PARALLEL = 1e-3
"""Sine of the angle from which axes are no longer the same: half a millimetre across a chest."""


def difference(truth: Volume, made: Volume) -> str:
    """What keeps two scans from lying voxel on voxel, both shown; nothing if they do."""
    if truth.shape != made.shape:
        return f"{_spelled(truth.shape)} voxels against {_spelled(made.shape)}"
    if not np.allclose(truth.spacing, made.spacing, rtol=1e-3):
        return f"voxels of {_mm(truth.spacing)} mm against {_mm(made.spacing)} mm"
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in truth.shape])).reshape(3, -1).T
    apart = np.abs(truth.index(made.world(corners)) - corners).max()
    if apart > NEAR:
        far = float(np.linalg.norm(made.world(corners) - truth.world(corners), axis=-1).max())
        return (
            f"they lie {far:.1f} mm apart: first voxels at ({_mm(truth.origin)}) and ({_mm(made.origin)}) mm LPS, "
            f"axes {truth.orientation} and {made.orientation}"
        )
    return ""


def on_grid(truth: Volume, made: Volume, *, resampled: bool, at: str | Path | None = None) -> tuple[Volume, str]:
    """`made` on the voxels of `truth`, and a word on how it came there: nothing where it lay there already.

    Axes that run the other way or in another order are turned, which changes no voxel.

    Raises:
        DataInvalid: the grids differ and `resampled` is not set, or their axes are at an angle.
    """
    turned = made if made.orientation == truth.orientation else made.reorient(truth.orientation)
    unlike = difference(truth, turned)
    if not unlike:
        return turned, ""
    if not resampled:
        raise DataInvalid(f"the grids differ: {unlike}", reason=Reason.UNPAIRED, at=at, fix="--resample, if they match")
    sines = np.linalg.norm(np.cross(truth.directions.T, turned.directions.T), axis=-1)
    if sines.max() > PARALLEL:
        raise DataInvalid(
            f"the grids differ and lie at an angle of {np.degrees(np.arcsin(min(1, sines.max()))):.1f} degrees",
            reason=Reason.UNPAIRED,
            at=at,
            fix="register them first",
        )
    first = turned.index(truth.origin).tolist()
    placed = resample(turned, truth.spacing, truth.shape, first)
    return Volume(placed.hu, truth.affine, made.acquisition), f"resampled onto the truth's grid ({unlike})"


def _spelled(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _mm(values: tuple[float, ...] | NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
