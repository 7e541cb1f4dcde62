"""Precision, recall, density and coverage: whether each set lies among the other's nearest neighbours."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import UsageFault
from tomogen.evaluation.distances.rows import Rows, checked

BLOCK = 2**22
"""Distances held at once; of each a few numbers (some 0.2 GB)."""


class PRDC(NamedTuple):
    """Four shares of two sets."""

    precision: float
    """Made rows within a real row's radius: how many look real."""
    recall: float
    """Real rows within a made row's radius: how much of the real is covered by the made."""
    density: float
    """Real radii that hold a made row, over k: precision that an outlier cannot lift. May exceed 1."""
    coverage: float
    """Real rows whose radius holds a made row: recall that an outlier cannot lift."""

    @property
    def f_score(self) -> float:
        """Harmonic mean of precision and recall; 0 if both are."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def prdc(real: "NDArray[Any]", made: "NDArray[Any]", k: int = 5, or_equal: bool = False) -> PRDC:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

    A row's radius is its distance to the k-th neighbour in its own set `(n, d)`, itself not counted. Another lies
    within when nearer than that: strictly, as Naeem's code has it, or `or_equal`, as Kynkaanniemi's. Every comparison
    comes out as by sums of squared differences in float64: ties of copied rows are ties, and nothing cancels.

    Raises:
        DataInvalid: widths differ, NaN, a set without more than k rows.
        UsageFault: k below 1.
    """
    if k < 1:
        raise UsageFault(f"neighbours are counted from 1, not {k}")
    x, y = checked(real, made, k + 1)
    real_radius, made_radius = _radii(x, k), _radii(y, k)
    held = np.zeros(len(y), dtype=np.int64)
    recalled, covered = 0, 0
    for block in _blocks(x, y):
        inside = block.within(real_radius[block.rows, None], or_equal)
        held += inside.sum(axis=0)
        covered += int(inside.any(axis=1).sum())
        recalled += int(block.within(made_radius[None], or_equal).any(axis=1).sum())
    return PRDC(
        precision=float((held > 0).mean()),
        recall=recalled / len(x),
        density=float(held.sum() / (k * len(y))),
        coverage=covered / len(x),
    )


class _Block(NamedTuple):
    """Squared distances of some rows of x to all of y: by a matrix product, and exactly where that leaves a doubt."""

    x: Rows
    y: Rows
    rows: slice
    """Which rows of x."""
    squares: Rows
    """|x|^2 + |y|^2 - 2 x.y of rows about their common mean `(rows, m)`."""
    doubt: Rows
    """How far off it may be."""

    def exact(self, asked: NDArray[np.bool_]) -> Rows:
        """Sums of squared differences of the pairs that are asked for."""
        i, j = np.nonzero(asked)
        i += self.rows.start
        found = np.empty(len(i))
        step = max(1, BLOCK // self.x.shape[1])
        for start in range(0, len(i), step):
            part = slice(start, start + step)
            found[part] = np.square(self.x[i[part]] - self.y[j[part]]).sum(axis=1)
        return found

    def within(self, radius: Rows, or_equal: bool) -> NDArray[np.bool_]:
        """Which pairs are nearer than the squared radius, or as near `(rows, m)`."""
        compare = np.less_equal if or_equal else np.less
        unsure = np.abs(self.squares - radius) <= self.doubt
        inside: NDArray[np.bool_] = compare(self.squares, radius)
        inside[unsure] = compare(self.exact(unsure), np.broadcast_to(radius, unsure.shape)[unsure])
        return inside


def _blocks(x: Rows, y: Rows) -> Iterator[_Block]:
    """Successive rows of x against all of y."""
    centre = x.mean(axis=0)
    a, b = x - centre, y - centre
    a_norm, b_norm = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    width = x.shape[1]
    epsilon = 8 * np.finfo(np.float64).eps
    off = epsilon * np.sqrt(width) * max(np.abs(x).max(), np.abs(y).max())  # of a row from taking the centre off
    step = max(1, BLOCK // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        reach = a_norm[rows, None] + b_norm
        squares = a_norm[rows, None] ** 2 + b_norm**2 - 2 * (a[rows] @ b.T)
        # A sum of d products is off by at most d epsilon times their sizes (Higham 2002, Section 3.1).
        yield _Block(x, y, rows, squares, epsilon * (width + 8) * reach**2 + off * (reach + off))


def _radii(rows: Rows, k: int) -> Rows:
    """Squared distance of each row to its k-th neighbour."""
    found = np.empty(len(rows))
    for block in _blocks(rows, rows):
        squares = block.squares
        squares[np.arange(len(squares)), np.arange(block.rows.start, block.rows.stop)] = np.inf
        furthest = np.partition(squares + block.doubt, k - 1, axis=1)[:, k - 1 : k]
        candidates = squares - block.doubt <= furthest
        nearest = np.full_like(squares, np.inf)
        nearest[candidates] = block.exact(candidates)
        found[block.rows] = np.partition(nearest, k - 1, axis=1)[:, k - 1]
    return found
