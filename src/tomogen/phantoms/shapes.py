"""Shapes as implicit functions in mm: negative inside, zero on the surface, about the distance near it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]
"""float32 wherever size matters."""
Points = NDArray[np.float64]


def union(a: Array, b: Array, blend: float = 0.0) -> Array:
    """Inside either; edges between the two are rounded over `blend` mm (polynomial smooth minimum)."""
    least = np.minimum(a, b)
    if blend:
        least -= np.maximum(blend - np.abs(a - b), 0) ** 2 / np.float32(4 * blend)
    return least


def common(a: Array, b: Array, blend: float = 0.0) -> Array:
    """Inside both."""
    return -union(-a, -b, blend)


def without(a: Array, b: Array, blend: float = 0.0) -> Array:
    """Inside `a` and not inside `b`."""
    return common(a, -b, blend)


def ellipsoid(
    at: tuple[Array, Array, Array],
    centre: Sequence[float] | Points,
    radii: Sequence[float] | Points,
    axes: NDArray[np.float64] | None = None,
) -> Array:
    """Ellipsoid with semi-axes `radii` along the rows of `axes` (x, y, z without)."""
    offsets = [c - np.float32(m) for c, m in zip(at, centre, strict=True)]
    if axes is None:
        parts = [(offset / np.float32(r)) ** 2 for offset, r in zip(offsets, radii, strict=True)]
    else:
        x, y, z = offsets
        turned = [np.float32(u) * x + np.float32(v) * y + np.float32(w) * z for u, v, w in axes]
        parts = [(along / np.float32(r)) ** 2 for along, r in zip(turned, radii, strict=True)]
    f: Array = (np.sqrt(parts[0] + parts[1] + parts[2]) - 1) * np.float32(min(radii))
    return f


def tube(at: tuple[Array, Array, Array], path: Points, radii: NDArray[np.float64]) -> Array:
    """Round tube along the corners of `path (n, 3)`, its radius `(n,)` linear between them."""
    x, y, z = at
    f: Array | None = None
    for start, end, r0, r1 in zip(path[:-1], path[1:], radii[:-1], radii[1:], strict=True):
        ax, ay, az = (end - start).astype(np.float32)
        px, py, pz = (c - np.float32(s) for c, s in zip((x, y, z), start, strict=True))
        t = np.clip((px * ax + py * ay + pz * az) / (ax * ax + ay * ay + az * az), 0, 1)
        d = np.sqrt((px - t * ax) ** 2 + (py - t * ay) ** 2 + (pz - t * az) ** 2)
        d -= np.float32(r0) + np.float32(r1 - r0) * t
        f = d if f is None else np.minimum(f, d)
    assert f is not None, "a path has two corners or more"
    return f


def smooth_path(corners: ArrayLike, pieces: int = 4) -> Points:
    """A curve through `corners (n, m)` (Catmull-Rom), `pieces` points per corner."""
    p = np.asarray(corners, dtype=np.float64)
    knots = np.arange(len(p), dtype=np.float64)
    return curve(np.linspace(0, len(p) - 1, (len(p) - 1) * pieces + 1), knots, p)


def curve(t: ArrayLike, knots: ArrayLike, values: ArrayLike) -> Points:
    """Cubic Hermite interpolation of `values (n, ...)` at increasing `knots (n,)`, constant beyond the ends."""
    t, knots, values = (np.asarray(a, dtype=np.float64) for a in (t, knots, values))
    tail = (1,) * (values.ndim - 1)
    slopes = np.gradient(values, knots, axis=0)
    i = np.clip(np.searchsorted(knots, t, "right") - 1, 0, len(knots) - 2)
    h = (knots[i + 1] - knots[i]).reshape(*t.shape, *tail)
    u = np.clip((t - knots[i]) / (knots[i + 1] - knots[i]), 0, 1).reshape(*t.shape, *tail)
    line: Points = (
        (2 * u**3 - 3 * u**2 + 1) * values[i]
        + (u**3 - 2 * u**2 + u) * h * slopes[i]
        + (3 * u**2 - 2 * u**3) * values[i + 1]
        + (u**3 - u**2) * h * slopes[i + 1]
    )
    return line


def bump(t: Array, centre: float, width: float) -> Array:
    """A bell: 1 at `centre`, 0.61 at `width` from it."""
    bell: Array = np.exp(-0.5 * ((t - np.float32(centre)) / np.float32(width)) ** 2)
    return bell


def ramp(t: Array, start: float, end: float) -> Array:
    """0 before `start`, 1 after `end` (which may lie before it), smooth between."""
    u = np.clip((t - np.float32(start)) / np.float32(end - start), 0, 1)
    step: Array = u * u * (3 - 2 * u)
    return step
