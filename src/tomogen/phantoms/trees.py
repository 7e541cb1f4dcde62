"""Bronchi, pulmonary arteries and veins: three trees that fill the lungs.

A tree halves the lung again and again, as the airways do: every branch runs a part of the way to the middle of
the space that it serves, which is then cut in two across its longest extent (after Tawhai, Pullan & Hunter, Ann
Biomed Eng 2000;28:793). Radii follow Murray's law, r^3 = r1^3 + r2^3 (Proc Natl Acad Sci 1926;12:207), with flow
shared out by the space served; for the airways that agrees with the shrinking by 2^(-1/3) per generation in
Weibel's model (Morphometry of the Human Lung, 1963). An artery runs beside every bronchus and goes on beyond it;
veins run between them.

The trees are grown once, in the middle-sized person, and bent smoothly into every other.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tomogen.phantoms.anatomy import MODES, Anatomy
from tomogen.phantoms.mediastinum import MAIN_BRONCHI, PULMONARY_ENDS, VENOUS_ENDS
from tomogen.phantoms.shapes import Points, curve
from tomogen.phantoms.thorax import CAGE, oblique_height

ENDS = 700
"""Ends of each tree in each lung."""
_ADVANCE = 0.42
"""Share of the way to the middle of its space that a branch runs."""


@dataclass(frozen=True)
class Tree:
    """Branches as cones: `starts`, `ends (n, 3)` in own mm; radii at both; generation counted from the hilum."""

    starts: Points
    ends: Points
    radii: NDArray[np.float64]
    """`(n, 2)` in mm: at the start and at the end."""
    generation: NDArray[np.int64]


@lru_cache(maxsize=1)
def template() -> dict[str, Tree]:
    """The middle-sized person's trees: `airway`, `artery`, `vein`."""
    airway, artery, vein = _Growth(), _Growth(), _Growth()
    for side in (-1, 1):
        space = _lung_points(side, ENDS, 0)
        lobes = _lobes(space)
        bronchus = np.array(MAIN_BRONCHI[side][-1])
        before = np.array(MAIN_BRONCHI[side][-2])
        heading = bronchus[:3] - before[:3]
        root = airway.root(bronchus[:3], heading, bronchus[3])
        if side < 0:
            # right: the upper lobe's bronchus leaves first, the intermediate one serves middle and lower lobe
            upper = airway.branch(root, (-42, 20, 22), space[lobes == 0])
            between = airway.branch(root, (-38, 22, -6), space[lobes > 0])
            middle = airway.branch(between, (-50, 4, -20), space[lobes == 1])
            lower = airway.branch(between, (-44, 30, -26), space[lobes == 2])
            tops = [(upper, 0), (middle, 1), (lower, 2)]
        else:
            upper = airway.branch(root, (54, 14, 12), space[lobes == 0])
            lower = airway.branch(root, (50, 32, -16), space[lobes == 2])
            tops = [(upper, 0), (lower, 2)]
        for node, lobe in tops:
            airway.fill(node, space[lobes == lobe])
        artery.follow(airway, root, np.array(PULMONARY_ENDS[side]), 8.8)
        space = _lung_points(side, ENDS, 1)
        lobes = _lobes(space)
        for end, served in zip(VENOUS_ENDS[side], (lobes < 2, lobes == 2), strict=True):
            root = vein.root(np.array(end), np.array([side, 0, 0.2]), 7.2)
            vein.fill(root, space[served])
    return {"airway": airway.tree(), "artery": artery.tree(), "vein": vein.tree()}


def bent(name: str, anatomy: Anatomy) -> Tree:
    """A tree of this person, in LPS mm."""
    tree = template()[name]
    a = anatomy
    scale = a.airway if name == "airway" else a.pulmonary
    starts, ends = (a.place(_sway(points, a, name == "vein")) for points in (tree.starts, tree.ends))
    return Tree(starts, ends, tree.radii * scale, tree.generation)


def _sway(points: Points, a: Anatomy, vein: bool) -> Points:
    """Bend a tree by a few long waves, and the lung's base to the height of the diaphragm; the hilum stays."""
    hilum = np.array([46.0, 12.0, 4.0])
    away = np.linalg.norm((points * [1, 1, 1] - np.where(points[:, :1] < 0, hilum * [-1, 1, 1], hilum)), axis=1)
    free = np.clip((away - 12) / 60, 0, 1)[:, None]
    moved = points.copy()
    turn = 2 * np.pi * np.array([0, 0.381966, 0.763932, 0.145898, 0.527864])
    for mode in range(MODES):
        wave = 2 * np.pi / (150 - 18 * mode)
        direction = np.array([np.cos(turn[mode] * 3), np.sin(turn[mode] * 5), np.cos(turn[mode] * 7 + 1)])
        phase = (points * wave) @ (direction / np.linalg.norm(direction)) + np.where(points[:, 0] < 0, 2.1, 0) + vein
        amplitude = a.waves[:, mode, 0] * 3.2
        moved += free * amplitude * np.sin(phase[:, None] + a.waves[:, mode, 1])
    down = np.clip((0 - points[:, 2]) / 80, 0, 1.2)
    dome = np.where(points[:, 0] < 0, a.dome_right + 70, a.dome_right + 70 + a.dome_left + 13)
    moved[:, 2] += down * dome
    return moved


class _Growth:
    """A tree as it grows: nodes with their parent, place and the share of the lung that they serve."""

    def __init__(self) -> None:
        self.places: list[NDArray[np.float64]] = []
        self.parents: list[int] = []
        self.served: list[int] = []
        self.headings: list[NDArray[np.float64]] = []
        self.calibre: list[float] = []
        """Radius at the root of each node's tree."""

    def root(self, place: NDArray[np.float64], heading: NDArray[np.float64], radius: float) -> int:
        return self._add(-1, np.asarray(place, dtype=np.float64), heading, ENDS, radius)

    def branch(self, parent: int, place: tuple[float, float, float], space: Points) -> int:
        end = np.array(place, dtype=np.float64)
        return self._add(parent, end, end - self.places[parent], len(space), self.calibre[parent])

    def fill(self, node: int, space: Points) -> None:
        """Grow on from `node` until every point of `space` has an end near it."""
        waiting = [(node, space, 0)]
        while waiting:
            parent, points, depth = waiting.pop()
            middle = points.mean(0)
            spread = points - middle
            longest = np.linalg.eigh(spread.T @ spread)[1][:, 2]
            along = spread @ longest
            order = np.argsort(along)
            # where the space is long, it is cut off the middle, so that branches are of unlike size
            cut = int(np.clip(round(len(points) * (0.5 if depth % 2 else 0.38)), 1, len(points) - 1))
            for half in (points[order[:cut]], points[order[cut:]]):
                child = self._step(parent, half, _ADVANCE if len(half) > 1 else 0.95)
                if len(half) > 1:
                    waiting.append((child, half, depth + 1))

    def _step(self, parent: int, points: Points, advance: float) -> int:
        start, heading = self.places[parent], self.headings[parent]
        way = points.mean(0) - start
        length = float(np.linalg.norm(way)) * advance
        direction = way / (np.linalg.norm(way) + 1e-9) + 0.35 * heading / (np.linalg.norm(heading) + 1e-9)
        direction /= np.linalg.norm(direction)
        end = start + direction * float(np.clip(length, 3.0, 42.0))
        return self._add(parent, end, end - start, len(points), self.calibre[parent])

    def follow(self, airway: "_Growth", root: int, start: NDArray[np.float64], radius: float) -> None:
        """Grow beside the airways that leave `root`, from where the artery enters the lung."""
        mine = {root: self._add(-1, start, airway.headings[root], ENDS, radius)}
        for node in range(root + 1, len(airway.places)):
            above = airway.parents[node]
            if above not in mine:
                continue
            share = (airway.served[node] / ENDS) ** (1 / 3)
            ahead = airway.headings[node] / (np.linalg.norm(airway.headings[node]) + 1e-9)
            beside = np.array([np.sign(start[0]) * 0.8, -0.35, 0.6])
            beside = beside - (beside @ ahead) * ahead
            gap = (radius + airway.calibre[node]) * share + 1.2
            place = airway.places[node] + beside / (np.linalg.norm(beside) + 1e-9) * gap
            mine[node] = self._add(mine[above], place, place - self.places[mine[above]], airway.served[node], radius)

    def tree(self) -> Tree:
        parents = np.array(self.parents)
        places = np.array(self.places)
        radii = np.array(self.calibre) * (np.array(self.served) / ENDS) ** (1 / 3)
        radii[parents < 0] = np.array(self.calibre)[parents < 0]
        generation = np.zeros(len(parents), dtype=np.int64)
        for node, parent in enumerate(parents):
            generation[node] = 0 if parent < 0 else generation[parent] + 1
        own = np.flatnonzero(parents >= 0)
        above = parents[own]
        # a branch keeps its calibre, but the last ones taper
        last = np.array(self.served)[own] <= 1
        first = np.minimum(radii[own] * 1.12, radii[above])
        cones = np.stack([first, np.where(last, 0.7 * radii[own], radii[own] * 0.95)], 1)
        # bent like branches, not like wire: each is three pieces of a curve that leaves along its parent
        start, end = places[above], places[own]
        lead = np.array(self.headings)[above]
        length = np.linalg.norm(end - start, axis=1, keepdims=True)
        lead = lead / (np.linalg.norm(lead, axis=1, keepdims=True) + 1e-9)
        knee = start + 0.42 * length * (0.55 * lead + 0.45 * (end - start) / (length + 1e-9))
        steps = np.linspace(0, 1, 4)
        line = [(1 - t) ** 2 * start + 2 * t * (1 - t) * knee + t * t * end for t in steps]
        calibre = [cones[:, :1] + (cones[:, 1:] - cones[:, :1]) * t for t in steps]
        return Tree(
            np.concatenate(line[:-1]),
            np.concatenate(line[1:]),
            np.concatenate([np.hstack(pair) for pair in pairwise(calibre)]),
            np.tile(generation[own], 3),
        )

    def _add(
        self, parent: int, place: NDArray[np.float64], heading: NDArray[np.float64], served: int, calibre: float
    ) -> int:
        self.parents.append(parent)
        self.places.append(place)
        self.headings.append(np.asarray(heading, dtype=np.float64))
        self.served.append(served)
        self.calibre.append(calibre)
        return len(self.places) - 1


def _lung_points(side: int, count: int, shift: int) -> Points:
    """`count` places spread evenly over the middle-sized person's lung (1 left), inside its surface (Halton)."""
    index = np.arange(20 + shift * 7919, 20 + shift * 7919 + count * 6)
    u, v, w = (_radical(index, prime) for prime in (2, 3, 5))
    p = np.stack([side * (6 + 124 * u), -96 + 200 * v, -135 + 250 * w], 1)
    _, half, front, back = np.moveaxis(curve(p[:, 2], CAGE[:, 0], CAGE), -1, 0)
    middle, deep = (front + back) / 2, (back - front) / 2
    rho = (np.abs(p[:, 0]) / (half - 9)) ** 2.25 + (np.abs(p[:, 1] - middle) / (deep - 9)) ** 2.25
    x, y, z = p.T
    dome = np.where(side < 0, -70, -83) - 45 * (np.hypot((np.abs(x) - 64) / 66, (y + 2) / 92)) ** 2.3 - 0.16 * y.clip(0)
    heart = ((x - 18) / (64 if side > 0 else 62)) ** 2 + ((y + 26) / 54) ** 2 + ((z + 44) / 52) ** 2
    vessels = np.abs(x) - np.interp(z, [20, 60, 90], [38, 34, 24])
    spine = np.hypot(x / 32, (y - 75) / 46)
    inside = (rho < 1) & (z > dome + 6) & (heart > 1) & (vessels > 0) & (spine > 1)
    found: Points = p[inside][:count]
    return found


def _radical(index: NDArray[np.int64], base: int) -> NDArray[np.float64]:
    """Radical inverse: the Halton sequence in one dimension."""
    value, scale, rest = np.zeros(len(index)), 1.0, index.copy()
    while rest.any():
        scale /= base
        value += scale * (rest % base)
        rest //= base
    return value


def _lobes(points: Points) -> NDArray[np.int64]:
    """0 upper, 1 middle (right side only), 2 lower lobe of each place."""
    x, y, z = points.T
    lower = z < oblique_height(y) + 0.05 * np.abs(x)
    middle = ~lower & (x < 0) & (z < 6)
    return np.where(lower, 2, np.where(middle, 1, 0))
