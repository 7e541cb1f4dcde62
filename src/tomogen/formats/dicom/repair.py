"""What can be made whole: missing slices between their neighbours, and scans sheared by a tilted gantry."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.formats.dicom.stack import Grid
from tomogen.intensity import HU_FLOOR
from tomogen.volume import Volume


def fill_gaps(hu: NDArray[Any], grid: Grid) -> None:
    """Set the missing slices of `hu (depth, height, width)` linearly between the nearest ones that are there."""
    there = [slot for slot, frame in enumerate(grid.slots) if frame is not None]
    for before, after in pairwise(there):
        for slot in range(before + 1, after):
            part = (slot - before) / (after - before)
            between = (1 - part) * hu[before].astype(np.float32) + part * hu[after].astype(np.float32)
            hu[slot] = np.rint(between) if hu.dtype.kind == "i" else between


def untilted(volume: Volume) -> Volume:
    """The scan on a grid with right angles: each slice shifted within its plane to where the gantry had moved it.

    In-plane linear interpolation; the grid grows sideways so that nothing is lost; what no slice covers is -1024 HU.
    """
    from scipy import ndimage

    depth, height, width = volume.shape
    directions = volume.directions
    normal = np.cross(directions[:, 2], directions[:, 1])
    normal /= np.linalg.norm(normal)
    step = volume.affine[:3, 0]
    along = float(step @ normal)
    sideways = step - along * normal
    # Pixels by which each further slice lies to the side, along rows (height) and columns (width).
    drift = np.linalg.lstsq(volume.affine[:3, 1:3], sideways, rcond=None)[0]
    before = [max(0, math.ceil(-d * (depth - 1) - 1e-6)) for d in drift]
    after = [max(0, math.ceil(d * (depth - 1) - 1e-6)) for d in drift]
    shape = (depth, height + before[0] + after[0], width + before[1] + after[1])
    out = np.empty(shape, volume.hu.dtype)
    inner = np.full(shape[1:], HU_FLOOR, np.float32)
    for k in range(depth):
        inner[...] = HU_FLOOR
        inner[before[0] : before[0] + height, before[1] : before[1] + width] = volume.hu[k]
        moved = ndimage.shift(inner, k * drift, order=1, mode="constant", cval=HU_FLOOR, prefilter=False)
        out[k] = np.rint(moved) if out.dtype.kind == "i" else moved
    affine = volume.affine.copy()
    affine[:3, 0] = along * normal
    affine[:3, 3] = volume.world((0, -before[0], -before[1]))
    return replace(volume, hu=out, affine=affine)
