"""Twelve pairs of ribs, drawn by counting.

A place on the cage is turned into the number, with fraction, of the rib that would pass there; one formula,
repeated around every whole number, draws them all, each an oval tube of cortex around marrow that turns to
cartilage in front.
"""

import numpy as np
from numpy.typing import NDArray

from tomogen.phantoms.anatomy import Anatomy
from tomogen.phantoms.canvas import Canvas
from tomogen.phantoms.grid import Region
from tomogen.phantoms.shapes import Array
from tomogen.phantoms.thorax import VERTEBRAE, Thorax
from tomogen.phantoms.tissue import Tissue

_FALL = np.array([24.0, 50, 72, 88, 100, 108, 112, 112, 108, 98, 78, 60])
"""How far ribs 1 to 12 fall from the spine to the front end of their bone, mm."""
_BONE_ENDS = np.array([0.74, 0.78, 0.80, 0.81, 0.81, 0.80, 0.78, 0.75, 0.71, 0.66, 0.44, 0.27])
"""Share of the way around to the breastbone at which ribs 1 to 12 turn to cartilage or end."""
_CARTILAGE_ENDS = np.array([0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.90, 0.84, 0.76, 0.46, 0.29])
_THICK = np.float32(3.7)
"""Half a rib's thickness, mm."""
_HEIGHTS = np.array([5.0, 6.2, 6.4, 6.6, 6.8, 7.0, 6.8, 6.6, 6.4, 6.1, 5.8, 5.6])
"""Half the height of ribs 1 to 12, mm."""
_LEVELS = VERTEBRAE[2:14]
"""Heights of the vertebrae from T12 up to T1."""
_PITCH = np.abs(np.gradient(_LEVELS))[::-1] * 0.84
"""Distance between ribs 1 to 12, measured across them, for they are oblique, mm."""


def paint_ribs(canvas: Canvas, region: Region, thorax: Thorax, tissue: Tissue) -> None:
    """All ribs, on the region's voxels that lie near the cage."""
    a = canvas.grid.anatomy
    around = (180 - thorax.azimuth) / np.float32(180)
    found = region.covered(np.abs(thorax.cage) - 7)
    if found is None:
        return
    part, shell = found
    where = shell > 0
    inner = region.holds(part)
    depth, count, way = (
        part.up(field[inner])[where] for field in (thorax.cage, _number(region.at[2], around, a), around)
    )
    rib = np.clip(np.rint(count), 1, 12)
    index = rib.astype(np.intp) - 1
    outside, width = _oval(depth, (count - rib) * _PITCH[index].astype(np.float32), index, canvas.grid.spacing)
    cortex = np.float32(1.1 * min(a.bone, 1.15))
    full = np.clip(0.5 - outside / width, 0, 1)
    core = np.clip(0.5 - (outside + cortex) / width, 0, 1)
    bony = np.clip((_BONE_ENDS[index].astype(np.float32) - way) * 60 + 0.5, 0, 1)
    gristle = np.clip((_CARTILAGE_ENDS[index].astype(np.float32) - way) * 60 + 0.5, 0, 1) - bony
    bone = core * np.float32(tissue.marrow * a.bone) + (full - core) * np.float32(tissue.cortex * a.bone)
    under = canvas.hu[part.box]
    there = under[where]
    there += bony * (bone - full * there)
    there += full * gristle * (np.float32(tissue.cartilage) - there)
    under[where] = there


def _oval(
    depth: Array, across: Array, index: NDArray[np.intp], spacing: tuple[float, float, float]
) -> tuple[Array, Array]:
    """Distance outside a rib's oval section, and the width of a voxel along it, mm."""
    height = _HEIGHTS[index].astype(np.float32)
    q = np.sqrt((depth / _THICK) ** 2 + (across / height) ** 2) + np.float32(1e-6)
    out, up = depth / (_THICK**2 * q), across / (height**2 * q)
    steep = np.sqrt(out * out + up * up) + np.float32(1e-6)
    in_plane = np.float32(0.5 * (spacing[1] + spacing[2]))
    width = np.sqrt((in_plane * out) ** 2 + (np.float32(spacing[0]) * up) ** 2) / steep + np.float32(0.3)
    return (q - 1) / steep, width


def _number(z: Array, around: Array, a: Anatomy) -> Array:
    """The number, with fraction, of the rib that would pass here: 1 at the top, 12 below."""
    t = np.minimum(around / np.float32(0.82), 1.2)
    fall = 0.4 * np.minimum(t, 2 - t) + 0.6 * (0.5 - 0.5 * np.cos(np.pi * t))
    levels, numbers = _LEVELS + 7 + a.ribs, np.arange(12, 0, -1.0)
    steep = np.float32(a.obliquity)
    lifted = z + steep * 80 * fall
    for _ in range(2):
        drop = np.interp(lifted, levels, _FALL[::-1]).astype(np.float32)
        lifted = z + steep * drop * fall
    # beyond the first and the last rib the count goes on, so that neither is drawn again
    below, above = np.minimum(lifted - levels[0], 0) / 24, np.maximum(lifted - levels[-1], 0) / 18
    number: Array = (np.interp(lifted, levels, numbers) - below - above).astype(np.float32)
    return number
