"""Intervals of scores, with patients drawn again: slices and scans of one patient tell the same thing twice.

Every interval is None where a side has fewer than two patients, or where a number is not finite.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Interval = tuple[float, float]
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

RESAMPLES = 2000
BLOCKS = 40
"""Most parts that a jackknife leaves out in turn; more patients than that are put together by chance."""
_AT_ONCE = 2**22
"""Numbers drawn at a time: 32 MB."""


def of_means(
    values: Sequence[float] | Floats, patients: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> Interval | None:
    """Interval of the mean over patients of the mean over a patient's scans.

    Each end is the farther of two: the bootstrap-t's (Efron and Tibshirani 1993, section 12.5), which follows skewed
    values, and Student's, which holds where a handful of patients give the bootstrap too few samples to draw from.
    NaN are left out. An infinite value, the PSNR of a scan equal to its truth, leaves no interval: None.
    """
    means = _by_patient(np.asarray(values, dtype=np.float64), patients)
    if len(means) < 2 or not np.isfinite(means).all():
        return None
    mean, error = means.mean(), means.std(ddof=1) / np.sqrt(len(means))
    if error <= _ROUNDING * np.abs(means).max():
        return float(means.min()), float(means.max())
    student = stats.t.ppf((1 + level) / 2, len(means) - 1)
    low, high = _quantiles(_drawn(means, error, np.random.default_rng(seed)), level)
    return float(mean - error * max(student, high)), float(mean + error * max(student, -low))


def of_statistic(
    statistic: Callable[[Rows], float], groups: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> Interval | None:
    """Interval of a smooth statistic of rows; `groups` names each row's patient, `statistic` takes the rows kept.

    Patients are left out in turn, in at most `BLOCKS` parts: the jackknife's variance (Efron and Stein 1981;
    parts of several patients: Shao and Wu 1989) with Student's quantiles. What is made from the very patients it is
    held against is one sample, not two: give both as rows of one statistic.
    """
    parts = _parts(groups, seed)
    if len(parts) < 2:
        return None
    variance = _jackknife([statistic(kept) for kept in _kept(parts)])
    return _around(statistic(np.arange(len(groups))), [(variance, len(parts) - 1)], level)


def of_two_samples(
    statistic: Callable[[Rows, Rows], float],
    real_groups: Sequence[str],
    made_groups: Sequence[str],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Interval of a smooth statistic of real and made rows, drawn independently: `of_statistic` on each side.

    The variances of the sides add; degrees of freedom after Satterthwaite (1946). Samples of a model that belong to
    no patient are a group each.
    """
    real, made = np.arange(len(real_groups)), np.arange(len(made_groups))
    real_parts, made_parts = _parts(real_groups, seed), _parts(made_groups, seed)
    if min(len(real_parts), len(made_parts)) < 2:
        return None
    of_real = _jackknife([statistic(kept, made) for kept in _kept(real_parts)])
    of_made = _jackknife([statistic(real, kept) for kept in _kept(made_parts)])
    return _around(statistic(real, made), [(of_real, len(real_parts) - 1), (of_made, len(made_parts) - 1)], level)


_ROUNDING = 1e-12
"""A spread that is so much smaller than the values is none."""


def _by_patient(values: Floats, patients: Sequence[str]) -> Floats:
    """The mean of each patient's values that are no NaN; patients without any are left out."""
    told = ~np.isnan(values)
    _, owner = np.unique(np.asarray(patients, dtype=str)[told], return_inverse=True)
    means: Floats = np.bincount(owner, values[told]) / np.bincount(owner)
    return means


def _drawn(means: Floats, error: float, rng: np.random.Generator) -> Floats:
    """Student's t of resamples of the patients about their mean; what has no spread is left out."""
    count = len(means)
    found = []
    for start in range(0, RESAMPLES, step := max(1, _AT_ONCE // count)):
        again = means[rng.integers(count, size=(min(step, RESAMPLES - start), count))]
        spread = again.std(axis=1, ddof=1) / np.sqrt(count)
        spread[spread <= _ROUNDING * error] = np.nan
        found.append((again.mean(axis=1) - means.mean()) / spread)
    return np.concatenate(found)


def _quantiles(drawn: Floats, level: float) -> tuple[float, float]:
    """Lower and upper quantile of what could be drawn; 0 where nothing could."""
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return 0.0, 0.0
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _parts(groups: Sequence[str], seed: int) -> list[Rows]:
    """Rows of each patient; of more than `BLOCKS` patients, of so many parts of nearly equal numbers of them."""
    _, owner = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = int(owner.max(initial=-1)) + 1
    if count > BLOCKS:
        part = np.random.default_rng(seed).permutation(count) % BLOCKS
        owner, count = part[owner], BLOCKS
    return [np.flatnonzero(owner == number) for number in range(count)]


def _kept(parts: Sequence[Rows]) -> list[Rows]:
    """All rows but those of one part, in order, for each part."""
    rows = sum(len(part) for part in parts)
    return [np.setdiff1d(np.arange(rows), part, assume_unique=True) for part in parts]


def _jackknife(left_out: Sequence[float]) -> float:
    """Variance of a statistic from its values with one part left out (Efron and Stein 1981, equation 1.3)."""
    values = np.asarray(left_out, dtype=np.float64)
    return float((len(values) - 1) * values.var())


def _around(value: float, sides: Sequence[tuple[float, int]], level: float) -> Interval | None:
    """Student's interval from the variance and the degrees of freedom of each side."""
    variance = sum(one for one, _ in sides)
    if not (np.isfinite(value) and np.isfinite(variance)):
        return None
    if variance == 0:
        return float(value), float(value)
    freedom = variance**2 / sum(one**2 / degrees for one, degrees in sides)
    half = float(stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(variance))
    return float(value) - half, float(value) + half
