"""Precision, recall, density and coverage: whether each set lies among the other's nearest neighbours."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from tomogen.errors import UsageFault
from tomogen.evaluation.distances.rows import Rows, checked

BLOCK = 2**22
"""Distances held at once (32 MiB)."""


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
    within when nearer than that: strictly, as Naeem's code has it, or `or_equal`, as Kynkaanniemi's. Squared distances
    are sums of squared differences in float64: ties of copied rows are ties, and nothing cancels.

    Raises:
        DataInvalid: widths differ, NaN, a set without more than k rows.
        UsageFault: k below 1.
    """
    if k < 1:
        raise UsageFault(f"neighbours are counted from 1, not {k}")
    x, y = checked(real, made, k + 1)
    within = np.less_equal if or_equal else np.less
    real_radius, made_radius = _radii(x, k), _radii(y, k)
    held = np.zeros(len(y), dtype=np.int64)
    recalled, covered = 0, 0
    for rows, squares in _distances(x, y):
        inside = within(squares, real_radius[rows, None])
        held += inside.sum(axis=0)
        covered += int(inside.any(axis=1).sum())
        recalled += int(within(squares, made_radius).any(axis=1).sum())
    return PRDC(
        precision=float((held > 0).mean()),
        recall=recalled / len(x),
        density=float(held.sum() / (k * len(y))),
        coverage=covered / len(x),
    )


def _radii(rows: Rows, k: int) -> Rows:
    """Squared distance of each row to its k-th neighbour."""
    found = np.empty(len(rows))
    for part, squares in _distances(rows, rows):
        squares[np.arange(len(squares)), np.arange(part.start, part.stop)] = np.inf
        found[part] = np.partition(squares, k - 1, axis=1)[:, k - 1]
    return found


def _distances(x: Rows, y: Rows) -> Iterator[tuple[slice, Rows]]:
    """Squared distances `(rows, m)` of successive rows of x to all of y."""
    step = max(1, BLOCK // len(y))
    for start in range(0, len(x), step):
        part = slice(start, min(start + step, len(x)))
        yield part, cdist(x[part], y, "sqeuclidean")
