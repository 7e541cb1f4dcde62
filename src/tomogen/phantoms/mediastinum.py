"""Between the lungs: heart, great vessels, trachea and oesophagus, as tubes and ellipsoids in own millimetres."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomogen.phantoms.anatomy import Anatomy
from tomogen.phantoms.canvas import Canvas
from tomogen.phantoms.grid import Grid, Region
from tomogen.phantoms.shapes import Array, Points, ellipsoid, smooth_path, tube, union, without
from tomogen.phantoms.thorax import spine_curve
from tomogen.phantoms.tissue import Tissue


@dataclass(frozen=True)
class Tube:
    """A round tube: `corners (n, 4)` of x, y, z and radius; `tissue` names its content in `Tissue`."""

    name: str
    tissue: str
    corners: tuple[tuple[float, float, float, float], ...]
    bounds_lungs: bool = True
    """Whether the lungs keep off it."""

    def path(self, scale: float = 1.0, lift: float = 0.0, aside: float = 0.0) -> tuple[Points, NDArray[np.float64]]:
        """A smooth line through the corners and its radii."""
        line = smooth_path(self.corners)
        # only the chest's upper middle is lifted, only the descending part is pushed aside
        line[:, 2] += lift * np.clip((line[:, 2] - 10) / 50, 0, 1) * np.clip((125 - line[:, 2]) / 50, 0, 1)
        line[:, 0] += aside * np.clip((line[:, 1] - 15) / 20, 0, 1) * np.exp(-(((line[:, 2] + 10) / 80) ** 2))
        return line[:, :3], line[:, 3] * scale


CARINA = (0.0, 21.0, 37.0)
MAIN_BRONCHI = {
    -1: ((*CARINA, 7.2), (-14, 21, 26, 7.0), (-28, 21, 17, 6.6)),
    1: ((*CARINA, 6.4), (15, 22, 25, 6.1), (30, 24, 15, 5.9), (43, 25, 7, 5.6)),
}
"""Main bronchi by side: -1 right, 1 left; x, y, z and radius of the lumen."""
PULMONARY_ENDS = {-1: (-46.0, 7.0, 6.0), 1: (50.0, 22.0, 14.0)}
"""Where the pulmonary arteries enter the lungs."""
VENOUS_ENDS = {-1: ((-32.0, 2.0, -4.0), (-26.0, 22.0, -24.0)), 1: ((40.0, 0.0, -3.0), (36.0, 24.0, -22.0))}
"""Where the upper and the lower pulmonary veins of a side leave the lung."""

# x, y, z and radius at the corners of each line
TRACHEA = Tube("trachea", "air", ((0, -6, 172, 9.4), (-1, 2, 140, 9.2), (-2, 10, 100, 9.2), (-3, 17, 66, 9),
    (0, 21, 37, 8.8)))  # fmt: skip
_OESOPHAGUS = Tube("oesophagus", "wall", ((3, 10, 172, 7), (4, 18, 130, 7.5), (4, 31, 90, 8), (5, 36, 40, 8),
    (5, 38, 0, 8.5), (7, 33, -50, 9), (13, 22, -85, 9.5), (26, 12, -104, 9)))  # fmt: skip
_AORTA = (
    Tube("ascending aorta", "artery", ((2, -24, -22, 14), (-10, -30, -8, 16.5), (-19, -31, 14, 16),
        (-18, -28, 40, 15.5), (-8, -18, 60, 14.5), (11, -2, 68, 13.5), (23, 17, 62, 13), (26, 33, 45, 12.5),
        (25, 40, 20, 12.2), (23, 42, -10, 12), (19, 39, -50, 11.8), (13, 32, -85, 11.5), (8, 23, -115, 11.2),
        (5, 15, -150, 11), (4, 12, -172, 10.8))),
)  # fmt: skip
_BRANCHES = (
    Tube("brachiocephalic trunk", "artery", ((-7, -17, 62, 7.5), (-12, -10, 82, 6.8), (-22, 2, 104, 6.5))),
    Tube("right subclavian artery", "artery", ((-22, 2, 104, 5.2), (-42, 6, 119, 5), (-70, -6, 121, 4.6),
        (-110, -14, 120, 4.2), (-138, 0, 128, 4)), False),
    Tube("right carotid", "artery", ((-22, 2, 104, 4.6), (-24, 0, 130, 4.2), (-27, -2, 172, 4)), False),
    Tube("left carotid", "artery", ((5, -9, 66, 4.8), (12, 0, 92, 4.4), (22, 2, 125, 4.2), (26, -2, 172, 4))),
    Tube("left subclavian artery", "artery", ((17, 8, 66, 5.8), (23, 17, 90, 5.4), (32, 16, 112, 5.2),
        (48, 6, 121, 5), (72, -6, 121, 4.6), (110, -14, 120, 4.2), (138, 0, 128, 4))),
    Tube("right brachiocephalic vein", "cava", ((-34, -22, 104, 7), (-32, -28, 84, 7.6), (-31, -30, 66, 9))),
    Tube("left brachiocephalic vein", "cava", ((36, -24, 104, 6.5), (26, -37, 88, 6.8), (2, -40, 77, 7),
        (-22, -34, 69, 7.6), (-31, -29, 62, 8.5))),
    Tube("superior vena cava", "cava", ((-31, -30, 68, 9.5), (-34, -26, 40, 10), (-36, -22, 12, 10.5),
        (-36, -18, -12, 12))),
    Tube("right subclavian vein", "vein", ((-34, -22, 104, 6), (-58, -28, 110, 5.6), (-100, -26, 112, 5.2),
        (-138, -8, 123, 5)), False),
    Tube("left subclavian vein", "vein", ((36, -24, 104, 6), (58, -28, 110, 5.6), (100, -26, 112, 5.2),
        (138, -8, 123, 5)), False),
    Tube("right jugular vein", "vein", ((-34, -22, 104, 6.5), (-33, -12, 130, 6.4), (-36, -8, 172, 6)), False),
    Tube("left jugular vein", "vein", ((36, -24, 104, 6), (33, -12, 130, 5.6), (36, -8, 172, 5.4)), False),
    Tube("inferior vena cava", "vein", ((-27, 0, -52, 12), (-25, 4, -74, 12), (-22, 10, -110, 12.5),
        (-20, 14, -172, 12.5))),
    Tube("azygos vein", "vein", ((-6, 44, -150, 3.6), (-8, 47, -60, 4), (-9, 44, 10, 4.4), (-12, 38, 38, 4.6),
        (-24, 22, 49, 5), (-34, -8, 46, 5.2), (-34, -22, 42, 5.2))),
)  # fmt: skip
_PULMONARY = (
    Tube("pulmonary trunk", "pulmonary", ((10, -50, -16, 13), (16, -42, 2, 14), (18, -28, 18, 13.8),
        (17, -16, 23, 13))),
    Tube("right pulmonary artery", "pulmonary", ((17, -16, 23, 12), (2, -6, 19, 11.5), (-18, 2, 13, 11),
        (-36, 6, 9, 10), (-46, 7, 6, 8.8))),
    Tube("left pulmonary artery", "pulmonary", ((17, -16, 23, 12), (28, -4, 28, 11.5), (40, 10, 28, 10.5),
        (50, 22, 14, 9))),
)  # fmt: skip
_VEINS = tuple(
    Tube("pulmonary vein", "return_", ((side * 16 + 4, 6, -14, 8), (*end, 6.6)))
    for side, ends in VENOUS_ENDS.items()
    for end in ends
)


def vessels(anatomy: Anatomy) -> Iterator[tuple[Tube, Points, NDArray[np.float64]]]:
    """The great vessels with their smooth lines and radii in own mm."""
    for group, scale in ((_AORTA, anatomy.aorta), (_BRANCHES, 1.0), (_PULMONARY, anatomy.pulmonary), (_VEINS, 1.0)):
        for vessel in group:
            lifted = group is _AORTA or vessel.name in _ON_THE_ARCH
            yield vessel, *vessel.path(scale, anatomy.arch if lifted else 0, anatomy.unfolding if lifted else 0)


_ON_THE_ARCH = {"brachiocephalic trunk", "left carotid", "left subclavian artery"}


@dataclass(frozen=True)
class Heart:
    """Chambers on a region's lattice, mm; ventricles are their blood, `muscle` holds the left one's wall."""

    region: Region
    envelope: Array
    """Pericardium with the fat under it."""
    muscle: Array
    left_ventricle: Array
    right_ventricle: Array
    left_atrium: Array
    right_atrium: Array

    @classmethod
    def of(cls, grid: Grid) -> "Heart | None":
        """The heart, or None where the grid does not reach it."""
        region = grid.region((-90, -110, -125), (115, 75, 45))
        if region is None:
            return None
        a = grid.anatomy
        base = heart_middle(a)
        turn = np.radians(a.heart_axis)
        # long axis to the left, front and below; second axis across the septum; the third completes them
        long = np.array([0.74 * np.cos(turn) - 0.3 * np.sin(turn), -0.50, -0.45 - 0.5 * np.sin(turn)])
        long /= np.linalg.norm(long)
        across = np.array([0.45, 0.80, 0.0])
        across -= across @ long * long
        across /= np.linalg.norm(across)
        up = np.cross(long, across)
        axes, s = np.stack([long, across, up]), a.heart

        def chamber(place: tuple[float, float, float], radii: tuple[float, float, float]) -> Array:
            return ellipsoid(region.at, base + s * (np.array(place) @ axes), s * np.array(radii), axes)

        def plain(place: tuple[float, float, float], radii: tuple[float, float, float]) -> Array:
            return ellipsoid(region.at, base + s * np.array(place), s * np.array(radii))

        left_wall = chamber((15, 9, 0), (47, 31, 32))
        left = chamber((10, 9, 0), (37, 20.5, 21.5))
        right_wall = union(chamber((2, -20, -3), (43, 26, 36)), plain((-8, -26, 22), (17, 17, 28)), 10)
        right_atrium = plain((-46, -2, 0), (25, 29, 36))
        left_atrium = union(plain((-8, 30, 20), (33, 18, 24)), plain((16, 18, 24), (16, 12, 12)), 8)
        outer = union(union(left_wall, right_wall, 12), union(right_atrium - 2, left_atrium - 2, 8), 14)
        return cls(
            region=region,
            envelope=outer - np.float32(4),
            muscle=union(left_wall, union(right_wall, union(right_atrium, left_atrium) - 2)),
            left_ventricle=left,
            right_ventricle=without(right_wall + 3.5, left_wall, 4),
            left_atrium=left_atrium,
            right_atrium=right_atrium,
        )


def heart_middle(a: Anatomy) -> NDArray[np.float64]:
    """Middle of the heart: it rests on the diaphragm."""
    return np.array([15.0, -28.0, -43.0 + 0.8 * (a.dome_right + 70)])


def bounds(region: Region, heart: Heart | None) -> Array:
    """What keeps the lungs apart: heart, great vessels, airways, oesophagus and spine, grown together."""
    grid = region.grid
    x, y, z = region.at
    middle, width, depth = spine_curve(z)
    # the spine's front and sides; behind it the lungs reach further back than its middle
    u = np.sqrt((x / (width + 3)) ** 2 + ((y - middle - 2) / (depth + 5)) ** 2) - 1
    behind = np.sqrt((x / 27) ** 2 + ((y - middle - 28) / 26) ** 2) - 1
    f = union(u * 18, behind * 26, 6)
    # the pleural sacs nearly meet behind the breastbone, part towards the neck, and round off before and behind
    upper = np.maximum(z - 60, 0)
    parting = np.float32(3) + upper * (0.62 - 0.0005 * (y - 16) ** 2)
    f = union(f, np.abs(x - 3) - np.maximum(parting, 3), 12)
    # fat pads beside the heart's apex, on the diaphragm
    f = union(f, ellipsoid(region.at, (14, -66, -76 + (grid.anatomy.dome_right + 70)), (40, 18, 22)), 16)
    for item, line, radii in [
        *vessels(grid.anatomy),
        (_OESOPHAGUS, *_OESOPHAGUS.path()),
        *((TRACHEA, *airway) for airway in airways(grid.anatomy)),
    ]:
        if item.bounds_lungs:
            _blend(f, region, line, radii + 2.5, 9)
    if heart is not None:
        part = region.holds(heart.region)
        f[part] = union(f[part], heart.envelope, 12)
    return f


def _blend(f: Array, region: Region, line: Points, radii: NDArray[np.float64], blend: float) -> None:
    """Grow a tube into `f` in place, evaluated only around the tube."""
    reach = float(radii.max()) + blend + 4
    for first in range(0, len(line) - 1, 4):
        piece = slice(first, first + 5)
        near = region.grid.region(line[piece].min(0) - reach, line[piece].max(0) + reach)
        if near is None:
            continue
        part = region.holds(near)
        f[part] = union(f[part], tube(near.at, line[piece], radii[piece]), blend)


def paint(canvas: Canvas, heart: Heart | None, tissue: Tissue) -> None:
    """Heart, great vessels and oesophagus; the airways are painted with the lungs."""
    if heart is not None:
        # contrast and plain blood mix in the right heart
        mixed = 0.5 * (tissue.vein + tissue.pulmonary)
        canvas.paint(heart.region, heart.muscle, tissue.myocardium)
        canvas.paint(heart.region, heart.left_ventricle, tissue.artery)
        canvas.paint(heart.region, heart.right_ventricle, mixed)
        canvas.paint(heart.region, heart.left_atrium, tissue.return_)
        canvas.paint(heart.region, heart.right_atrium, mixed)
    canvas.tube(*_OESOPHAGUS.path(), tissue.wall)
    for vessel, line, radii in vessels(canvas.grid.anatomy):
        canvas.tube(line, radii, getattr(tissue, vessel.tissue))


def airways(anatomy: Anatomy) -> Iterator[tuple[Points, NDArray[np.float64]]]:
    """Trachea and main bronchi: lines and radii of the lumen."""
    yield TRACHEA.path(anatomy.airway)
    for corners in MAIN_BRONCHI.values():
        yield Tube("main bronchus", "air", corners).path(anatomy.airway)
