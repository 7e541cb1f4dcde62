"""What a scanner adds: its table under the patient, and noise with the grain of a reconstruction kernel."""

from collections.abc import Sequence

import numpy as np

from tomogen.phantoms.grid import Grid
from tomogen.phantoms.shapes import Array
from tomogen.phantoms.thorax import TRUNK

GAP = 14.0
"""Mattress between the patient's back and the table, mm."""
_SAG = 620.0
"""Radius of the table's curve, mm."""
_THICK = 22.0
"""Distance between the upper and the lower shell, mm."""
_SHELL, _FOAM = 130.0, -890.0
"""HU of the shells (1.6 mm) and of the foam between them."""
_BLUR = 0.75
"""Standard deviation in mm of the kernel that noise passes: neighbouring pixels of a CT are alike."""


def table_top(grid: Grid) -> float:
    """Depth (LPS y in mm) of the table's upper surface in the midline."""
    back = grid.anatomy.place(np.column_stack([np.zeros((len(TRUNK), 1)), TRUNK[:, 3], TRUNK[:, 0]]))
    return float(back[:, 1].max()) + grid.anatomy.fat + GAP


def paint_table(hu: Array, grid: Grid) -> None:
    """Draw the table into the air behind the patient: two curved shells and foam, the same in every slice."""
    depth = grid.y[:, None] - table_top(grid)
    upper = depth + grid.x[None] ** 2 / (2 * _SAG)
    lower = depth - _THICK + grid.x[None] ** 2 / (2 * _SAG) * 0.4
    size = grid.spacing[1]
    table = np.full(upper.shape, -1000.0)
    inside = np.clip(0.5 - np.maximum(-upper, lower) / size, 0, 1)
    table += inside * (_FOAM + 1000)
    for surface in (upper - 0.8, lower + 0.8):
        # a shell is thinner than most voxels: it fills as much of one as it is thick
        share = np.clip((0.8 + 0.5 * size - np.abs(surface)) / min(size, 1.6), 0, 1) * min(1.0, 1.6 / size)
        table += share * (_SHELL - table)
    wide = np.abs(grid.x)[None] < 205
    np.maximum(hu, np.where(wide, table, -1000).astype(np.float32)[None], out=hu)


def grain(rng: np.random.Generator, shape: Sequence[int], spacing: Sequence[float]) -> Array:
    """Stationary normal noise of unit variance, in each slice alike over about a millimetre."""
    noise = rng.standard_normal(tuple(shape), dtype=np.float32)
    for axis in (1, 2):
        reach = int(np.ceil(2.5 * _BLUR / spacing[axis]))
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) * spacing[axis] / _BLUR) ** 2)
        taps = taps[taps > 0.02]
        taps /= np.sqrt((taps**2).sum())
        noise = sum(np.float32(tap) * np.roll(noise, number - len(taps) // 2, axis) for number, tap in enumerate(taps))  # type: ignore[assignment]
    return noise
