"""Kernel distances (maximum mean discrepancy) between two sets of features: KID, Gaussian, linear.

Each is a mean over pairs within the sets less a mean over pairs across them, under one of three estimators
(Gretton et al. 2012): `unbiased` leaves a row's pair with itself out of the two own means; `biased` leaves nothing out;
`u_statistic` leaves the diagonal out of the cross mean too, and takes sets of one size.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from tomogen.errors import DataInvalid, Reason, UsageFault
from tomogen.evaluation.distances.rows import Rows, checked

Estimator = Literal["unbiased", "biased", "u_statistic"]

Kernel = Callable[[Rows, Rows], Rows]
"""`(n, d)` and `(m, d)` to `(n, m)`."""

BLOCK = 2**22
"""Kernel values held at once (32 MiB)."""


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
    return _grams(_cubic, *checked(real, made, 1))


def gaussian(real: "NDArray[Any]", made: "NDArray[Any]", sigma: float) -> Grams:
    """exp(-|x - y|^2 / (2 sigma^2)) of all pairs.

    Raises:
        UsageFault: sigma is not above 0.
    """
    return _grams(_bell(sigma), *_centred(*checked(real, made, 1)))


def linear(real: "NDArray[Any]", made: "NDArray[Any]") -> Grams:
    """x.y of all pairs."""
    return _grams(_dot, *checked(real, made, 1))


def mmd(grams: Grams, estimator: Estimator = "unbiased") -> float:
    """Squared maximum mean discrepancy; an estimate without bias may fall below 0.

    Raises:
        DataInvalid: too few rows for the estimator, or sets of unlike size where it takes one size.
        UsageFault: there is no such estimator.
    """
    n, m = grams.cross.shape
    return _combined([(float(gram.sum()), float(np.trace(gram))) for gram in grams], n, m, estimator)


def kid(real: "NDArray[Any]", made: "NDArray[Any]", estimator: Estimator = "unbiased") -> float:
    """Kernel inception distance (Binkowski et al. 2018) of `real (n, d)` and `made (m, d)`, not scaled by 1000.

    The unbiased one has mean 0 for two draws of one law whatever n, which no Frechet distance has.
    """
    return _of_rows(_cubic, *checked(real, made, 1), estimator)


def kid_subsets(
    real: "NDArray[Any]", made: "NDArray[Any]", subsets: int = 100, size: int = 1000, seed: int = 2020
) -> Subsets:
    """KID as torch-fidelity gives it: mean and spread of the unbiased one over subsets drawn without replacement.

    For each subset first its real, then its made rows, by numpy's legacy generator.

    Raises:
        DataInvalid: a set has fewer than `size` rows.
    """
    x, y = checked(real, made, size)
    draw = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        i, j = draw.choice(len(x), size, replace=False), draw.choice(len(y), size, replace=False)
        found.append(kid(x[i], y[j]))
    return Subsets(float(np.mean(found)), float(np.std(found)))


def mmd_rbf(
    real: "NDArray[Any]", made: "NDArray[Any]", sigma: float | None = None, estimator: Estimator = "unbiased"
) -> float:
    """Squared MMD under a Gaussian kernel; without a sigma that of the median distance (`median_distance`)."""
    x, y = checked(real, made, 1)
    kernel = _bell(median_distance(x, y) if sigma is None else sigma)
    return _of_rows(kernel, *_centred(x, y), estimator)


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
    x, y = checked(real, made, batch or 1)
    if batch is None:
        return _of_rows(_dot, x, y, estimator)
    starts = range(0, min(len(x), len(y)) - batch + 1, batch)
    return float(np.mean([_of_rows(_dot, x[i : i + batch], y[i : i + batch], estimator) for i in starts]))


def _cubic(x: Rows, y: Rows) -> Rows:
    base = x @ y.T / x.shape[1] + 1
    cubes: Rows = base * base * base  # numpy takes a power twenty times as slowly
    return cubes


def _dot(x: Rows, y: Rows) -> Rows:
    dots: Rows = x @ y.T
    return dots


def _bell(sigma: float) -> Kernel:
    """The Gaussian kernel, for rows about a common centre: there squared distances by products lose nothing."""
    if not sigma > 0:
        raise UsageFault(f"a Gaussian kernel has a sigma above 0, not {sigma:g}")

    def kernel(x: Rows, y: Rows) -> Rows:
        squares = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1) - 2 * (x @ y.T)
        bells: Rows = np.exp(np.maximum(squares, 0) / (-2 * sigma**2))
        return bells

    return kernel


def _centred(x: Rows, y: Rows) -> tuple[Rows, Rows]:
    centre = x.mean(axis=0)
    return x - centre, y - centre


def _grams(kernel: Kernel, x: Rows, y: Rows) -> Grams:
    return Grams(kernel(x, x), kernel(y, y), kernel(x, y))


def _of_rows(kernel: Kernel, x: Rows, y: Rows, estimator: Estimator) -> float:
    """As `mmd` of the Gram matrices, of which only some rows are held at once."""
    return _combined([_summed(kernel, a, b) for a, b in ((x, x), (y, y), (x, y))], len(x), len(y), estimator)


def _summed(kernel: Kernel, x: Rows, y: Rows) -> tuple[float, float]:
    """Sum and trace of a Gram matrix."""
    total, trace = 0.0, 0.0
    step = max(1, BLOCK // len(y))
    for start in range(0, len(x), step):
        gram = kernel(x[start : start + step], y)
        total += float(gram.sum())
        trace += float(np.trace(gram, offset=start))
    return total, trace


def _combined(sums: Sequence[tuple[float, float]], n: int, m: int, estimator: Estimator) -> float:
    """The estimate from sum and trace of the kernel within n real rows, within m made ones, and across."""
    if estimator not in ("unbiased", "biased", "u_statistic"):
        raise UsageFault(f"no estimator {estimator!r}; there are: unbiased, biased, u_statistic")
    (real, real_trace), (made, made_trace), (cross, cross_trace) = sums
    if estimator == "biased":
        return real / n**2 + made / m**2 - 2 * cross / (n * m)
    if min(n, m) < 2:
        raise DataInvalid(f"{min(n, m)} rows in one set; {estimator} takes 2 or more", reason=Reason.TOO_SMALL)
    own = (real - real_trace) / (n * (n - 1)) + (made - made_trace) / (m * (m - 1))
    if estimator == "unbiased":
        return own - 2 * cross / (n * m)
    if n != m:
        raise DataInvalid(f"u_statistic pairs sets of one size, not {n} and {m} rows", reason=Reason.UNPAIRED)
    return own - 2 * (cross - cross_trace) / (n * (n - 1))
