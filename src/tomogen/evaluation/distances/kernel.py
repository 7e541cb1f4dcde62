"""Kernel distances (maximum mean discrepancy) between two sets of features: KID, Gaussian, linear.

Each is a mean over pairs within the sets less a mean over pairs across them, under one of three estimators
(Gretton et al. 2012): `unbiased` leaves a row's pair with itself out of the two own means; `biased` leaves nothing out;
`u_statistic` leaves the diagonal out of the cross mean too, and takes sets of one size.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

from tomogen.errors import DataInvalid, Reason, UsageFault
from tomogen.evaluation.distances.rows import Rows, checked

Estimator = Literal["unbiased", "biased", "u_statistic"]


class Grams(NamedTuple):
    """The kernel of every pair: a distance over resampled rows is read off these, no kernel taken again."""

    real: Rows
    """`(n, n)`"""
    made: Rows
    """`(m, m)`"""
    cross: Rows
    """`(n, m)`"""


class Subsets(NamedTuple):
    """KID over random subsets."""

    mean: float
    std: float
    """Standard deviation over subsets, with their number as divisor."""


def polynomial(real: "NDArray[Any]", made: "NDArray[Any]") -> Grams:
    """(x.y / d + 1)^3 of all pairs of `real (n, d)` and `made (m, d)`: the kernel of KID."""
    x, y = checked(real, made, 1)
    return Grams(*((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))))


def gaussian(real: "NDArray[Any]", made: "NDArray[Any]", sigma: float) -> Grams:
    """exp(-|x - y|^2 / (2 sigma^2)) of all pairs."""
    x, y = checked(real, made, 1)
    if not sigma > 0:
        raise UsageFault(f"a Gaussian kernel has a sigma above 0, not {sigma:g}")
    return Grams(*(np.exp(cdist(a, b, "sqeuclidean") / (-2 * sigma**2)) for a, b in ((x, x), (y, y), (x, y))))


def linear(real: "NDArray[Any]", made: "NDArray[Any]") -> Grams:
    """x.y of all pairs."""
    x, y = checked(real, made, 1)
    return Grams(x @ x.T, y @ y.T, x @ y.T)


def mmd(grams: Grams, estimator: Estimator = "unbiased") -> float:
    """Squared maximum mean discrepancy; an estimate without bias may fall below 0.

    Raises:
        DataInvalid: too few rows for the estimator, or sets of unlike size where it takes one size.
        UsageFault: there is no such estimator.
    """
    n, m = grams.cross.shape
    if estimator == "biased":
        return float(grams.real.mean() + grams.made.mean() - 2 * grams.cross.mean())
    if estimator not in ("unbiased", "u_statistic"):
        raise UsageFault(f"no estimator {estimator!r}; there are: unbiased, biased, u_statistic")
    if min(n, m) < 2:
        raise DataInvalid(f"{min(n, m)} rows in one set; {estimator} takes 2 or more", reason=Reason.TOO_SMALL)
    own = _off_diagonal(grams.real) + _off_diagonal(grams.made)
    if estimator == "unbiased":
        return own - 2 * float(grams.cross.mean())
    if n != m:
        raise DataInvalid(f"u_statistic pairs sets of one size, not {n} and {m} rows", reason=Reason.UNPAIRED)
    return own - 2 * _off_diagonal(grams.cross)


def kid(real: "NDArray[Any]", made: "NDArray[Any]", estimator: Estimator = "unbiased") -> float:
    """Kernel inception distance (Binkowski et al. 2018) of `real (n, d)` and `made (m, d)`, not scaled by 1000.

    The unbiased one has mean 0 for two draws of one law whatever n, which no Frechet distance has.
    """
    return mmd(polynomial(real, made), estimator)


def kid_subsets(
    real: "NDArray[Any]", made: "NDArray[Any]", subsets: int = 100, size: int = 1000, seed: int = 2020
) -> Subsets:
    """KID as torch-fidelity gives it: mean and spread of the unbiased one over subsets drawn without replacement.

    For each subset first its real, then its made rows, by numpy's legacy generator.

    Raises:
        DataInvalid: a set has fewer than `size` rows.
    """
    x, y = checked(real, made, size)
    grams = polynomial(x, y)
    draw = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        i, j = draw.choice(len(x), size, replace=False), draw.choice(len(y), size, replace=False)
        found.append(mmd(Grams(grams.real[np.ix_(i, i)], grams.made[np.ix_(j, j)], grams.cross[np.ix_(i, j)])))
    return Subsets(float(np.mean(found)), float(np.std(found)))


def mmd_rbf(
    real: "NDArray[Any]", made: "NDArray[Any]", sigma: float | None = None, estimator: Estimator = "unbiased"
) -> float:
    """Squared MMD under a Gaussian kernel; without a sigma that of the median distance (`median_distance`)."""
    return mmd(gaussian(real, made, median_distance(real, made) if sigma is None else sigma), estimator)


def median_distance(real: "NDArray[Any]", made: "NDArray[Any]") -> float:
    """Median distance among the pooled rows, each pair once: the usual sigma (Gretton et al. 2012, Section 8).

    Raises:
        DataInvalid: it is 0: more than half of the pairs are equal rows.
    """
    x, y = checked(real, made, 1)
    median = float(np.median(pdist(np.concatenate([x, y]))))
    if median == 0:
        raise DataInvalid(
            "half of the feature rows are equal: no median distance", reason=Reason.CONSTANT, fix="give a sigma"
        )
    return median


def mmd_linear(
    real: "NDArray[Any]", made: "NDArray[Any]", estimator: Estimator = "unbiased", batch: int | None = None
) -> float:
    """Squared MMD under a linear kernel. It sees means alone: biased, it is |mean difference|^2.

    `unbiased` is MONAI's MMDMetric. `biased` with a `batch` is the notebook of 3dbraingen: the mean over successive
    batches, which grows as they shrink; rows that fill no batch are left out.

    Raises:
        DataInvalid: unlike sets or fewer rows than a batch.
    """
    if batch is None:
        return mmd(linear(real, made), estimator)
    x, y = checked(real, made, batch)
    starts = range(0, min(len(x), len(y)) - batch + 1, batch)
    return float(np.mean([mmd(linear(x[i : i + batch], y[i : i + batch]), estimator) for i in starts]))


def _off_diagonal(gram: Rows) -> float:
    """Mean of a square matrix without its diagonal."""
    n = len(gram)
    return float((gram.sum() - np.trace(gram)) / (n * (n - 1)))
