"""The trunk and its hollow: skin, fat, muscles, the cage of ribs, diaphragm and lungs.

Every measure is in own millimetres of the middle-sized person. Outlines are superellipses whose half-width, front
and back follow curves over height.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomogen.phantoms.anatomy import Anatomy
from tomogen.phantoms.grid import Region
from tomogen.phantoms.shapes import Array, bump, common, curve, ellipsoid, ramp, union, without

# height       half-width  front  back   of the ribs' middle surface
CAGE = np.array([
    [-160,      127,        -92,   82],
    [-120,      133,        -97,   91],
    [-80,       135,        -97,   98],
    [-40,       132,        -93,  102],
    [0,         126,        -85,  103],
    [40,        114,        -74,  100],
    [70,         98,        -62,   94],
    [90,         80,        -44,   88],
    [105,        64,        -22,   82],
    [117,        48,          4,   76],
    [130,        26,         30,   68],
])  # fmt: skip

# height       half-width  front  back   of the muscles' outer surface
TRUNK = np.array([
    [-160,      138,       -103,   104],
    [-80,       146,       -107,  115],
    [-30,       149,       -104,  119],
    [20,        153,        -96,  121],
    [60,        157,        -85,  118],
    [95,        160,        -69,  110],
    [120,       161,        -52,  103],
    [150,       162,        -40,   93],
    [170,       162,        -36,   90],
])  # fmt: skip

_SPINE = np.array([
    # height of a vertebra's middle, depth of its middle (y), half-width, half-depth: L2, L1, T12 ... T1, C7, C6, C5
    [-168, 36, 22.5, 16.5], [-141, 42, 21.5, 16.5], [-115, 48, 20.5, 16.0], [-90.5, 54, 19.5, 15.8],
    [-67, 58.5, 18.5, 15.5], [-44.5, 61, 17.5, 15.2], [-22.5, 62.5, 16.8, 14.8], [-1, 62.5, 16.2, 14.2],
    [20, 61.5, 15.6, 13.6], [40, 59, 15.2, 13.0], [59.5, 55, 15.0, 12.2], [78.5, 49.5, 15.2, 11.4],
    [97, 43, 15.8, 10.6], [115, 36, 16.6, 10.0], [132, 29.5, 16.0, 9.6], [148, 25, 15.0, 9.2], [163, 22, 14.5, 9.0],
])  # fmt: skip
VERTEBRAE = _SPINE[:, 0]
"""Height of the vertebrae's middles from L2 up to C5, own mm."""


def spine_curve(z: NDArray[np.float32]) -> tuple[Array, Array, Array]:
    """Depth of the vertebral bodies' middle and their half-width and half-depth at heights z."""
    _, y, width, depth = np.moveaxis(curve(z, VERTEBRAE, _SPINE), -1, 0).astype(np.float32)
    return y, width, depth


def _outline(at: tuple[Array, Array, Array], table: NDArray[np.float64], power: float, grow: float = 0.0) -> Array:
    """Superellipse through the table's half-width, front and back, widened by `grow` mm: rho - 1."""
    x, y, z = at
    _, width, front, back = np.moveaxis(curve(z, table[:, 0], table), -1, 0).astype(np.float32)
    middle, half = (front + back) / 2, (back - front) / 2
    u = (np.abs(x) / (width + np.float32(grow))) ** np.float32(power)
    v = (np.abs(y - middle) / (half + np.float32(grow))) ** np.float32(power)
    rho: Array = (u + v) ** np.float32(1 / power) - 1
    return rho


def cage_around(region: Region) -> tuple[Array, Array]:
    """Distance from the ribs' middle surface in mm, and the angle around it in degrees: 0 in front, 180 behind."""
    x, y, z = region.at
    cage = region.distance(_outline(region.at, CAGE, 2.25))
    _, _, front, back = np.moveaxis(curve(z, CAGE[:, 0], CAGE), -1, 0)
    angle = np.degrees(np.arctan2(np.abs(x) * 0.8, ((front + back) / 2).astype(np.float32) - y))
    return cage, angle.astype(np.float32)


def trunk_around(region: Region) -> Array:
    """Distance from the outer surface of the trunk's muscles in mm."""
    return region.distance(_outline(region.at, TRUNK, 2.4, 7 * (region.grid.anatomy.muscle - 1)))


@dataclass(frozen=True)
class Thorax:
    """The trunk's surfaces on one region's lattice, in mm."""

    body: Array
    """Outer surface of the skin."""
    trunk: Array
    """Outer surface of the muscles."""
    cage: Array
    """Middle surface of the ribs: negative in the hollow."""
    azimuth: Array
    """Angle around the cage's middle in degrees: 0 in front, 180 at the spine, the same on both sides."""
    diaphragm: Array
    """Negative above the diaphragm."""
    hollow: Array
    """The cavity inside ribs and pleura."""

    @classmethod
    def of(cls, region: Region) -> "Thorax":
        """Evaluate the surfaces."""
        a, at = region.grid.anatomy, region.at
        x, y, z = at
        cage, azimuth = cage_around(region)
        trunk = trunk_around(region)
        # fat is thickest at the flanks, thinner over breastbone, back and shoulders
        thick = 0.55 + 0.45 * bump(azimuth, 75, 45) - 0.2 * ramp(z, 40, 110)
        furrow = 0.3 * np.exp(-((x / 17) ** 2)) * ramp(z, 120, 80)
        body: Array = trunk - np.float32(a.fat) * (thick - furrow)
        for side in (-1, 1):
            # the smallest breast lies within the fat of the chest
            mound = ellipsoid(at, (side * 70, -72, -8), (47, 20 + 34 * a.breast + 0.75 * a.fat, 52))
            body = union(body, mound, 26 * min(1, 3 * a.breast))
        dome = _diaphragm(x, y, a)
        return cls(
            body=body,
            trunk=trunk,
            cage=cage,
            azimuth=azimuth,
            diaphragm=(dome - z).astype(np.float32),
            hollow=cage + np.float32(6.5),
        )

    def muscles(self, region: Region) -> Array:
        """Chest wall, pectorals, latissimus, trapezius, muscles of the back and around the shoulder blade."""
        a = region.grid.anatomy
        z = region.at[2]
        angle, m = self.azimuth, np.float32(a.muscle)
        # what lies on the ribs: intercostals, serratus at the side, the erector of the spine beside it
        thick = 6.5 + 5 * m * bump(angle, 100, 28) * ramp(z, -140, -40) + 15 * m * bump(angle, 166, 10)
        wall = common(self.cage - thick, self.trunk)
        # what lies under the fat
        chest = 15 * m * bump(angle, 40, 24) * bump(z, 62, 42)
        back = 17 * m * bump(angle, 118, 26) * ramp(z, -90, 10) * ramp(z, 190, 60)
        nape = 13 * m * bump(angle, 160, 26) * ramp(z, -70, 20)
        shoulder = 26 * m * ramp(z, 70, 125)
        sheet = common(self.trunk, -(self.trunk + (3.5 + chest + back + nape + shoulder)))
        # around the shoulder blade, in and out of it
        blade = np.abs(self.cage - SCAPULA) - 14 * m * bump(angle, 124, 24) * bump(z, 55, 45)
        spread = (np.abs(angle - 122) - 40) * np.float32(1.6)
        blade = common(common(blade, spread, 6), self.trunk + 2)
        neck = ellipsoid(region.at, (0, 48, 150), (78, 46, 62))
        right, left = (ellipsoid(region.at, (side * 146, 14, 128), (34, 38, 44)) for side in (-1, 1))
        arms = union(right, left)
        return union(union(union(wall, sheet, 6), blade, 4), common(union(neck, arms), self.trunk), 3)

    def glands(self, region: Region) -> Array | None:
        """Glandular tissue of the breasts, within their fat; None where there is none."""
        a = region.grid.anatomy
        size = float(np.sqrt(a.gland * min(a.breast, 1)))
        if size < 0.05:
            return None
        x, y, z = region.at
        right, left = (
            ellipsoid(region.at, (side * 72, -88 - 10 * a.breast, -10), (36 * size, 26 * size, 36 * size))
            for side in (-1, 1)
        )
        lobes = 5 * np.sin(x / 4.1) * np.sin(y / 3.7 + 1) * np.sin(z / 5.3 + 2)
        return common(union(right, left) + lobes.astype(np.float32), self.body + 4)

    def lungs(self, mediastinum: Array, region: Region) -> Array:
        """Both lungs: the hollow above the diaphragm, but for what lies between them."""
        x = region.at[0]
        lungs = common(self.hollow, self.diaphragm, 4)
        lungs = without(lungs, mediastinum, 5)
        # a midline that nothing crosses: the pleural sacs never meet
        return common(lungs, 2.4 - np.abs(x - 2))


SCAPULA = 15.0
"""Distance of the shoulder blade from the ribs' middle surface, mm."""


def _diaphragm(x: Array, y: Array, a: Anatomy) -> Array:
    """Height of the diaphragm: two domes that fall to the ribs, most of all behind."""
    domes: list[Array] = []
    for side, top in ((-1, a.dome_right), (1, a.dome_right + a.dome_left)):
        out = (side * x - 64).astype(np.float32)
        u = np.where(out > 0, out / 66, out / 140)
        v = (y + 2) / np.float32(92)
        r = np.sqrt(u * u + v * v)
        fall = np.float32(a.dome_curve) * (48 * r ** np.float32(2.3) + 9 * r)
        domes.append(np.float32(top) - fall - 0.16 * np.maximum(y, 0))
    return -union(-domes[0], -domes[1], 12)


def fissures(region: Region) -> Array:
    """Distance from the nearest fissure between lobes, mm (Hayashi et al., Radiographics 2001;21:861)."""
    x, y, z = region.at
    oblique = (z - oblique_height(y) - 0.05 * np.abs(x)) * np.float32(0.77)
    horizontal = np.abs(z - (6 - 0.06 * y + 5 * np.sin(y / 45) - 0.05 * np.abs(x + 60)))
    f = np.abs(oblique)
    middle = np.where((x < 0) & (oblique > 0), horizontal, np.float32(1e3))
    return np.minimum(f, middle).astype(np.float32)


def oblique_height(y: NDArray[np.floating]) -> NDArray[np.floating]:
    """Height of the oblique fissure at depth y: from the fourth rib behind to the diaphragm in front."""
    height: NDArray[np.floating] = 54 - 0.82 * (84 - y)
    return height
