"""Frechet distance between two sets of features, through the rows and never through a d x d matrix root."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from tomogen.errors import DataInvalid, Reason
from tomogen.evaluation.distances.rows import Rows, checked

ROUNDING = 1e-12
"""Share of both traces below which the covariances' part is rounding, and nothing."""


def frechet(real: "NDArray[Any]", made: "NDArray[Any]") -> float:
    """Squared Frechet (2-Wasserstein) distance of the Gaussians fitted to `real (n, d)` and `made (m, d)`.

    |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), the covariances with n - 1 (Heusel et al. 2017, Section 3).
    The trace of the root is the sum of singular values of A1 A2^T, A the centred rows / sqrt(n - 1): exact also where
    a covariance is singular, as it is when n <= d. A set of more rows than features enters by the triangle of its
    QR decomposition, so the cost is that of the smaller of n and d. Equal sets are 0 apart, and nothing is below it.

    Raises:
        DataInvalid: widths differ, a set has fewer than 2 rows, NaN.
    """
    x, y = checked(real, made, 2)
    a, b = _root(x), _root(y)
    traces = float(np.square(a).sum() + np.square(b).sum())
    spread = traces - 2 * float(np.linalg.svd(a @ b.T, compute_uv=False).sum())
    shift = float(np.square(x.mean(axis=0) - y.mean(axis=0)).sum())
    return shift + (spread if spread > ROUNDING * traces else 0.0)


def extrapolated(
    real: "NDArray[Any]",
    made: "NDArray[Any]",
    real_groups: Sequence[str] | None = None,
    made_groups: Sequence[str] | None = None,
    sizes: int = 15,
    seed: int = 0,
) -> float:
    """Frechet distance at infinite n: the intercept of a line through distances of subsets over 1 / n.

    Chong and Forsyth 2020 (Section 3), with both sets thinned alike, for both bias it here. Subsets run from half of
    the sets to all; groups (patients) enter or stay out whole. May fall below 0.

    Raises:
        DataInvalid: as `frechet`; or fewer than 4 rows or groups in a set.
    """
    x, y = checked(real, made, 4)
    members = _members(real_groups, len(x), "real"), _members(made_groups, len(y), "made")
    draw = np.random.RandomState(seed)
    orders = tuple([groups[i] for i in draw.permutation(len(groups))] for groups in members)
    inverse, found = [], []
    for share in np.linspace(0.5, 1, sizes):
        chosen = [np.concatenate(order[: max(2, round(share * len(order)))]) for order in orders]
        inverse.append((len(x) / len(chosen[0]) + len(y) / len(chosen[1])) / 2)
        found.append(frechet(x[chosen[0]], y[chosen[1]]))
    return float(np.polynomial.Polynomial.fit(inverse, found, 1)(0.0))


def _members(groups: Sequence[str] | None, rows: int, name: str) -> list[NDArray[np.intp]]:
    """Rows of each group; without groups, each row for itself."""
    labels = np.arange(rows) if groups is None else np.asarray(groups)
    if len(labels) != rows:
        raise DataInvalid(f"{len(labels)} groups for {rows} {name} rows", reason=Reason.UNPAIRED)
    found = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if len(found) < 4:
        raise DataInvalid(f"{len(found)} groups in the {name} set; 4 or more carry a line", reason=Reason.TOO_SMALL)
    return found


def _root(rows: Rows) -> Rows:
    """A with A^T A the covariance `(d, d)`: `(min(n, d), d)`."""
    centred: Rows = (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)
    if len(rows) <= rows.shape[1]:
        return centred
    (triangle,) = linalg.qr(centred, mode="r", overwrite_a=True, check_finite=False)
    return np.asarray(triangle[: rows.shape[1]], dtype=np.float64)
