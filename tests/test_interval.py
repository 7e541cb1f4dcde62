"""Intervals: they hold the true value as often as they say, and patients, not scans or slices, decide their width."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from tomogen.evaluation import bounds, interval
from tomogen.evaluation.kernel_sums import KernelSums

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]

LAWS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
    "lognormal": (lambda rng, n: rng.lognormal(0, 0.5, size=n), float(np.exp(0.125))),
}


def names(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


def coverage_of_means(law: str, patients: int, experiments: int) -> float:
    """Share of intervals that hold the mean; one to three scans each, scans of a patient alike."""
    draw, mean = LAWS[law]
    rng = np.random.default_rng(patients)
    held = 0
    for number in range(experiments):
        owner = np.repeat(np.arange(patients), rng.integers(1, 4, size=patients))
        values = 0.8 * draw(rng, patients)[owner] + 0.2 * draw(rng, len(owner))
        found = interval.of_means(values, owner.astype(str).tolist(), seed=number)
        assert found is not None
        held += found[0] <= mean <= found[1]
    return held / experiments


@pytest.mark.parametrize(("law", "patients"), [("normal", 5), ("exponential", 8), ("lognormal", 20)])
def test_intervals_of_means_hold_the_mean_in_93_to_97_of_100_experiments(law: str, patients: int) -> None:
    assert 0.93 <= coverage_of_means(law, patients, 400) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("patients", [5, 8, 20, 50])
def test_intervals_of_means_hold_the_mean_at_every_number_of_patients(law: str, patients: int) -> None:
    assert 0.93 <= coverage_of_means(law, patients, 2500) <= 0.975


def frechet(real: Floats, made: Floats) -> float:
    """The Frechet distance of Gaussians fitted to rows (n, d): by singular values of the centred rows."""
    off = real.mean(axis=0) - made.mean(axis=0)
    a = (real - real.mean(axis=0)) / np.sqrt(len(real) - 1)
    b = (made - made.mean(axis=0)) / np.sqrt(len(made) - 1)
    return float(off @ off + (a**2).sum() + (b**2).sum() - 2 * np.linalg.svd(a @ b.T, compute_uv=False).sum())


def scans(rng: np.random.Generator, patients: int) -> tuple[Floats, list[str]]:
    """Values of variance 1, one to three of each patient, and whose they are."""
    owner = np.repeat(np.arange(patients), rng.integers(1, 4, size=patients))
    return 0.8 * rng.normal(size=patients)[owner] + 0.6 * rng.normal(size=len(owner)), owner.astype(str).tolist()


def coverage_of_log_variance(patients: int, experiments: int) -> float:
    rng = np.random.default_rng(patients)
    held = 0
    for _ in range(experiments):
        values, whose = scans(rng, patients)
        found = interval.of_statistic(lambda rows, values=values: float(np.log(values[rows].var())), whose)
        assert found is not None
        held += found[0] <= 0 <= found[1]
    return held / experiments


def coverage_of_log_ratio(patients: int, experiments: int) -> float:
    """Of two samples' variances, 1 and 4."""
    rng = np.random.default_rng(patients)
    held = 0
    for number in range(experiments):
        (real, ours), (made, theirs) = scans(rng, patients), scans(rng, patients + 3)

        def statistic(r: NDArray[np.intp], m: NDArray[np.intp], real: Floats = real, made: Floats = made) -> float:
            return float(np.log((2 * made[m]).var() / real[r].var()))

        found = interval.of_two_samples(statistic, ours, theirs, seed=number)
        assert found is not None
        held += found[0] <= np.log(4) <= found[1]
    return held / experiments


def coverage_of_frechet(patients: int, width: int, experiments: int) -> float:
    """Of its mean at so many patients, which is the mean of the experiments."""
    rng = np.random.default_rng(patients)
    found, values = [], []
    for number in range(experiments):
        real, made = rng.normal(size=(patients, width)), 1.2 * rng.normal(size=(patients, width)) + 0.3

        def statistic(r: NDArray[np.intp], m: NDArray[np.intp], real: Floats = real, made: Floats = made) -> float:
            return frechet(real[r], made[m])

        values.append(frechet(real, made))
        found.append(interval.of_two_samples(statistic, names(patients), names(patients), seed=number))
    low, high = np.array(found).T
    return float(np.mean((low <= np.mean(values)) & (np.mean(values) <= high)))


def test_intervals_of_a_smooth_statistic_hold_its_value() -> None:
    assert 0.93 <= coverage_of_log_variance(12, 200) <= 0.98


def test_intervals_of_two_samples_hold_the_value() -> None:
    assert 0.93 <= coverage_of_log_ratio(12, 120) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("patients", [8, 20, 50, 100])
def test_intervals_of_statistics_hold_at_every_number_of_patients(patients: int) -> None:
    assert 0.93 <= coverage_of_log_variance(patients, 1000) <= 0.97
    assert 0.93 <= coverage_of_log_ratio(patients, 1000) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("patients", "width"), [(20, 4), (50, 4), (20, 16), (50, 16)])
def test_intervals_of_the_frechet_distance_hold_its_mean_at_that_number(patients: int, width: int) -> None:
    assert 0.93 <= coverage_of_frechet(patients, width, 500) <= 0.995


def kernel(a: Floats, b: Floats) -> Floats:
    """KID's polynomial (Binkowski et al. 2018)."""
    matrix: Floats = (a @ b.T / a.shape[1] + 1) ** 3
    return matrix


def kid(real: Floats, made: Floats) -> float:
    """The unbiased estimate, pair by pair."""
    xx, yy = kernel(real, real), kernel(made, made)
    pairs = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    return float(sum(pairs) - 2 * kernel(real, made).mean())


def population_kid(width: int, shift: float) -> float:
    """KID of N(0, 1) and N(shift, 1) in so many dimensions, by the moments of x.y."""
    squared = width * shift**2

    def mean(a: float, b: float) -> float:
        """E (x.y/d + 1)^3 for x and y of squared means a and b along one line and unit covariances."""
        first, second, third = np.sqrt(a * b), a + b + width, 6 * np.sqrt(a * b)  # cumulants of x.y
        powers = first, second + first**2, third + 3 * second * first + first**3
        return float(
            1
            + sum(factor * power / width**k for k, (factor, power) in enumerate(zip((3, 3, 1), powers, strict=True), 1))
        )

    return mean(0, 0) + mean(squared, squared) - 2 * mean(0, squared)


def coverage_of_kid(count: int, width: int, shift: float, experiments: int) -> float:
    rng = np.random.default_rng(count)
    held, values, truth = 0, [], population_kid(width, shift)
    for number in range(experiments):
        real, made = rng.normal(size=(count, width)), rng.normal(size=(count, width)) + shift
        found = interval.of_pairs_kernel(
            kernel(real, real), kernel(made, made), kernel(real, made), names(count), names(count), seed=number
        )
        assert found is not None
        held += found[0] <= truth <= found[1]
        values.append(kid(real, made))
    assert np.mean(values) == pytest.approx(truth, abs=5 * np.std(values) / np.sqrt(experiments))
    return held / experiments


def test_intervals_of_kid_hold_its_value() -> None:
    assert 0.93 <= coverage_of_kid(20, 16, 0.25, 60) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("count", [20, 50])
@pytest.mark.parametrize(("width", "shift"), [(4, 0.25), (4, 0.5), (4, 1.0), (16, 0.25)])
def test_intervals_of_kid_hold_at_every_distance(count: int, width: int, shift: float) -> None:
    assert 0.93 <= coverage_of_kid(count, width, shift, 800) <= 0.985


def test_the_kernel_way_leaves_out_patients_as_the_statistic_itself_would() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(30, 8)), rng.normal(size=(23, 8)) + 0.3
    ours, theirs = [str(row // 4) for row in range(30)], [str(row // 3) for row in range(23)]
    by_sums = interval.of_pairs_kernel(kernel(real, real), kernel(made, made), kernel(real, made), ours, theirs)
    by_rows = interval.of_two_samples(lambda r, m: kid(real[r], made[m]), ours, theirs)
    assert by_sums is not None
    assert by_rows is not None
    # Student's ends are the same; here it is the lower that is the farther.
    assert by_sums[0] == pytest.approx(by_rows[0], rel=1e-9)


def test_a_resample_of_kernel_sums_is_the_distance_of_its_rows_without_pairs_of_copies() -> None:
    rng = np.random.default_rng(1)
    real, made = rng.normal(size=(9, 3)), rng.normal(size=(6, 3)) + 0.5
    ours, theirs = np.arange(9) // 2, np.arange(6) // 3
    sums = KernelSums(kernel(real, real), kernel(made, made), kernel(real, made), ours, theirs)
    times, others = np.array([2.0, 0, 1, 3, 1]), np.array([1.0, 2.0])
    drawn = np.concatenate([np.flatnonzero(ours == p) for p in range(5) for _ in range(int(times[p]))])
    again = np.concatenate([np.flatnonzero(theirs == p) for p in range(2) for _ in range(int(others[p]))])

    def within(rows: NDArray[np.intp], values: Floats) -> float:
        pairs = [(i, j) for i in rows for j in rows if i != j]
        return float(np.mean([kernel(values[[i]], values[[j]])[0, 0] for i, j in pairs]))

    expected = within(drawn, real) + within(again, made) - 2 * kernel(real[drawn], made[again]).mean()
    value, _ = sums.mmd(times[None], others[None])
    assert value[0] == pytest.approx(expected, rel=1e-12)


def test_with_two_patients_the_interval_is_students() -> None:
    found = interval.of_means([1.0, 2.0, 2.0], ["a", "b", "b"])
    expected = stats.t.interval(0.95, 1, loc=1.5, scale=0.5)
    assert found == pytest.approx(expected)


def test_one_patient_far_from_the_others_does_not_send_an_end_away() -> None:
    values = [40, 41, 40.5, 40.2, 55]
    found = interval.of_means(values, names(5))
    student = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert found is not None
    assert found[0] == pytest.approx(student[0])
    assert found[1] - np.mean(values) <= 2 * (student[1] - np.mean(values)) * (1 + 1e-12) < 17


def test_an_end_goes_no_further_than_the_metric_can() -> None:
    values, few = [0.2, 0.3, 90.0], names(3)
    free = interval.of_means(values, few)
    kept = interval.of_means(values, few, bounds=bounds.of("mae/lung"))
    assert free is not None
    assert free[0] < 0
    assert kept == (0, free[1])
    likeness = [0.9, 0.95, -0.6]
    found = interval.of_means(likeness, few, bounds=bounds.of("ms_ssim"))
    assert found == (-1, 1)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("mae", (0, np.inf)),
        ("rmse/soft_tissue", (0, np.inf)),
        ("MAE0", (0, np.inf)),
        ("ssim_gauss11_valid_clip4024", (-1, 1)),
        ("SSIM-avg", (-1, 1)),
        ("diversity/ms_ssim", (-1, 1)),
        ("psnr/lung", (-np.inf, np.inf)),
        ("bias", (-np.inf, np.inf)),
        ("recall/2.5d/equal n", (0, 1)),
        ("fid/axial", (0, np.inf)),
        ("fid_above_floor/axial", (-np.inf, np.inf)),
        ("kid/volume", (-np.inf, np.inf)),
        ("hu_histogram", (0, np.inf)),
    ],
)
def test_bounds_are_those_of_the_metric_by_its_name(metric: str, expected: tuple[float, float]) -> None:
    assert bounds.of(metric) == expected


def share(values: Floats, patients: int) -> tuple[float, float]:
    """Interval of a share of made rows, as many of each patient."""
    owner = np.repeat(np.arange(patients), len(values) // patients).astype(str).tolist()
    found = interval.of_share(lambda _, made: float(values[made].mean()), names(4), owner, counted="made")
    assert found is not None
    return found


@pytest.mark.parametrize("patients", [2, 4, 8, 20, 60])
def test_a_share_of_nothing_or_all_has_a_width_that_patients_decide(patients: int) -> None:
    low, high = share(np.zeros(patients), patients)
    exact = stats.binomtest(0, patients).proportion_ci(0.95, "exact").high  # Clopper-Pearson's
    assert low == 0
    assert 0.8 * exact < high < 1.3 * exact
    assert share(np.zeros(16 * patients), patients) == (low, high)
    assert share(np.ones(patients), patients) == pytest.approx((1 - high, 1))


def test_intervals_of_shares_hold_the_share_that_patients_have_on_average() -> None:
    rng = np.random.default_rng(11)
    for patients, mean, least in ((20, 0.05, 0.93), (50, 0.5, 0.93), (8, 0.9, 0.95)):
        held = 0
        for _ in range(150):
            own = rng.beta(4 * mean, 4 * (1 - mean), size=patients)
            low, high = share((rng.random((patients, 16)) < own[:, None]).astype(float).ravel(), patients)
            held += low <= mean <= high
        assert held / 150 >= least


@pytest.mark.parametrize("counted", ["real", "made"])
def test_a_share_is_of_the_side_that_is_counted(counted: Literal["real", "made"]) -> None:
    found = interval.of_share(lambda r, m: 0.0, names(4), names(30), counted=counted)
    assert found == pytest.approx(share(np.zeros(4), 4) if counted == "real" else share(np.zeros(30), 30))
    assert interval.of_share(lambda r, m: 0.0, names(1), names(30), counted=counted) is None


def test_scans_of_one_patient_count_once() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=8)
    once = interval.of_means(values, names(8))
    assert interval.of_means(np.tile(values, 50), names(8) * 50) == pytest.approx(once)
    as_strangers = interval.of_means(np.tile(values, 50), names(400))
    assert once is not None
    assert as_strangers is not None
    assert np.ptp(as_strangers) < np.ptp(once) / 5


@given(values=st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 3)), min_size=2, max_size=12))
@settings(max_examples=20)
def test_the_interval_holds_the_mean_and_moves_with_its_values(values: list[float]) -> None:
    found = interval.of_means(values, names(len(values)))
    assert found is not None
    low, high = found
    assert low - 1e-9 <= np.mean(values) <= high + 1e-9
    moved = interval.of_means([2 * value + 100 for value in values], names(len(values)))
    assert moved == pytest.approx((2 * low + 100, 2 * high + 100), rel=1e-6, abs=1e-6)


def test_the_same_seed_gives_the_same_interval_and_a_higher_level_a_wider_one() -> None:
    values = np.random.default_rng(3).exponential(size=9)
    first = interval.of_means(values, names(9), seed=4)
    assert first == interval.of_means(values, names(9), seed=4)
    assert first != interval.of_means(values, names(9), seed=5)
    wider = interval.of_means(values, names(9), level=0.99, seed=4)
    assert first is not None
    assert wider is not None
    assert wider[0] < first[0] < first[1] < wider[1]


def test_the_interval_does_not_hang_on_the_order_of_scans_or_the_type_of_names() -> None:
    values = np.random.default_rng(6).exponential(size=12)
    whose = [f"p{number % 7}" for number in range(12)]
    order = np.random.default_rng(7).permutation(12)
    assert interval.of_means(values[order], [whose[number] for number in order]) == pytest.approx(
        interval.of_means(values, whose)
    )


def test_skewed_values_have_a_longer_end_on_the_side_of_their_tail() -> None:
    values = np.random.default_rng(8).lognormal(size=30)
    found = interval.of_means(values, names(30))
    assert found is not None
    assert found[1] - values.mean() > 1.2 * (values.mean() - found[0])


@pytest.mark.parametrize(
    ("values", "patients"),
    [
        ([], []),
        ([1.0], ["a"]),
        ([1.0, 2.0, 3.0], ["a", "a", "a"]),
        ([1.0, np.nan], ["a", "b"]),
        ([np.nan, np.nan], ["a", "b"]),
        ([np.inf, 30.0, 31.0], ["a", "b", "c"]),
        ([np.inf, np.inf], ["a", "b"]),
        ([np.inf, -np.inf], ["a", "a"]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_cannot_tell_has_no_interval(values: list[float], patients: list[str]) -> None:
    assert interval.of_means(values, patients) is None


@pytest.mark.filterwarnings("error")
def test_values_without_spread_have_an_interval_without_width() -> None:
    assert interval.of_means([0.1] * 6, ["a", "b", "b", "c", "c", "c"]) == pytest.approx((0.1, 0.1), abs=1e-15)
    ones = np.ones((4, 4))
    assert interval.of_pairs_kernel(ones, ones, ones, names(4), names(4)) == (0, 0)


def test_nan_are_left_out() -> None:
    assert interval.of_means([1.0, np.nan, 2.0, 4.0], ["a", "a", "b", "c"]) == interval.of_means(
        [1.0, 2.0, 4.0], ["a", "b", "c"]
    )


@pytest.mark.filterwarnings("error")
def test_statistics_of_too_few_or_of_what_is_no_number_have_no_interval() -> None:
    kernels = [np.eye(2), np.eye(3), np.zeros((2, 3))]
    assert interval.of_statistic(lambda rows: float(rows.mean()), ["a", "a"]) is None
    assert interval.of_statistic(lambda rows: np.nan, names(5)) is None
    assert interval.of_statistic(lambda rows: np.inf, names(5)) is None
    assert interval.of_two_samples(lambda r, m: 1.0, names(5), ["x", "x"]) is None
    assert interval.of_two_samples(lambda r, m: 1.0, [], names(3)) is None
    assert interval.of_pairs_kernel(*kernels, ["a", "a"], names(3)) is None
    assert interval.of_pairs_kernel(*kernels, names(2), names(3)) is None  # one row left makes no pair
    broken = np.full((3, 3), np.nan)
    assert interval.of_pairs_kernel(broken, broken, broken, names(3), names(3)) is None


def test_many_patients_are_left_out_in_parts() -> None:
    values = np.random.default_rng(9).normal(size=500)
    calls = []

    def statistic(rows: NDArray[np.intp]) -> float:
        calls.append(len(rows))
        return float(values[rows].mean())

    found = interval.of_statistic(statistic, names(500))
    assert len(calls) == interval.BLOCKS + 1
    assert set(calls[1:]) <= {487, 488}
    assert found is not None
    assert np.ptp(found) == pytest.approx(2 * 1.96 / np.sqrt(500), rel=0.3)


def test_parts_keep_a_patients_rows_together() -> None:
    whose = [f"p{row // 5}" for row in range(500)]
    seen = []

    def statistic(rows: NDArray[np.intp]) -> float:
        kept = np.bincount(rows // 5, minlength=100)
        assert set(kept) <= {0, 5}
        seen.append(len(rows))
        return float(rows.mean())

    interval.of_statistic(statistic, whose)
    assert min(seen) >= 500 - 15
