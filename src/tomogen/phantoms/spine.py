"""The spine, drawn by counting: a height is turned into a vertebra's number, and one formula draws them all."""

import numpy as np

from tomogen.phantoms.canvas import Canvas
from tomogen.phantoms.shapes import Array, common, curve, ramp, union, without
from tomogen.phantoms.skeleton import paint_bone
from tomogen.phantoms.thorax import VERTEBRAE, spine_curve
from tomogen.phantoms.tissue import Tissue


def paint_spine(canvas: Canvas, tissue: Tissue) -> None:
    """Vertebral bodies with discs, arches, processes and the canal."""
    region = canvas.grid.region((-50, 4, -190), (50, 128, 190), detail=True)
    if region is None:
        return
    x, y, z = region.at
    middle, width, depth = spine_curve(z)
    back = y - middle
    # discs stand at right angles to the spine's line, not to the table
    lean = np.gradient(middle, z.ravel(), axis=0).astype(np.float32) if z.size > 1 else np.zeros_like(middle)
    tilt = z + back * lean
    level, pitch = _vertebra(tilt)
    ax = np.abs(x)
    # a body: waisted at half height, hollow behind
    waist = 1 - 0.08 * (1 - (level / (0.5 * pitch)) ** 2)
    u = np.sqrt((x / (width * waist)) ** 2 + (back / (depth * waist)) ** 2)
    round_ = (u - 1) * depth
    hollow = without(round_, np.sqrt(x**2 + (back - depth - 7) ** 2) - 9, 2)
    body = common(hollow, np.abs(level) - (0.5 * pitch - 2.0 - 0.02 * pitch), 1.5)
    disc = common(hollow + 1.0, np.abs(level) - 0.5 * pitch)
    rear = depth + 8.5
    radius = np.sqrt((x / 1.12) ** 2 + (back - rear) ** 2)
    canal = radius - 8.2
    lamina = common(np.abs(radius - 11.2) - 2.6, np.abs(level + 2 + 0.35 * (back - rear)) - 0.34 * pitch, 2)
    lamina = common(lamina, depth + 4.5 - back)
    pedicle = np.sqrt(((ax - 12.5) / 3.6) ** 2 + ((level - 2.5) / 6.2) ** 2) - 1
    pedicle = common(pedicle * 3.8, np.abs(back - depth - 3) - 8)
    low, _ = _vertebra(tilt + 0.62 * (back - rear - 10))
    spinous = common(np.abs(x) - (2.2 + 1.2 * ramp(back, 40, 52)), np.abs(low) - 6.0, 2)
    spinous = common(spinous, np.abs(back - rear - 18) - 11, 3)
    side = ax - 13
    sweep = back - rear - 0.42 * side
    transverse = np.sqrt((sweep / 4.6) ** 2 + ((level - 3.5) / 5.4) ** 2) - 1
    transverse = common(transverse * 4.6, np.abs(side - 9) - (14 + 0.03 * np.minimum(z, 0)), 3)
    arch = union(union(lamina, pedicle, 2), union(spinous, transverse, 2), 2)
    canvas.paint(region, disc, tissue.disc)
    paint_bone(canvas, region, union(body, arch, 1), tissue, 1.2, cortex=0.62, marrow=1.0)
    canvas.paint(region, common(canal, -(round_ + 0.5)), tissue.cord)


def _vertebra(z: Array) -> tuple[Array, Array]:
    """Height over the middle of the nearest vertebra, and the distance from one vertebra to the next, mm."""
    count = np.interp(z, VERTEBRAE, np.arange(len(VERTEBRAE), dtype=np.float64))
    pitch = curve(z, VERTEBRAE, np.gradient(VERTEBRAE))
    return ((count - np.rint(count)) * pitch).astype(np.float32), pitch.astype(np.float32)
