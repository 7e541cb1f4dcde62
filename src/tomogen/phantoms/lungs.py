"""The lungs' inside: parenchyma, fissures, vessels, bronchi and nodules."""

import numpy as np

from tomogen.phantoms import cones, mediastinum, trees
from tomogen.phantoms.canvas import Canvas
from tomogen.phantoms.grid import Region
from tomogen.phantoms.shapes import Array, ellipsoid
from tomogen.phantoms.thorax import fissures
from tomogen.phantoms.tissue import Tissue

VISIBLE = 1.5
"""Radius in mm of the lumen under which a bronchus is not drawn: CT shows none."""


def paint_lungs(canvas: Canvas, region: Region, lungs: Array, tissue: Tissue) -> None:
    """Paint the lungs with all that is in them, and the windpipe that leads there."""
    a, grid = canvas.grid.anatomy, canvas.grid
    x, y, z = region.at
    found = region.covered(lungs)
    inside = np.zeros(grid.shape, np.float32)
    if found is not None:
        part, share = found
        inside[part.box] = share
        # denser below (supine: behind) and near the diaphragm; uneven by a few HU, as lungs are
        uneven = 5 * np.sin(x / 17 + 1) * np.sin(y / 21) + 4 * np.sin(z / 13 + y / 19) * np.cos(x / 11)
        air = a.lung + a.gravity * (y - 8) - 0.1 * (z + 5) + uneven
        fissure = np.maximum(part.up(fissures(region)[region.holds(part)]) - 0.4, 0)
        shade = part.up(np.broadcast_to(air, lungs.shape).astype(np.float32)[region.holds(part)])
        # a fissure is a double sheet of pleura, thinner than any voxel
        shade += 110 * np.clip(1.2 - fissure, 0, 1) * min(1.0, 1.0 / max(grid.spacing))
        canvas.cover(part, share, shade)
    _paint_nodules(canvas, inside, tissue)
    for name, value in (("artery", tissue.pulmonary), ("vein", tissue.return_)):
        tree = trees.bent(name, a)
        hilar = tree.generation <= 2
        far = cones.shares(grid, tree.starts[~hilar], tree.ends[~hilar], tree.radii[~hilar])
        far *= inside
        near = cones.shares(grid, tree.starts[hilar], tree.ends[hilar], tree.radii[hilar])
        np.maximum(far, near, out=far)
        _cover(canvas, far, value)
    tree = trees.bent("airway", a)
    shown = tree.radii[:, 0] > VISIBLE
    wall = 0.35 + 0.14 * tree.radii
    _cover(canvas, cones.shares(grid, tree.starts[shown], tree.ends[shown], (tree.radii + wall)[shown]), tissue.wall)
    tubes = list(mediastinum.airways(a))
    for line, radii in tubes:
        canvas.tube(line, radii + 1.5, tissue.wall)
    _cover(canvas, cones.shares(grid, tree.starts[shown], tree.ends[shown], tree.radii[shown]), -985.0)
    for line, radii in tubes:
        canvas.tube(line, radii, -990.0)


def _cover(canvas: Canvas, share: Array, value: float) -> None:
    where = np.flatnonzero(share.ravel() > 0)
    under = canvas.hu.ravel()
    under[where] += share.ravel()[where] * (np.float32(value) - under[where])


def _paint_nodules(canvas: Canvas, inside: Array, tissue: Tissue) -> None:
    for x, y, z, radius, solid in canvas.grid.anatomy.nodules:
        if radius <= 0.2:
            continue
        region = canvas.grid.region((x - 22, y - 22, z - 22), (x + 22, y + 22, z + 22), detail=True)
        if region is None:
            continue
        # lobed: the radius differs by direction
        px, py, pz = (c - np.float32(m) for c, m in zip(region.at, (x, y, z), strict=True))
        lobes = 1 + 0.1 * np.sin(0.5 * px + x) * np.sin(0.55 * py + y) + 0.08 * np.sin(0.6 * pz + z)
        f = ellipsoid(region.at, (x, y, z), (radius, radius, radius)) + radius * (lobes - 1)
        found = region.covered(f.astype(np.float32))
        if found is not None:
            part, share = found
            # ground glass lets the lung shine through
            canvas.cover(part, share * inside[part.box] * (0.25 + 0.75 * solid), tissue.nodule)
