"""Intervals of scores, with patients drawn again: slices and scans of one patient tell the same thing twice.

One way for all. A side is a number for each patient: the mean of its scans or, for a statistic of a whole set, the
jackknife's pseudo-value (Tukey 1958): with `count` patients and one left out,
`count * statistic(all) - (count - 1) * statistic(all but this)`. The spread of a side gives the error of the score
(Efron and Stein 1981); sides of their own patients add their variances. Each end of the interval is the farther of two:

- Student's, degrees of freedom after Satterthwaite (1946), which holds for a handful of patients;
- the bootstrap-t's (Efron and Tibshirani 1993, section 12.5), which follows skewed values. It counts up to twice as
  far as Student's: where resamples of a handful of patients have next to no spread, it has no end.

Either alone covers less than it says, at few patients or at skewed values. An end goes no further than `bounds`, the
least and the most that the metric can be. Every interval is None where a side has fewer than two patients, or where a
number is not finite.

A share (precision, recall) of 0 or 1 has no spread, and is none the surer. Two patients with all and two with nothing
are added to those that it is a share of (Agresti and Coull 1998, for draws; here whole patients), and Student's ends
are those about the mean with them: 0 of 4 patients gives 0 to 0.64, 0 of 20 gives 0 to 0.20.

Measured coverage of the 95 % intervals, in simulated experiments (`tests/test_interval.py`):

- means over 5 to 50 patients of one to three scans: normal values 95-97.5 %, exponential 93.5-95.5 %, lognormal
  (sigma 0.5) 94.5-95.5 %. Under 93 %: lognormal with sigma 1, a skewness of 6, 90 % at 5 and at 8 patients, 93.1 % at
  20 and 93.8 % at 50; 3 patients of exponential values, 89.5 %, of lognormal with sigma 1, 87 %;
- shares of 16 rows a patient or of one, true shares of 0.02 to 0.9: 95-99.5 % at 20 and 50 patients, 97.5-100 % at 4
  to 8, where next to nothing can be told;
- smooth statistics of 8 to 100 patients (log variance, ratio of variances): 95.5-97 %;
- KID of 20 and of 50 rows a side: 94.5-97.5 % in 4 and 16 dimensions, 99 % in 64 where the sets hardly differ, since
  the jackknife counts the part of the spread that comes from pairs twice;
- the Frechet distance: 96-98.5 %, of up to three times as many dimensions as rows too.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tomogen.evaluation.kernel_sums import KernelSums

Interval = tuple[float, float]
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

RESAMPLES = 2000
BLOCKS = 40
"""Most parts that are left out in turn; more patients than that are put together by chance (Shao and Wu 1989)."""
UNITS = 200
"""Most patients of a side that are drawn again one by one for a kernel; more are drawn in so many parts."""
_AT_ONCE = 2**22
"""Numbers drawn at a time: 32 MB."""
_FARTHEST = 2
"""Times Student's, as far as the bootstrap-t counts. Mean of (40, 41, 40.5, 40.2, 55): up to 60, where it says 144."""
_ADDED = 2
"""Patients with all, and as many with nothing, that stand beside those of a share."""
_ROUNDING = 1e-12
"""A spread that is so much smaller than the values is none."""


def of_means(
    values: Sequence[float] | Floats,
    patients: Sequence[str],
    *,
    bounds: Interval | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Interval of the mean over patients of the mean over a patient's scans.

    NaN are left out. An infinite value, the PSNR of a scan equal to its truth, leaves no interval: None.
    """
    numbers = np.asarray(values, dtype=np.float64)
    told = ~np.isnan(numbers)
    owner = _owners(np.asarray(patients, dtype=str)[told])
    means = np.bincount(owner, numbers[told]) / np.bincount(owner)
    found = _around(float(np.mean(means)) if means.size else np.nan, [means], level, seed)
    return _within(found, bounds)


def of_statistic(
    statistic: Callable[[Rows], float],
    groups: Sequence[str],
    *,
    bounds: Interval | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Interval of a smooth statistic of rows: `statistic` takes the rows kept, `groups` names each row's patient.

    The interval is for what the statistic is on average over as many patients: the bias that a Frechet distance of
    few rows has stays in it. Scans made from the patients that they are held against are no sample of their own: give
    both as rows of one statistic.
    """
    parts = _parts(groups, seed)
    whole = float(statistic(np.arange(len(groups))))
    found = _around(whole, [_pseudo(whole, [statistic(kept) for kept in _kept(parts)])], level, seed)
    return _within(found, bounds)


def of_two_samples(
    statistic: Callable[[Rows, Rows], float],
    real_groups: Sequence[str],
    made_groups: Sequence[str],
    *,
    bounds: Interval | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Interval of a smooth statistic of real and made rows, each side drawn by itself; else as `of_statistic`.

    Samples of a model that belong to no patient are a group each.
    """
    whole, sides = _sides(statistic, real_groups, made_groups, seed)
    return _within(_around(whole, sides, level, seed), bounds)


def of_share(
    statistic: Callable[[Rows, Rows], float],
    real_groups: Sequence[str],
    made_groups: Sequence[str],
    *,
    counted: Literal["real", "made"],
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Interval of a share of the `counted` rows, from 0 to 1: never without width, 0 and 1 included.

    The other side's patients are left out in turn as in `of_two_samples`.
    """
    whole, sides = _sides(statistic, real_groups, made_groups, seed)
    if not _enough(sides):
        return None
    mine, other = sides if counted == "real" else sides[::-1]
    people = len(set(real_groups if counted == "real" else made_groups))
    centre = (people * whole + _ADDED) / (people + 2 * _ADDED)
    squares = _variance(mine) * people * (people - 1) + people * (whole - centre) ** 2
    squares += _ADDED * (centre**2 + (1 - centre) ** 2)
    many = people + 2 * _ADDED
    variances, counts = [squares / (many * (many - 1)), _variance(other)], [many, len(other)]
    reach = _student(variances, counts, level) * float(np.sqrt(sum(variances)))
    return _within((min(whole, centre - reach), max(whole, centre + reach)), (0.0, 1.0))


def of_pairs_kernel(
    real: Floats,
    made: Floats,
    across: Floats,
    real_groups: Sequence[str],
    made_groups: Sequence[str],
    *,
    bounds: Interval | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Interval of the unbiased squared MMD, KID among them, from kernel matrices (n, n), (m, m) and (n, m).

    The score is the mean over pairs of unlike rows of each side, less twice the mean across (Gretton et al. 2012,
    equation 3). Resamples of the patients go through the same mean; a row and its copy are no pair, which would
    raise every resample above the score.
    """
    sides = [_owners(groups, most=UNITS, seed=seed) for groups in (real_groups, made_groups)]
    counts = [len(np.bincount(side)) for side in sides]
    if min(counts) < 2:
        return None
    sums = KernelSums(real, made, across, *sides)
    values, variances = sums.mmd(np.ones((1, counts[0])), np.ones((1, counts[1])))
    rng = np.random.default_rng(seed)
    again, spread = sums.mmd(_multiplicities(counts[0], rng), _multiplicities(counts[1], rng))
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = (again - values[0]) / np.sqrt(spread.sum(axis=0))
    found = _ends(float(values[0]), variances[:, 0].tolist(), counts, drawn, sums.scale, level)
    return _within(found, bounds)


def _within(found: Interval | None, bounds: Interval | None) -> Interval | None:
    """The interval, no end of it beyond the bounds."""
    if found is None or bounds is None:
        return found
    low, high = bounds
    return min(max(found[0], low), high), max(min(found[1], high), low)


def _sides(
    statistic: Callable[[Rows, Rows], float], real_groups: Sequence[str], made_groups: Sequence[str], seed: int
) -> tuple[float, list[Floats]]:
    """A statistic of all real and made rows, and each side's pseudo-values."""
    real, made = np.arange(len(real_groups)), np.arange(len(made_groups))
    whole = float(statistic(real, made))
    of_real = _pseudo(whole, [statistic(kept, made) for kept in _kept(_parts(real_groups, seed))])
    of_made = _pseudo(whole, [statistic(real, kept) for kept in _kept(_parts(made_groups, seed))])
    return whole, [of_real, of_made]


def _owners(groups: Sequence[str] | NDArray[np.str_], *, most: int | None = None, seed: int = 0) -> Rows:
    """The number of each row's patient, from 0; patients beyond `most` share numbers, by chance and evenly."""
    owner = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    count = int(owner.max(initial=-1)) + 1
    if most is None or count <= most:
        return owner
    shared: Rows = (np.random.default_rng(seed).permutation(count) % most)[owner]
    return shared


def _parts(groups: Sequence[str], seed: int) -> list[Rows]:
    """Rows of each patient, or of each of `BLOCKS` parts of the patients."""
    owner = _owners(groups, most=BLOCKS, seed=seed)
    return [np.flatnonzero(owner == number) for number in range(int(owner.max(initial=-1)) + 1)]


def _kept(parts: Sequence[Rows]) -> list[Rows]:
    """All rows but those of one part, in order, for each part; nothing where there is only one."""
    rows = np.arange(sum(len(part) for part in parts))
    return [np.setdiff1d(rows, part, assume_unique=True) for part in parts] if len(parts) > 1 else []


def _pseudo(whole: float, left_out: Sequence[float] | Floats) -> Floats:
    """Pseudo-values of a statistic from its values with one part left out."""
    count = len(left_out)
    with np.errstate(invalid="ignore"):
        return count * whole - (count - 1) * np.asarray(left_out, dtype=np.float64)


def _around(value: float, sides: Sequence[Floats], level: float, seed: int) -> Interval | None:
    """The interval about a value, from the numbers of the patients of each side."""
    if not _enough(sides):
        return None
    variances = [_variance(side) for side in sides]
    drawn = _drawn(sides, np.random.default_rng(seed))
    scale = max(float(np.abs(side).max()) for side in sides)
    return _ends(value, variances, [len(side) for side in sides], drawn, scale, level)


def _enough(sides: Sequence[Floats]) -> bool:
    """Whether each side has two patients, and numbers alone."""
    return all(len(side) > 1 and bool(np.isfinite(side).all()) for side in sides)


def _variance(side: Floats) -> float:
    """Of the mean of a side."""
    return float(side.var(ddof=1)) / len(side)


def _student(variances: Sequence[float], counts: Sequence[int], level: float) -> float:
    """Student's quantile for a sum of sides; degrees of freedom after Satterthwaite."""
    degrees = sum(variances) ** 2 / sum(one**2 / (count - 1) for one, count in zip(variances, counts, strict=True))
    return float(stats.t.ppf((1 + level) / 2, degrees))


def _ends(
    value: float, variances: Sequence[float], counts: Sequence[int], drawn: Floats, scale: float, level: float
) -> Interval | None:
    """The farther of Student's and the bootstrap-t's ends; `drawn` are Student's t of resamples.

    `variances` and `counts` are of each side, `scale` is the size of the numbers that were averaged.
    """
    error = float(np.sqrt(sum(variances)))
    if not (np.isfinite(value) and np.isfinite(error)):
        return None
    if error <= _ROUNDING * scale:
        return value, value
    student = _student(variances, counts, level)
    drawn = drawn[np.isfinite(drawn)]  # resamples of one patient alone have no spread
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) if drawn.size else (0.0, 0.0)
    below, above = (error * min(max(student, end), _FARTHEST * student) for end in (float(high), -float(low)))
    return value - below, value + above


def _multiplicities(count: int, rng: np.random.Generator) -> Floats:
    """How often each patient is in each resample (resamples, count)."""
    drawn = rng.integers(count, size=(RESAMPLES, count)) + count * np.arange(RESAMPLES)[:, None]
    return np.bincount(drawn.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count).astype(np.float64)


def _drawn(sides: Sequence[Floats], rng: np.random.Generator) -> Floats:
    """Student's t of resamples of each side's patients about the sides' means; NaN or infinite without a spread."""
    off, variance = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for side in sides:
        count = len(side)
        step = max(1, _AT_ONCE // count)
        for start in range(0, RESAMPLES, step):
            some = slice(start, min(start + step, RESAMPLES))
            again = side[rng.integers(count, size=(some.stop - start, count))]
            off[some] += again.mean(axis=1) - side.mean()
            spread = again.var(axis=1, ddof=1) / count
            variance[some] += np.where(spread <= _ROUNDING * side.var(), 0, spread)
    with np.errstate(divide="ignore", invalid="ignore"):
        return off / np.sqrt(variance)
