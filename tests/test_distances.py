"""Distances between sets: closed forms, invariants, and every value that published code gives."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tomogen.errors import DataInvalid, Reason, UsageFault
from tomogen.evaluation.distances import frechet as frechet_module
from tomogen.evaluation.distances import kernel, neighbours
from tomogen.evaluation.distances.frechet import above_floor, frechet
from tomogen.evaluation.distances.histogram import counts, wasserstein
from tomogen.evaluation.distances.kernel import (
    gaussian,
    kid,
    kid_subsets,
    median_distance,
    mmd,
    mmd_linear,
    mmd_rbf,
    polynomial,
)
from tomogen.evaluation.distances.neighbours import prdc

ESTIMATORS = ("biased", "unbiased", "u_statistic")


def rows_of(mean, root, n, seed=0):
    """Rows whose sample mean is `mean` and whose sample covariance is `root^T root`, both exactly."""
    raw = np.random.default_rng(seed).standard_normal((n, len(mean)))
    whitened, _ = np.linalg.qr(raw - raw.mean(axis=0))
    return np.sqrt(n - 1) * whitened @ root + mean


def draw(n, d, seed, scale=1.0):
    return np.random.default_rng(seed).standard_normal((n, d)) * scale


# --- Frechet


@pytest.mark.parametrize("n", [9, 40, 1000])
def test_frechet_of_commuting_covariances_is_the_distance_of_their_roots(n):
    a, b = np.array([1.0, 2.0, 0.0, 5.0]), np.array([3.0, 2.0, 1.0, 0.5])
    mean = np.array([0.5, 0.0, -1.0, 2.0])
    real, made = rows_of(np.zeros(4), np.diag(a), n), rows_of(mean, np.diag(b), n + 3, seed=1)
    assert frechet(real, made) == pytest.approx(np.sum(mean**2) + np.sum((a - b) ** 2), rel=1e-12)


def test_frechet_of_covariances_that_do_not_commute_follows_the_two_by_two_formula():
    a, b = np.array([[2.0, 0.3], [0.0, 0.5]]), np.array([[0.7, -1.1], [0.4, 1.9]])
    product = a.T @ a @ b.T @ b
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.sum(a**2) + np.sum(b**2) - 2 * root
    assert frechet(rows_of(np.ones(2), a, 30), rows_of(np.ones(2), b, 50, seed=2)) == pytest.approx(expected, rel=1e-12)


@given(st.integers(2, 40), st.integers(1, 60), st.integers(0, 99))
@settings(max_examples=30)
def test_a_set_is_at_no_frechet_distance_from_itself_in_any_order(n, d, seed):
    rows = draw(n, d, seed, scale=30.0) + 5
    assert frechet(rows, rows) == 0
    assert frechet(rows, rows[::-1]) == pytest.approx(0, abs=1e-20 * d)


@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=30)
def test_frechet_is_symmetric_and_blind_to_order_rotation_and_place(n, m, d, seed):
    real, made = draw(n, d, seed), 1.5 * draw(m, d, seed + 100) + 0.3
    value = frechet(real, made)
    turn, _ = np.linalg.qr(draw(d, d, seed + 200))
    assert value > 0
    for other in (
        frechet(made, real),
        frechet(real[::-1], np.roll(made, 1, axis=0)),
        frechet(real @ turn, made @ turn),
        frechet(real + 7, made + 7),
        frechet(real * 2, made * 2) / 4,
        frechet(np.pad(real, ((0, 0), (0, 60))), np.pad(made, ((0, 0), (0, 60)))),  # from n > d to n < d
    ):
        assert other == pytest.approx(value, rel=1e-10, abs=1e-12)


def test_a_small_shift_of_the_mean_is_not_lost_in_the_rounding_of_large_covariances():
    rows = draw(50, 300, 0, scale=100.0)
    assert frechet(rows, rows + 1e-6) == pytest.approx(300e-12, rel=1e-3)


def test_frechet_less_its_floor_has_mean_zero_where_frechet_has_none():
    law = 1 / np.arange(1, 61)
    pairs = [(draw(20, 60, 2 * seed) * law, draw(20, 60, 2 * seed + 1) * law) for seed in range(30)]
    plain = np.mean([frechet(*pair) for pair in pairs])
    corrected = [above_floor(*pair, repeats=3, seed=seed) for seed, pair in enumerate(pairs)]
    assert abs(np.mean(corrected)) < 3 * np.std(corrected) / np.sqrt(len(pairs)) < plain / 3
    shifted = [above_floor(real, made + np.sqrt(1 / 60), repeats=3) for real, made in pairs]
    assert np.mean(shifted) == pytest.approx(1.0, abs=0.1)


def test_frechet_above_its_floor_depends_on_the_seed_alone_and_keeps_patients_whole(monkeypatch):
    real, made = draw(24, 6, 0), draw(20, 6, 1)
    first, again, other = (above_floor(real, made, seed=seed) for seed in (3, 3, 4))
    assert first == again != other
    seen = []
    plain = frechet_module._fitted
    monkeypatch.setattr(frechet_module, "_fitted", lambda rows: seen.append(rows[:, 0]) or plain(rows))
    real[:, 0], made[:, 0] = np.repeat(np.arange(8), 3), np.repeat(np.arange(100, 105), 4)
    above_floor(real, made, [f"p{p:.0f}" for p in real[:, 0]], [f"q{p:.0f}" for p in made[:, 0]])
    assert len(seen) == 4 * frechet_module.HALVINGS
    for half in seen:
        patients, times = np.unique(half, return_counts=True)
        assert (len(patients), set(times)) == ((2, {4}) if half.min() >= 100 else (4, {3}))


def test_frechet_above_its_floor_says_when_there_are_too_few_patients():
    rows = draw(9, 3, 0)
    with pytest.raises(DataInvalid, match="3 groups in the real set") as refused:
        above_floor(rows, rows, list("aaabbbccc"), list("abcdefghi"))
    assert refused.value.reason is Reason.TOO_SMALL
    with pytest.raises(DataInvalid, match="2 groups for 9 made rows"):
        above_floor(rows, rows, None, ["a", "b"])


# --- kernels


@pytest.mark.parametrize("distance", [kid, mmd_rbf, mmd_linear])
def test_a_kernel_distance_without_bias_has_mean_zero_for_one_law(distance):
    found = [distance(draw(12, 5, 2 * seed), draw(9, 5, 2 * seed + 1)) for seed in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))
    assert np.mean([distance(draw(12, 5, 2 * s), draw(9, 5, 2 * s + 1), estimator="biased") for s in range(50)]) > 0


def test_kid_of_points_by_hand():
    # d = 1: k(x, y) = (xy + 1)^3; own pairs 1, cross pairs (2 + 1)^3 = 27 and 1
    real, made = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    assert kid(real, made) == 1 + 1 - 2 * (1 + 1 + 1 + 27) / 4
    assert kid(real, made, "biased") == (1 + 1 + 1 + 8) / 4 + (1 + 1 + 1 + 125) / 4 - 2 * 30 / 4
    assert kid(real, made, "u_statistic") == 1 + 1 - 2 * (1 + 1) / 2


def test_a_gaussian_kernel_by_hand_and_its_median():
    real, made = np.array([[0.0], [3.0]]), np.array([[4.0], [10.0]])
    assert median_distance(real, made) == 5.0  # of 1, 3, 4, 6, 7, 10
    k = lambda t: np.exp(-t * t / 8)  # noqa: E731
    assert mmd_rbf(real, made, 2.0) == pytest.approx(k(3) + k(6) - (k(4) + k(10) + k(1) + k(7)) / 2, rel=1e-14)
    assert mmd_rbf(real, made) == mmd_rbf(real, made, 5.0)


def test_the_linear_kernel_sees_means_alone():
    real, made = draw(30, 4, 0), 9 * draw(20, 4, 1)
    assert mmd_linear(real, made, "biased") == pytest.approx(np.sum((real.mean(0) - made.mean(0)) ** 2))
    assert mmd_linear(real, made, "biased", batch=20) > mmd_linear(real[:20], made, "biased") * 0.999


def test_a_distance_over_resampled_rows_is_read_off_the_grams():
    real, made = draw(30, 4, 0), draw(20, 4, 1) + 0.2
    grams, i, j = polynomial(real, made), np.arange(7, 25), np.array([0, 3, 3, 8, 19])
    part = type(grams)(grams.real[np.ix_(i, i)], grams.made[np.ix_(j, j)], grams.cross[np.ix_(i, j)])
    assert mmd(part) == pytest.approx(kid(real[i], made[j]), rel=1e-12)


def test_kernel_distances_refuse_what_they_cannot_compare():
    rows = draw(5, 3, 0)
    with pytest.raises(DataInvalid, match="one size, not 5 and 4"):
        kid(rows, rows[:4], "u_statistic")
    with pytest.raises(DataInvalid, match="1 rows"):
        kid(rows, rows[:1])
    with pytest.raises(DataInvalid, match="5 rows in the real set; this distance takes 6"):
        kid_subsets(rows, rows, size=6)
    with pytest.raises(UsageFault, match="unbiased, biased, u_statistic"):
        kid(rows, rows, "best")
    with pytest.raises(UsageFault, match="sigma above 0"):
        mmd_rbf(rows, rows, 0.0)
    with pytest.raises(DataInvalid, match="no median distance"):
        mmd_rbf(np.ones((4, 2)), np.ones((4, 2)))


# --- neighbours


def test_precision_recall_density_and_coverage_on_a_line():
    real = np.array([[0.0], [1.0], [3.0], [10.0]])  # radii of the first neighbour: 1, 1, 2, 7
    made = np.array([[0.5], [2.5], [40.0]])  # 2, 2, 37.5
    found = prdc(real, made, k=1)
    # 0.5 lies in the radii of 0 and 1; 2.5 in that of 3 alone (10 - 2.5 > 7, 2.5 - 1 > 1); 40 in none
    assert found.precision == pytest.approx(2 / 3)
    assert found.density == pytest.approx(3 / 3)
    assert found.coverage == 3 / 4
    # 0, 1 lie within 2 of 0.5; 1, 3 within 2 of 2.5; 10 within 37.5 of 40
    assert found.recall == 1.0
    assert found.f_score == pytest.approx(0.8)


def test_ties_count_only_where_equal_is_enough():
    real, made = np.array([[0.0], [1.0], [2.0]]), np.array([[3.0], [4.0], [5.0]])  # 3 is as far from 2 as 1 is
    assert prdc(real, made, k=1) == (0.0, 0.0, 0.0, 0.0)
    assert prdc(real, made, k=1, or_equal=True) == pytest.approx((1 / 3, 1 / 3, 1 / 3, 1 / 3))
    assert prdc(real, made, k=1).f_score == 0.0


def test_nearness_is_decided_exactly_far_from_the_origin():
    real = np.array([[0.0], [1e-3], [3e-3]]) + 1024
    made = np.array([[0.9e-3], [1e3], [2e3]]) + 1024  # within 1e-3 of the first two; squares of norms differ by 1e-7
    assert prdc(real, made, k=1).coverage == pytest.approx(2 / 3)


def test_neither_neighbours_nor_kernels_depend_on_the_block(monkeypatch):
    real, made = draw(61, 5, 0), draw(61, 5, 1) * 1.3
    whole, kids = prdc(real, made, 3), [kid(real, made, e) for e in ESTIMATORS]
    assert kids == pytest.approx([mmd(polynomial(real, made), e) for e in ESTIMATORS], rel=1e-12)
    monkeypatch.setattr(neighbours, "BLOCK", 300)
    monkeypatch.setattr(kernel, "BLOCK", 300)
    assert prdc(real, made, 3) == whole
    assert [kid(real, made, e) for e in ESTIMATORS] == pytest.approx(kids, rel=1e-12)


@given(st.integers(2, 30), st.integers(6, 30), st.integers(1, 9), st.integers(0, 99), st.booleans())
@settings(max_examples=40)
def test_neighbours_are_those_of_whole_number_arithmetic(n, m, d, seed, or_equal):
    """Small whole numbers about a far place: ties everywhere, and products that round."""
    rng = np.random.default_rng(seed)
    n += 6
    real, made = rng.integers(-2, 3, (n, d)), rng.integers(-2, 3, (m, d))
    apart = lambda a, b: np.square(a[:, None] - b[None]).sum(axis=2)  # noqa: E731
    radii = [np.sort(apart(a, a), axis=1)[:, 3] for a in (real, made)]  # itself, and three neighbours
    compare = np.less_equal if or_equal else np.less
    inside = compare(apart(real, made), radii[0][:, None])
    expected = (
        inside.any(axis=0).mean(),
        compare(apart(real, made), radii[1]).any(axis=1).mean(),
        inside.sum() / (3 * m),
        inside.any(axis=1).mean(),
    )
    assert prdc(real + 3e7, made + 3e7, 3, or_equal) == pytest.approx(expected, rel=1e-12)


def test_neighbours_need_more_rows_than_they_count():
    with pytest.raises(DataInvalid, match="5 rows in the made set; this distance takes 6"):
        prdc(draw(9, 2, 0), draw(5, 2, 1), k=5)
    with pytest.raises(UsageFault):
        prdc(draw(9, 2, 0), draw(5, 2, 1), k=0)


# --- histograms


@given(st.integers(-300, 300), st.integers(1, 30))
@settings(max_examples=20)
def test_a_shift_of_hu_is_its_own_wasserstein_distance(shift, seed):
    hu = np.random.default_rng(seed).integers(-500, 500, (4, 5, 6)).astype(np.int16)
    assert wasserstein(counts(hu), counts(hu + np.int16(shift))) == pytest.approx(abs(shift), abs=1e-9)


def test_wasserstein_of_histograms_is_that_of_the_voxels():
    a, b = (
        np.random.default_rng(0).integers(-900, 900, (2, 3, 4, 5)),
        np.random.default_rng(1).integers(-99, 9, (5, 6, 7)),
    )
    found = wasserstein(counts(a[0]) + counts(a[1]), counts(b))
    assert found == pytest.approx(stats.wasserstein_distance(a.ravel(), b.ravel()), rel=1e-12)


def test_wider_bins_carry_further_and_ends_hold_what_lies_outside():
    hu = np.array([[[-3000.0, -1024.0, -1023.5, 0.0, 9.9, 10.0, 3071.9, 9000.0]]])
    found = counts(hu)
    assert found.shape == (4096,)
    assert {int(i) - 1024: int(found[i]) for i in np.flatnonzero(found)} == {-1024: 3, 0: 1, 9: 1, 10: 1, 3071: 2}
    coarse = counts(hu, low=-1000, high=1000, width=100)
    assert coarse.tolist() == [3] + [0] * 9 + [3] + [0] * 8 + [2]
    one, two = np.eye(5)[0], np.eye(5)[3] * 8
    assert wasserstein(one, two, width_hu=25.0) == 75.0


def test_histograms_refuse_what_they_cannot_count():
    with pytest.raises(DataInvalid, match="NaN"):
        counts(np.array([[[0.0, np.nan]]]))
    with pytest.raises(DataInvalid, match="without a voxel"):
        wasserstein(np.zeros(3), np.ones(3))
    with pytest.raises(DataInvalid, match="unlike bins"):
        wasserstein(np.ones(4), np.ones(3))
    with pytest.raises(ValueError, match="does not divide"):
        counts(np.zeros((1, 1, 1)), low=0, high=10, width=3)


# --- bad input to all


@pytest.mark.parametrize("distance", [frechet, kid, mmd_rbf, mmd_linear, prdc, above_floor, kid_subsets])
def test_every_distance_refuses_nan_unlike_widths_and_what_is_no_matrix(distance):
    rows = draw(1200, 2, 0)
    for real, made, reason in (
        (rows, np.full((1200, 2), np.nan), Reason.NOT_FINITE),
        (rows, draw(1200, 3, 0), Reason.MIXED),
        (rows, rows[:, 0], Reason.MIXED),
        (rows[:1], rows, Reason.TOO_SMALL),
        (rows[:, :0], rows[:, :0], Reason.MIXED),
    ):
        if distance is mmd_linear and reason is Reason.TOO_SMALL:
            continue
        with pytest.raises(DataInvalid) as refused:
            distance(real, made)
        assert refused.value.reason is reason


# --- what published code gives


U32 = np.uint64(0xFFFFFFFF)


def hash01(i, j, k, seed):
    """The reference's integer hash, uniform in [0, 1)."""
    h = np.uint64(0)
    for value, prime in ((i, 73856093), (j, 19349663), (k, 83492791), (np.uint64(seed), 2654435761)):
        h = h ^ (np.asarray(value, dtype=np.uint64) * np.uint64(prime) & U32)
    for _ in range(2):
        for bits, prime in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h = (h ^ (h >> np.uint64(bits))) * np.uint64(prime) & U32
        h = h ^ (h >> np.uint64(16))
    return h / 4294967296.0


@functools.cache
def law(name):
    """Features of 1000 x 512 (200 x 512 for the second draw); smaller matrices are its top left parts."""
    seed, n, base, common, extra = {
        "real": (101, 1000, 8, 0.5, 0.0),
        "fake": (202, 1000, 16, 0.25, 0.125),
        "second": (303, 200, 8, 0.5, 0.0),
    }[name]
    i, j = np.arange(n)[:, None], np.arange(512)
    normal = sum(hash01(i, j, t, seed) for t in range(12)) - 6
    column = sum(hash01(i, 99991, t, seed) for t in range(12)) - 6
    rows = normal * (1 + j % 8 / base) + common * column + 5 * j % 16 / 16 + extra * (j % 4 == 0)
    return np.rint(rows * 1024) / 1024


def part(which, n, d):
    return law(which)[:n, :d]


PUBLISHED_SETS = {
    **{
        f"d{d}_n{n}": lambda d=d, n=n: (part("real", n, d), part("fake", n, d))
        for d in (64, 512)
        for n in (50, 200, 1000)
    },
    **{f"d{d}_n200_same_law": lambda d=d: (part("real", 200, d), part("second", 200, d)) for d in (64, 512)},
    "d64_n50_identical": lambda: (part("real", 50, 64), part("real", 50, 64)),
    "d64_n200_collapsed": lambda: (part("real", 200, 64), part("fake", 200, 64)[np.arange(200) % 5]),
    "d64_n200_vs_n50": lambda: (part("real", 200, 64), part("fake", 50, 64)),
    "d64_n200_40_copied": lambda: (
        part("real", 200, 64),
        np.concatenate([part("real", 40, 64), part("fake", 200, 64)[40:]]),
    ),
}


@pytest.fixture(scope="module")
def published(ctdata: Path):
    path = ctdata.parent / "reference" / "scores"
    if not path.is_dir():
        pytest.skip(f"no reference values at {path}")
    return path


TOLD = {"mean_term", "trace_real", "trace_fake", "trace_sqrt_product", "covariance_rank_bound"}
"""Terms of the exact Frechet distance, which the reference tells beside it."""


def our_values(real, made, settings):
    """Every entry of the reference by our functions: `(value, relative, absolute tolerance)`."""
    same = ESTIMATORS if len(real) == len(made) else ESTIMATORS[:2]
    poly, sigma10 = polynomial(real, made), gaussian(real, made, 10.0)
    median_sigma = median_distance(real, made)
    median = gaussian(real, made, median_sigma)
    kids = {e: mmd(poly, e) for e in same}
    subsets = kid_subsets(real, made, settings["kid_subsets"], settings["kid_subset_size"], settings["rng_seed"])
    fd = frechet(real, made)
    # pytorch-fid, torch-fidelity, MONAI and torchmetrics are off by up to 1e-3 where a covariance is singular
    distinct = min(len(np.unique(rows, axis=0)) for rows in (real, made))
    theirs = (fd, 1e-10, 0) if distinct > real.shape[1] else (fd, 0, 1e-3)
    found = {
        "frechet_exact_own": ({"frechet": fd}, 1e-9, 1e-9),
        "kid_poly3_own": (kids, 1e-9, 1e-12),
        "kid_torch_fidelity_whole_set": (kids["unbiased"], 1e-9, 1e-12),
        "kid_torchmetrics_poly_mmd_whole_set": (kids["unbiased"], 1e-9, 1e-12),
        "kid_torch_fidelity_estimators": ({e.replace("_", "-"): value for e, value in kids.items()}, 1e-9, 1e-12),
        "kid_torch_fidelity_subsets": (settings | subsets._asdict(), 1e-9, 1e-12),
        "rbf_torch_fidelity_sigma10_unbiased": (mmd_rbf(real, made, 10.0), 1e-9, 1e-15),
        "mmd_rbf_own": (
            {
                "sigma10": {e: mmd(sigma10, e) for e in same},
                "median": {e: mmd(median, e) for e in same},
                "median_sigma": median_sigma,
            },
            1e-9,
            1e-15,
        ),
        "mmd_linear_unbiased_monai": (mmd_linear(real, made), 1e-9, 1e-12),
        "mmd_linear_biased_3dbraingen_whole_set": (mmd_linear(real, made, "biased"), 1e-9, 1e-12),
        "mmd_linear_biased_3dbraingen_mean_over_batches_of_50": (mmd_linear(real, made, "biased", 50), 1e-9, 1e-12),
        "_check": (
            {
                "real_shape": list(real.shape),
                "fake_shape": list(made.shape),
                "real_sum_of_1024ths": int(real.sum() * 1024),
                "fake_sum_of_1024ths": int(made.sum() * 1024),
            },
            0,
            0,
        ),
    }
    for library in ("pytorch_fid", "torch_fidelity", "monai", "torchmetrics"):
        found[f"frechet_{library}"] = theirs
    for k in (3, 5):
        strict, equal = prdc(real, made, k), prdc(real, made, k, or_equal=True)
        found[f"prdc_clovaai_k{k}"] = (strict._asdict(), 1e-12, 0)
        found[f"prdc_exact_integer_k{k}"] = ({"strict": strict._asdict(), "or_equal": equal._asdict()}, 1e-12, 0)
        told = {"precision": equal.precision, "recall": equal.recall, "f_score": equal.f_score}
        found[f"prc_torch_fidelity_k{k}"] = (told, 1e-6, 0)  # float32
    return found


def assert_equal(ours, expected, relative, absolute):
    if not isinstance(expected, dict):
        assert ours == pytest.approx(expected, rel=relative, abs=absolute)
        return
    assert set(ours) == set(expected) - TOLD
    for key in ours:
        assert_equal(ours[key], expected[key], relative, absolute)


@pytest.mark.parametrize("name", list(PUBLISHED_SETS))
def test_all_values_of_a_published_set_come_out(published, name):
    record = json.loads((published / "values.json").read_text())["sets"]
    assert set(record) == set(PUBLISHED_SETS)
    settings = {k: v for k, v in record[name]["kid_torch_fidelity_subsets"].items() if k not in ("mean", "std")}
    ours = our_values(*PUBLISHED_SETS[name](), settings)
    for entry, expected in record[name].items():
        assert_equal(ours[entry][0], expected, *ours[entry][1:])


def test_features_rebuild_exactly(published):
    stored = np.load(published / "features.npz")
    assert np.array_equal(stored["real_d64"], law("real")[:, :64] * 1024)
    assert np.array_equal(stored["fake_d64"], law("fake")[:, :64] * 1024)
    assert np.array_equal(stored["real_second_draw_d64"], law("second")[:, :64] * 1024)
