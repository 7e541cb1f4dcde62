"""Painting HU: each tissue covers what lies under it by the share of the voxel that it fills."""

import numpy as np
from numpy.typing import NDArray

from tomogen.phantoms.grid import STEP, Grid, Region
from tomogen.phantoms.shapes import Array, Points, tube

SLENDER = 10.0
"""Radius in mm under which a tube needs the finer lattice."""


class Canvas:
    """HU `(depth, height, width)` float32 on a grid, air at first."""

    def __init__(self, grid: Grid, value: float = -1000.0) -> None:
        self.grid = grid
        self.hu = np.full(grid.shape, value, np.float32)

    def paint(self, region: Region | None, f: Array, value: float | Array) -> None:
        """Paint the inside of `f` (mm, on the region's lattice); an array of values lies on the lattice too."""
        found = None if region is None else region.covered(f)
        if region is None or found is None:
            return
        part, share = found
        if isinstance(value, np.ndarray):
            value = part.up(np.broadcast_to(value, f.shape)[region.holds(part)])
        self.cover(part, share, value)

    def cover(self, region: Region, share: Array, value: float | Array) -> None:
        """Paint this share of each voxel of the region's box; an array of values lies on the voxels."""
        under = self.hu[region.box]
        change = value - under
        change *= share
        under += change

    def tube(self, line: Points, radii: NDArray[np.float64], value: float) -> None:
        """Paint a thick tube."""
        found = tube_in(self.grid, line, radii)
        if found is not None:
            self.paint(*found, value)


def tube_in(grid: Grid, line: Points, radii: NDArray[np.float64]) -> tuple[Region, Array] | None:
    """A tube's region and its distance there; far from the tube only a bound of it. None where it misses the grid."""
    margin = 2 * max(STEP, *grid.spacing)
    reach = float(radii.max()) + margin
    detail = float(radii.max()) < SLENDER
    whole = grid.region(line.min(0) - reach, line.max(0) + reach, detail)
    if whole is None:
        return None
    f = np.full(tuple(len(nodes) for nodes in whole.nodes), margin, np.float32)
    for first in range(0, len(line) - 1, 4):
        piece = slice(first, first + 5)
        near = grid.region(line[piece].min(0) - reach, line[piece].max(0) + reach, detail)
        if near is not None:
            inner = f[whole.holds(near)]
            np.minimum(inner, tube(near.at, line[piece], radii[piece]), out=inner)
    return whole, f
