"""Below the diaphragm: liver, stomach with its air, spleen and the upper poles of the kidneys, in own millimetres."""

import numpy as np

from tomogen.phantoms.canvas import Canvas
from tomogen.phantoms.grid import Region
from tomogen.phantoms.shapes import common, ellipsoid, union, without
from tomogen.phantoms.thorax import Thorax
from tomogen.phantoms.tissue import Tissue


def paint_abdomen(canvas: Canvas, region: Region, thorax: Thorax, tissue: Tissue) -> None:
    """Paint the diaphragm and what lies under it."""
    a = canvas.grid.anatomy
    under = -thorax.diaphragm  # negative below the diaphragm
    cavity = common(thorax.hollow + 1.5, under + 3.0)
    canvas.paint(region, common(thorax.hollow, under, 2), tissue.muscle)
    canvas.paint(region, cavity, tissue.fat)
    top_right, top_left = a.dome_right, a.dome_right + a.dome_left
    right = ellipsoid(region.at, (-66, -2, top_right - 66 * a.liver), (72 * a.liver, 92, 72 * a.liver))
    left = ellipsoid(region.at, (14, -52, top_right - 38), (58 * a.liver, 40, 34 * a.liver))
    liver = union(right, left, 18)
    groove = ellipsoid(region.at, (-18, 18, top_right - 75), (14, 22, 40))
    liver = without(common(liver, cavity, 3), groove, 8)
    stomach = ellipsoid(region.at, (52, -14, top_left - 38), (35 * a.stomach, 44 * a.stomach, 40 * a.stomach))
    stomach = common(stomach, cavity + 1, 5)
    spleen = ellipsoid(region.at, (90, 46, top_left - 44), (34 * a.spleen, 50 * a.spleen, 48 * a.spleen))
    spleen = without(common(spleen, cavity + 1, 5), stomach - 3, 4)
    canvas.paint(region, liver, a.steatosis + tissue.liver)
    for line in ((-40, 22, 30), (-72, 6, 48), (-30, -10, 22)):
        # hepatic veins, one to each sector, run to the cava near the dome
        vein = ellipsoid(region.at, (line[0], line[1], top_right - 46), (5.5, 5.5, line[2]), _leaning(line[0]))
        canvas.paint(region, common(vein, liver + 4, 2), tissue.portal)
    canvas.paint(region, spleen, tissue.spleen)
    canvas.paint(region, stomach, tissue.wall)
    lumen = stomach + 4
    y = region.at[1]
    canvas.paint(region, lumen, 24.0)
    canvas.paint(region, common(lumen, y - (-16 + a.bubble)), -980.0)
    for side in (-1, 1):
        kidney = ellipsoid(region.at, (side * 50, 56, -168 + 4 * side), (26, 24, 44))
        canvas.paint(region, without(common(kidney, cavity + 5, 4), union(liver, spleen) - 2, 3), tissue.kidney)


def _leaning(x: float) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Axes of a vein that leans from (x, ...) to the midline above."""
    long = np.array([0.75 * np.sign(-x), 0.25, 0.6])
    long /= np.linalg.norm(long)
    first = np.cross(long, [0.0, 0, 1])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(long, first), long])
