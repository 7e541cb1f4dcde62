"""Breastbone, collarbones, shoulder blades and the heads of the arms, in own millimetres."""

import numpy as np

from tomogen.phantoms.canvas import Canvas, tube_in
from tomogen.phantoms.grid import Region
from tomogen.phantoms.shapes import Array, common, ellipsoid, ramp, smooth_path, union, without
from tomogen.phantoms.thorax import SCAPULA, cage_around, trunk_around
from tomogen.phantoms.tissue import Tissue


def paint_breastbone(canvas: Canvas, tissue: Tissue) -> None:
    """Manubrium, body and tip of the sternum."""
    region = canvas.grid.region((-36, -130, -84), (36, -20, 96), detail=True)
    if region is None:
        return
    cage, _ = cage_around(region)
    x, y, z = region.at
    half = 15 + 11 * ramp(z, 46, 66) - 4 * ramp(z, -10, -58) * ramp(z, -80, -50) + 3 * np.cos(z / 7.5)
    plate = common(np.abs(cage - 0.5) - 5.2, np.abs(x) - half, 4)
    plate = common(plate, np.maximum(z - 80, -62 - z), 3)
    plate = without(plate, np.abs(z - 47) - 1.0)
    plate = common(plate, y)
    paint_bone(canvas, region, plate, tissue, 1.1, cortex=0.6, marrow=0.7)


def paint_shoulders(canvas: Canvas, tissue: Tissue) -> None:
    """Collarbones, shoulder blades and heads of the arms."""
    grid = canvas.grid
    for side in (-1, 1):
        near = grid.region((min(side * 46, side * 172), -20, -50), (max(side * 46, side * 172), 124, 134), detail=True)
        if near is not None:
            paint_bone(canvas, near, _blade(near), tissue, 1.1, cortex=0.8, marrow=0.9)
        corners: list[list[float]] = [
            [side * 15, -60, 84, 8], [side * 32, -62, 92, 6.2], [side * 62, -56, 106, 5.4], [side * 96, -30, 122, 5.4],
            [side * 128, -8, 136, 6.4],
        ]  # fmt: skip
        collar = smooth_path(corners)
        found = tube_in(grid, collar[:, :3], collar[:, 3])
        if found is not None:
            paint_bone(canvas, *found, tissue, 1.5, cortex=1.0, marrow=0.9)
        near = grid.region((min(side * 108, side * 186), -30, 84), (max(side * 108, side * 186), 60, 190))
        if near is not None:
            head = ellipsoid(near.at, (side * 145, 12, 126), (23, 23, 24))
            paint_bone(canvas, near, head, tissue, 1.6, cortex=0.75, marrow=0.75)
            socket = ellipsoid(near.at, (side * 121, 24, 116), (9, 15, 18))
            paint_bone(canvas, near, without(socket, head - 3), tissue, 1.4, cortex=0.8, marrow=1.0)


def _blade(region: Region) -> Array:
    """A shoulder blade with its spine."""
    cage, angle = cage_around(region)
    z = region.at[2]
    # medial border at 150 degrees, side border falling from the joint to the tip
    lower = ramp(z, 105, -25)
    bent = cage - SCAPULA - 4 * np.sin(angle / 14)
    blade = np.abs(bent) - (1.6 + 2.2 * (1 - ramp(angle - 46 * lower, 98, 108)))
    reach = np.maximum(angle - 151, 96 + 46 * lower - angle) * np.float32(1.9)
    blade = common(common(blade, reach, 2), np.maximum(z - 116, -28 - z), 4)
    # the spine of it, a ridge outwards that rises to the shoulder
    ridge = common(np.abs(z - 92 + 0.75 * (angle - 122)) * np.float32(0.8) - 2.8, np.abs(bent - 8) - 9, 2)
    ridge = common(ridge, np.maximum(angle - 146, 94 - angle) * np.float32(1.9))
    return common(union(blade, ridge, 3), trunk_around(region) + 9, 3)


def paint_bone(
    canvas: Canvas, region: Region, f: Array, tissue: Tissue, wall: float, *, cortex: float, marrow: float
) -> None:
    """Cortex of `wall` mm around marrow, both relative to the usual density."""
    density = canvas.grid.anatomy.bone
    canvas.paint(region, f, tissue.cortex * density * cortex)
    canvas.paint(region, f + np.float32(wall), tissue.marrow * density * marrow)
