"""Where a phantom is evaluated: the voxels, and a coarser lattice on which smooth shapes cost little.

A shape is an implicit function `f` in mm: negative inside, zero on the surface, about the distance near it. It is
evaluated on a lattice of at most `STEP` mm that lies at the same places for every grid, divided by its own change
over a voxel, and interpolated linearly to the voxels: what comes out is the distance in voxels, from which
coverage follows. Linear interpolation of a sphere of radius R is off by STEP^2 / 8R: 0.06 mm at R = 25 mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tomogen.phantoms.anatomy import Anatomy
from tomogen.phantoms.shapes import Array

Box = tuple[slice, slice, slice]

STEP = 3.5
"""Lattice spacing in mm; axes with coarser voxels are evaluated at the voxels themselves."""
DETAIL = 1.5
"""The same for thin bones."""


@dataclass(frozen=True)
class Grid:
    """Voxel centres in LPS mm along (z, y, x), and whose anatomy is drawn on them."""

    anatomy: Anatomy
    z: NDArray[np.float64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    spacing: tuple[float, float, float]

    @classmethod
    def centred(cls, anatomy: Anatomy, shape: Sequence[int], spacing: Sequence[float]) -> "Grid":
        """`shape` voxels of `spacing` mm around LPS (0, 0, 0)."""
        z, y, x = (
            (np.arange(n, dtype=np.float64) - (n - 1) / 2) * float(s) for n, s in zip(shape, spacing, strict=True)
        )
        return cls(anatomy, z, y, x, (float(spacing[0]), float(spacing[1]), float(spacing[2])))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (depth, height, width)."""
        return len(self.z), len(self.y), len(self.x)

    @property
    def voxels(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Voxel centres along (z, y, x) in mm."""
        return self.z, self.y, self.x

    def whole(self) -> "Region":
        """All voxels."""
        depth, height, width = self.shape
        return Region(self, (slice(0, depth), slice(0, height), slice(0, width)), self._smooth)

    @cached_property
    def _smooth(self) -> tuple[NDArray[np.float64], ...]:
        return tuple(_nodes(axis, size, STEP) for axis, size in zip(self.voxels, self.spacing, strict=True))

    @cached_property
    def _fine(self) -> tuple[NDArray[np.float64], ...]:
        return tuple(_nodes(axis, size, DETAIL) for axis, size in zip(self.voxels, self.spacing, strict=True))

    def region(self, low: Sequence[float], high: Sequence[float], detail: bool = False) -> "Region | None":
        """The voxels in the anatomy's box from `low` to `high` (own x, y, z); None where there are none."""
        near, far = self.anatomy.box(low, high)
        box: list[slice] = []
        parts: list[NDArray[np.float64]] = []
        lattices = self._fine if detail else self._smooth
        for axis, (centres, lattice) in enumerate(zip(self.voxels, lattices, strict=True)):
            first, last = near[2 - axis], far[2 - axis]
            start, stop = np.searchsorted(centres, (first, last))
            if start == stop:
                return None
            box.append(slice(int(start), int(stop)))
            # a node beyond each end, so that every voxel of the box lies between two
            a = max(int(np.searchsorted(lattice, centres[start], "right")) - 2, 0)
            b = int(np.searchsorted(lattice, centres[stop - 1], "left")) + 2
            parts.append(lattice[a:b])
        return Region(self, (box[0], box[1], box[2]), tuple(parts))


@dataclass(frozen=True)
class Region:
    """A box of voxels and the lattice nodes around it."""

    grid: Grid
    box: Box
    nodes: tuple[NDArray[np.float64], ...]

    @cached_property
    def at(self) -> tuple[Array, Array, Array]:
        """The anatomy's own coordinates (x, y, z) of the lattice, as arrays that broadcast."""
        z, y, x = self.nodes
        return self.grid.anatomy.own(x, y, z)

    @cached_property
    def _weights(self) -> tuple[Array | None, ...]:
        centres = [axis[part] for axis, part in zip(self.grid.voxels, self.box, strict=True)]
        return tuple(_linear(nodes, axis) for nodes, axis in zip(self.nodes, centres, strict=True))

    def gradient(self, f: Array) -> tuple[Array, Array, Array]:
        """Change of `f` per mm along (z, y, x)."""
        dz, dy, dx = (
            np.gradient(f, float(nodes[1] - nodes[0]), axis=axis) if len(nodes) > 1 else np.zeros_like(f)
            for axis, nodes in enumerate(self.nodes)
        )
        return dz, dy, dx

    def distance(self, f: Array) -> Array:
        """`f` divided by its steepness: to first order the distance from its surface in mm."""
        dz, dy, dx = self.gradient(f)
        distance: Array = f / np.sqrt(dz * dz + dy * dy + dx * dx + np.float32(1e-12))
        return distance

    def in_voxels(self, f: Array) -> Array:
        """`f` divided by its change over a voxel, per direction: the distance that coverage depends on."""
        dz, dy, dx = self.gradient(f)
        sz, sy, sx = self.grid.spacing
        change = np.sqrt((dz * sz) ** 2 + (dy * sy) ** 2 + (dx * sx) ** 2 + np.float32(0.01 * min(sz, sy, sx) ** 2))
        distance: Array = f / change
        return distance

    def up(self, field: Array) -> Array:
        """A field on the lattice, interpolated to the voxels of the box."""
        wz, wy, wx = self._weights
        field = np.array(np.broadcast_to(field, tuple(len(nodes) for nodes in self.nodes)))
        if wz is not None:
            field = np.tensordot(wz, field, 1)
        if wy is not None:
            field = wy @ field
        if wx is not None:
            field = field @ wx.T
        return field

    def holds(self, part: "Region") -> Box:
        """Where the lattice of a smaller region lies in this one's."""
        starts = [int(np.searchsorted(own, inner[0])) for own, inner in zip(self.nodes, part.nodes, strict=True)]
        z, y, x = (slice(start, start + len(inner)) for start, inner in zip(starts, part.nodes, strict=True))
        return z, y, x

    def covered(self, f: Array) -> "tuple[Region, Array] | None":
        """The box in which `f < 0` covers something, and the share of each voxel that it covers."""
        inside = self.in_voxels(np.broadcast_to(f, tuple(len(nodes) for nodes in self.nodes)))
        part = self._around(inside < 0.5)
        if part is None:
            return None
        share = part.up(inside[self.holds(part)])
        np.subtract(np.float32(0.5), share, out=share)
        return part, np.clip(share, 0, 1, out=share)

    def _around(self, mask: NDArray[np.bool_]) -> "Region | None":
        """The smallest region whose lattice holds the mask and one node more on each side."""
        box: list[slice] = []
        parts: list[NDArray[np.float64]] = []
        for axis, (nodes, centres, old) in enumerate(zip(self.nodes, self.grid.voxels, self.box, strict=True)):
            hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
            if len(hit) == 0:
                return None
            a, b = max(hit[0] - 1, 0), min(hit[-1] + 1, len(nodes) - 1)
            start = max(int(np.searchsorted(centres, nodes[a])), old.start)
            stop = min(int(np.searchsorted(centres, nodes[b], "right")), old.stop)
            if start >= stop:
                return None
            box.append(slice(start, stop))
            parts.append(nodes[a : b + 1])
        return Region(self.grid, (box[0], box[1], box[2]), tuple(parts))


def _nodes(voxels: NDArray[np.float64], spacing: float, step: float) -> NDArray[np.float64]:
    """Multiples of `step` around the voxels, or the voxels where they are coarser."""
    if spacing >= step:
        return voxels
    return np.arange(np.floor(voxels[0] / step) - 1, np.ceil(voxels[-1] / step) + 2) * step


def _linear(nodes: NDArray[np.float64], centres: NDArray[np.float64]) -> Array | None:
    """Weights `(voxels, nodes)` of linear interpolation; None where they are the same places."""
    if len(nodes) == len(centres) and np.array_equal(nodes, centres):
        return None
    step = (nodes[-1] - nodes[0]) / max(len(nodes) - 1, 1)
    weights: Array = np.maximum(1 - np.abs(centres[:, None] - nodes) / step, 0).astype(np.float32)
    return weights
