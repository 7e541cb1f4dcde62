"""Thousands of thin cones at once: the share of every voxel that vessels and bronchi fill.

A cone as wide as a voxel or wider is measured by its distance from the voxel's middle; a thinner one is laid
down as mass along its axis, so that a vessel too small to be seen still adds its volume.
"""

import numpy as np
from numpy.typing import NDArray

from tomogen.phantoms.grid import Grid
from tomogen.phantoms.shapes import Array, Points


def shares(grid: Grid, starts: Points, ends: Points, radii: NDArray[np.float64]) -> Array:
    """Share of each voxel inside any of the cones from `starts` to `ends (n, 3)` in LPS mm, radii `(n, 2)`."""
    filled = np.zeros(grid.shape, np.float32)
    voxel = float(np.prod(grid.spacing)) ** (1 / 3)
    middle = (_index(grid, starts) + _index(grid, ends)) / 2
    reach = (np.linalg.norm(ends - starts, axis=1) / 2 + radii.max(1))[:, None] / grid.spacing + 2
    near = ((middle > -reach) & (middle < np.array(grid.shape) - 1 + reach)).all(1)
    starts, ends, radii = starts[near], ends[near], radii[near]
    thin = radii.max(1) < 0.55 * voxel
    _lay(filled, grid, starts[thin], ends[thin], radii[thin])
    _measure(filled, grid, starts[~thin], ends[~thin], radii[~thin])
    return np.minimum(filled, 1, out=filled)


def _samples(
    starts: Points, ends: Points, step: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Each cone cut into pieces no longer than `step`: its number, the piece's middle along it (0 to 1), its length."""
    length = np.linalg.norm(ends - starts, axis=1)
    pieces = np.maximum(np.ceil(length / step), 1).astype(np.int64)
    cone = np.repeat(np.arange(len(starts)), pieces)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    return cone, (np.arange(len(cone)) - first + 0.5) / pieces[cone], (length / pieces)[cone]


def _index(grid: Grid, points: Points) -> NDArray[np.float64]:
    """Fractional voxel indices (k, j, i) of LPS points."""
    first = np.array([grid.z[0], grid.y[0], grid.x[0]])
    index: NDArray[np.float64] = (points[:, ::-1] - first) / np.array(grid.spacing)
    return index


def _lay(filled: Array, grid: Grid, starts: Points, ends: Points, radii: NDArray[np.float64]) -> None:
    """Add the volume of thin cones, shared linearly among the eight voxels around each piece."""
    cone, t, length = _samples(starts, ends, 0.7 * min(grid.spacing))
    place = _index(grid, starts[cone] + (ends - starts)[cone] * t[:, None])
    radius = radii[cone, 0] + (radii[cone, 1] - radii[cone, 0]) * t
    mass = np.pi * radius**2 * length / np.prod(grid.spacing)
    corner = np.floor(place).astype(np.int64)
    rest = place - corner
    for dz in (0, 1):
        for dy in (0, 1):
            for dx in (0, 1):
                at = corner + np.array((dz, dy, dx))
                weight = mass * np.prod(np.where((dz, dy, dx), rest, 1 - rest), axis=1)
                ok = ((at >= 0) & (at < filled.shape)).all(1)
                flat = np.ravel_multi_index(tuple(at[ok].T), filled.shape)
                np.add.at(filled.reshape(-1), flat, weight[ok].astype(np.float32))


def _measure(filled: Array, grid: Grid, starts: Points, ends: Points, radii: NDArray[np.float64]) -> None:
    """Put in the coverage of thick cones where it is more than what is there."""
    spacing = np.array(grid.spacing)
    first, second, sizes = _frame(ends - starts, spacing[::-1])
    cone, t, _ = _samples(starts, ends, 0.8 * float(np.prod(spacing)) ** (1 / 3))
    centre = np.rint(_index(grid, starts[cone] + (ends - starts)[cone] * t[:, None])).astype(np.int64)
    # half a voxel of edge, half a voxel between pieces and half a voxel of rounding
    reach = np.floor(radii.max(1)[cone, None] / spacing + 1.25).astype(np.int64)
    flat = filled.reshape(-1)
    # pieces with the same reach share one neighbourhood of voxels
    reaches, group = np.unique(reach, axis=0, return_inverse=True)
    for number, size in enumerate(reaches):
        chosen = np.flatnonzero(group.ravel() == number)
        offsets = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in size], indexing="ij"), -1).reshape(-1, 3)
        for part in np.array_split(chosen, max(1, len(chosen) * len(offsets) // 400_000)):
            at = centre[part, None] + offsets
            ok = ((at >= 0) & (at < filled.shape)).all(-1)
            mine, at = cone[part][np.nonzero(ok)[0]], at[ok]
            place = (at * spacing + [grid.z[0], grid.y[0], grid.x[0]])[:, ::-1].astype(np.float32)
            axis = (ends - starts)[mine].astype(np.float32)
            off = place - starts[mine].astype(np.float32)
            along = np.clip((off * axis).sum(1) / np.maximum((axis * axis).sum(1), 1e-9), 0, 1)
            off -= along[:, None] * axis
            r = radii[mine].astype(np.float32)
            radius = r[:, 0] + (r[:, 1] - r[:, 0]) * along
            wide = radius > 0.8 * sizes[mine].max(1)
            share = np.empty(len(mine), np.float32)
            share[wide] = _round(off[wide], radius[wide], spacing[::-1].astype(np.float32))
            few = mine[~wide]
            share[~wide] = _square(off[~wide], radius[~wide], first[few], second[few], sizes[few])
            hit = share > 0
            np.maximum.at(flat, np.ravel_multi_index(tuple(at[hit].T), filled.shape), share[hit])


def _round(off: Array, radius: Array, spacing: Array) -> Array:
    """Coverage by a cone wider than a voxel, at `off` from its axis: by the distance from its surface."""
    square = off * off
    distance = np.sqrt(square.sum(1))
    # width of the voxel across the surface; the edge is moved so that the disc keeps its area:
    # pi (r'^2 + w^2 / 12) = pi r^2
    width = np.sqrt((square * spacing**2).sum(1)) / np.maximum(distance, 1e-3)
    width = np.where(distance > 0.05, width, spacing.max())
    edge = np.sqrt(np.maximum(radius**2 - width**2 / 12, 0))
    share: Array = np.clip((edge - distance) / width + 0.5, 0, 1)
    return share


def _square(off: Array, radius: Array, first: Array, second: Array, sizes: Array) -> Array:
    """Coverage by a cone narrower than a voxel: a square of its area overlaps the voxel in both directions."""
    half = radius * np.float32(np.sqrt(np.pi) / 2)
    share = np.ones(len(off), np.float32)
    for direction, size in zip((first, second), sizes.T, strict=True):
        at = np.abs((off * direction).sum(1))
        overlap = np.minimum(at + size / 2, half) - np.maximum(at - size / 2, -half)
        share *= np.clip(overlap / size, 0, 1)
    return share


def _frame(axes: Points, size: NDArray[np.float64]) -> tuple[Array, Array, Array]:
    """Two directions at right angles to each axis `(n, 3)`, and the voxel's width `(n, 2)` along them."""
    ahead = axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-9)
    # the voxel's longest side, as far as it lies across the axis
    longest, next_ = np.eye(3)[np.argsort(-size)[:2]]
    guide = np.where(np.abs(ahead @ longest)[:, None] < 0.9, longest, next_)
    first = guide - (guide * ahead).sum(1, keepdims=True) * ahead
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-9)
    second = np.cross(ahead, first)
    sizes = np.stack([np.linalg.norm(direction * size, axis=1) for direction in (first, second)], 1)
    return first.astype(np.float32), second.astype(np.float32), sizes.astype(np.float32)
