"""Sets against sets: the order of the numbers, floors at one n, intervals, and what is refused."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from tomogen.errors import DataInvalid, Reason, UsageFault
from tomogen.evaluation import planes, sizes, words
from tomogen.evaluation.collection import Rows, Scan
from tomogen.evaluation.distances import frechet, kernel, neighbours
from tomogen.evaluation.features.random_conv import RandomConv
from tomogen.evaluation.parts import parts
from tomogen.evaluation.score import Score
from tomogen.evaluation.scores import Scores
from tomogen.evaluation.sets import Comparison, compare
from tomogen.evaluation.subjects import MADE, REAL
from tomogen.evaluation.view import View
from tomogen.volume import Volume, affine_of

SHAPE = (12, 12, 12)


@dataclass(frozen=True)
class Moments:
    """A network of a few features: cheap, and known."""

    dims: int
    name: str = "moments"
    sha256: str = "0" * 64
    width: int = 4
    range: tuple[float, float] | None = None
    preprocessing: str = "none"

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        flat = images.reshape(len(images), -1).astype(np.float64) / 100
        edges = np.abs(np.diff(images.astype(np.float64), axis=1)).reshape(len(images), -1).mean(axis=1) / 100
        return np.stack([flat.mean(axis=1), flat.std(axis=1), np.median(flat, axis=1), edges], axis=1)


NETWORKS = [Moments(2), Moments(3)]


def image(seed: int, shape: tuple[int, ...] = SHAPE) -> NDArray[np.float32]:
    """A random field whose mean and contrast are the patient's own."""
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.normal(size=shape), 1.5)
    return (random.normal(0, 40) + random.uniform(150, 250) * field / field.std()).astype(np.float32)


def scan(name: str, hu: NDArray[np.floating], spacing: tuple[float, ...] = (2, 1, 1), patient: str = "") -> Scan:
    return Scan(name, patient or name, Volume(hu.astype(np.float32), affine_of(spacing)))


def many(
    letter: str, seeds: range, change: Callable[[NDArray[np.float32]], NDArray[np.floating]] | None = None
) -> list[Scan]:
    return [scan(f"{letter}{seed}", image(seed) if change is None else change(image(seed))) for seed in seeds]


def value(found: Comparison, metric: str, subject: str = MADE) -> float:
    return score(found, metric, subject).value


def score(found: Comparison, metric: str, subject: str = MADE) -> Score:
    return Scores(kind="sets", subjects=found.subjects).get(subject, metric)


@pytest.fixture(scope="module")
def real() -> list[Scan]:
    return many("r", range(24))


@pytest.fixture(scope="module")
def alike(real: list[Scan]) -> Comparison:
    return compare(real, many("m", range(100, 116)), networks=NETWORKS)


def test_every_view_and_metric_is_there(alike: Comparison) -> None:
    names = {one.definition.metric for one in alike.subjects[MADE]}
    for metric in ("fid", "fid_above_floor", "kid", "mmd", "precision", "recall", "density", "coverage"):
        for view in (*planes.PLANES, "2.5d", "volume"):
            assert f"{metric}/{view}" in names
    assert {"hu_histogram", "coherence"} <= names


def test_made_and_floor_stand_in_one_table(alike: Comparison) -> None:
    table = {row.metric: row for row in Scores(kind="sets", subjects=alike.subjects).table()}
    beside = [row for metric, row in table.items() if metric.endswith("/equal n")]
    assert len(beside) > 30
    for row in beside:
        assert row.definition.n == (12, 12)
        assert row.scores[MADE] is not None
        assert row.scores[REAL] is not None
    assert all(one.definition.metric.endswith("/equal n") for one in alike.subjects[REAL])


def test_definitions_say_what_a_score_is_of(alike: Comparison) -> None:
    definition = score(alike, "kid/axial").definition
    assert definition.n == (24, 16)
    assert definition.axis == "axial"
    assert definition.features == f"moments, SHA-256 {'0' * 64}"
    assert "12 x 12 x 12 voxels of 2 x 1 x 1 mm" in definition.preprocessing
    assert "16 of a scan in a plane at most" in definition.reduction
    assert score(alike, "kid/2.5d").definition.axis == "axial, coronal, sagittal"


def test_scans_like_real_ones_lie_at_the_floor(alike: Comparison) -> None:
    for metric in ("kid/volume", "kid/2.5d", "hu_histogram", "coherence"):
        floor = score(alike, f"{metric}/equal n", REAL)
        made = score(alike, f"{metric}/equal n")
        assert floor.interval is not None
        assert made.interval is not None
        assert made.interval[0] <= floor.interval[1]
        assert floor.interval[0] <= made.interval[1]
    found = score(alike, "kid/volume").interval
    assert found is not None
    assert found[0] < 0 < found[1]
    assert any("cannot tell the made from the real" in note for note in alike.notes)


def test_the_worse_the_made_the_worse_the_numbers(real: list[Scan], alike: Comparison) -> None:
    def shifted(by: float) -> Comparison:
        return compare(real, many("m", range(100, 116), lambda hu: hu + by), networks=NETWORKS)

    found = [alike, shifted(60), shifted(200)]
    for metric in ("kid/axial", "kid/2.5d", "kid/volume", "mmd/2.5d", "mmd/volume", "hu_histogram"):
        numbers = [value(one, metric) for one in found]
        assert numbers == sorted(numbers), metric
    for metric in ("precision/volume", "recall/volume", "coverage/2.5d", "density/2.5d"):
        numbers = [value(one, metric) for one in found]
        assert numbers == sorted(numbers, reverse=True), metric
    assert value(found[2], "hu_histogram") - value(alike, "hu_histogram") == pytest.approx(200, abs=30)


def test_shuffled_slices_are_seen_across_them_and_by_coherence_alone(real: list[Scan], alike: Comparison) -> None:
    random = np.random.default_rng(0)
    shuffled = [scan(f"m{seed}", image(seed)[random.permutation(SHAPE[0])]) for seed in range(100, 116)]
    found = compare(real, shuffled, networks=[Moments(2), RandomConv(3)])
    for metric in ("kid/axial", "mmd/axial", "hu_histogram"):
        assert value(found, metric) == pytest.approx(value(alike, metric), abs=1e-9)
    assert value(found, "coherence") > 0.8 > 5 * value(alike, "coherence")
    assert value(found, "kid/coronal") > value(alike, "kid/coronal")
    whole = compare(real, many("m", range(100, 116)), networks=[RandomConv(3)])
    assert value(found, "kid/volume") > 3 * abs(value(whole, "kid/volume"))


@pytest.fixture(scope="module")
def halves() -> list[Scan]:
    return [scan(f"r{seed}", image(seed, (1, 12, 12))) for seed in range(120)]


def test_fid_of_a_set_against_itself_is_0_of_its_other_half_little_of_noise_much(halves: list[Scan]) -> None:
    first, second = halves[:60], halves[60:]
    noise = [scan(f"n{k}", np.random.default_rng(k).normal(0, 300, (1, 12, 12))) for k in range(60)]
    same, other, bad = (compare(first, made, networks=[Moments(2)]) for made in (first, second, noise))
    assert value(same, "fid/axial") == 0
    assert value(same, "precision/axial") == value(same, "coverage/axial") == 1
    assert 0 < value(other, "fid/axial") < 0.1 * value(bad, "fid/axial")
    assert value(other, "fid/axial/equal n") < 3 * value(other, "fid/axial/equal n", REAL)
    assert value(bad, "fid/axial/equal n") > 10 * value(bad, "fid/axial/equal n", REAL)
    assert value(bad, "precision/axial") < 0.2
    for found, unlike in ((other, False), (bad, True)):
        ends = score(found, "fid_above_floor/axial").interval
        assert ends is not None
        assert (ends[0] > 0) is unlike
    assert "n below 50" in score(other, "fid/axial/equal n").note


def test_under_50_scans_fid_stands_above_its_floor_alone(halves: list[Scan]) -> None:
    for count, told in ((19, False), (20, True), (50, True)):
        found = compare(halves[:count], halves[60 : 60 + count], networks=[Moments(2)])
        assert math.isnan(value(found, "fid_above_floor/axial")) is not told
        assert math.isnan(value(found, "fid/axial")) is (count < 50)
    assert abs(value(found, "fid_above_floor/axial")) < value(found, "fid/axial")


def test_slices_have_the_axial_view_alone(halves: list[Scan]) -> None:
    found = compare(many("r", range(6)), halves[:10], networks=NETWORKS)
    views = {one.definition.metric.split("/")[1] for one in found.subjects[MADE] if "/" in one.definition.metric}
    assert views == {"axial", "equal n"}
    assert score(found, "kid/axial").definition.n == (6 * 12, 10)
    assert not found.profiles
    assert "coherence" not in {one.definition.metric for one in found.subjects[MADE]}


def test_slices_of_one_patient_stay_on_one_side() -> None:
    for one in parts([f"p{k // 5}" for k in range(30)], 100, seed=3):
        assert not {k // 5 for k in one.reference} & {k // 5 for k in one.real}


@given(st.lists(st.integers(0, 6), min_size=2, max_size=40), st.integers(1, 60), st.integers(0, 5))
@settings(max_examples=60)
def test_parts_share_nobody_and_are_of_one_size(owners: list[int], made: int, seed: int) -> None:
    patients = [f"p{owner}" for owner in owners]
    drawn = parts(patients, made, seed, count=4)
    assert bool(drawn) == (len(set(patients)) > 1)
    for one in drawn:
        assert not {patients[k] for k in one.reference} & {patients[k] for k in one.real}
        assert len(one.real) == len(one.made) == len(drawn[0].real) <= made
        assert len(one.reference) == len(drawn[0].reference) > 0
        assert len(set(one.made)) == len(one.made)
    assert [one.real.tolist() for one in drawn] == [one.real.tolist() for one in parts(patients, made, seed, count=4)]


def test_views_agree_with_the_distances_of_rows() -> None:
    random = np.random.default_rng(0)
    rows = Rows(random.normal(size=(50, 6)) + 1, np.arange(50))
    view = View(rows, np.array([f"p{k}" for k in range(50)]), 30)
    first, second = np.arange(0, 30, 2), np.arange(31, 50)
    x, y = rows.values[first], rows.values[second]
    assert view.values("kid", first, second)["kid"] == pytest.approx(kernel.kid(x, y), rel=1e-12)
    assert view.values("mmd", first, second)["mmd"] == pytest.approx(kernel.mmd_rbf(x, y, view.sigma), rel=1e-12)
    assert view.values("fid", first, second)["fid"] == pytest.approx(frechet.frechet(x, y), rel=1e-12)
    assert view.values("prdc", first, second, 3) == neighbours.prdc(x, y, 3)._asdict()


def test_a_patient_counts_once_however_many_scans_there_are() -> None:
    random = np.random.default_rng(0)
    once = random.normal(size=(8, 3))
    again = np.concatenate([once[:1], once[:1], once])  # the first patient was scanned three times
    view = View(Rows(once, np.arange(8)), np.array(list("abcdefgh")), 4)
    more = View(Rows(again, np.arange(10)), np.array(list("aaabcdefgh")), 6)
    expected = view.values("kid", np.arange(4), np.arange(4, 8))["kid"]
    assert more.values("kid", np.arange(6), np.arange(6, 10))["kid"] == pytest.approx(expected, rel=1e-12)


def test_kid_of_slices_has_no_bias_though_slices_of_a_patient_are_alike() -> None:
    """Rows of a patient lie close together; over rows alone the estimate is far from 0 on average."""
    patients, each, by_patient, by_row = 8, 6, [], []
    for seed in range(150):
        random = np.random.default_rng(seed)
        centre = np.repeat(random.normal(size=(2 * patients, 3)), each, axis=0)
        rows = Rows(centre + 0.1 * random.normal(size=centre.shape), np.repeat(np.arange(2 * patients), each))
        view = View(rows, np.array([f"p{k}" for k in range(2 * patients)]), patients)
        by_patient.append(view.values("kid", np.arange(patients), np.arange(patients, 2 * patients))["kid"])
        by_row.append(kernel.kid(rows.values[: patients * each], rows.values[patients * each :]))
    error = np.std(by_patient) / np.sqrt(len(by_patient))
    assert abs(np.mean(by_patient)) < 3 * error
    assert np.mean(by_row) > 10 * error


@pytest.mark.parametrize("n", [1, 7])
def test_too_few_for_a_frechet_distance_is_a_sentence_and_no_value(n: int, real: list[Scan]) -> None:
    found = compare(real, many("m", range(100, 100 + n)), networks=NETWORKS)
    fid = score(found, "fid/volume")
    assert math.isnan(fid.value)
    assert f"24 real and {n} made scans, 50 of each needed" in fid.note
    assert math.isnan(value(found, "kid/volume")) == (n == 1)
    assert math.isfinite(value(found, "hu_histogram"))
    if n == 7:
        assert score(found, "kid/volume").interval is not None
        assert "k = 1 instead of 5" in score(found, "precision/volume").note


def test_a_single_real_patient_has_no_floor() -> None:
    found = compare(
        [scan(f"r{k}", image(k), patient="one") for k in range(4)], many("m", range(9, 14)), networks=NETWORKS
    )
    assert REAL not in found.subjects
    assert any("of one real patient" in note for note in found.notes)
    assert "1 real and 5 made patients" in score(found, "kid/axial").note
    assert score(found, "hu_histogram").interval is None


def test_the_floor_says_at_what_n_it_is(alike: Comparison, real: list[Scan]) -> None:
    assert any("12 real scans set apart" in note and "would take 40 real scans" in note for note in alike.notes)
    found = compare(real, many("m", range(100, 104)), networks=NETWORKS)
    assert score(found, "kid/volume/equal n").definition.n == (20, 4)


def test_the_same_seed_gives_the_same_scores(real: list[Scan]) -> None:
    def scores(seed: int) -> str:
        found = compare(real[:8], many("m", range(100, 104)), networks=NETWORKS, seed=seed)
        return Scores(kind="sets", subjects=found.subjects).to_json()

    assert scores(0) == scores(0)
    assert scores(0) != scores(1)


def test_order_and_orientation_of_the_scans_are_no_matter(real: list[Scan]) -> None:
    made = many("m", range(100, 106))
    turned = [one._replace(volume=one.volume.reorient("LPS")) for one in made]
    real = real[:8]
    a, b = (compare(real, some, networks=NETWORKS) for some in (made, turned))
    for metric in ("kid/axial", "kid/coronal", "kid/volume", "coherence"):
        assert value(b, metric) == pytest.approx(value(a, metric), abs=1e-12)
    c = compare(real[::-1], made[::-1], networks=NETWORKS)
    assert value(c, "kid/2.5d") == pytest.approx(value(a, "kid/2.5d"), abs=1e-12)


def test_scans_are_seen_one_at_a_time(real: list[Scan]) -> None:
    """Only the one before is still there when the next is read."""
    import gc
    import weakref

    alive: list[weakref.ref[Volume]] = []

    def stream() -> Iterator[Scan]:
        for seed in range(6):
            gc.collect()
            assert sum(one() is not None for one in alive) <= 1
            made = scan(f"m{seed}", image(seed))
            alive.append(weakref.ref(made.volume))
            yield made
            del made

    compare(real[:4], stream(), networks=[Moments(3)])
    assert len(alive) == 6


def test_histograms_and_profiles_are_handed_on(alike: Comparison) -> None:
    assert alike.histograms["real"].sum() == 24 * 12**3
    assert len(alike.edges) == len(alike.histograms["made"]) + 1
    assert alike.profiles["made"].shape == alike.profiles["real"].shape
    assert set(score(alike, "coherence").cases) == {f"m{seed}" for seed in range(100, 116)}


def test_fields_of_unlike_size_are_told(real: list[Scan]) -> None:
    made = [scan(f"m{seed}", image(seed, (12, 14, 12))) for seed in range(4)]
    found = compare(real[:6], made, networks=NETWORKS)
    assert any("real 12 x 12 x 12, made 12 x 14 x 12 voxels" in note for note in found.notes)


def test_a_view_that_a_network_cannot_see_is_left_out_and_told() -> None:
    thin = [scan(f"r{seed}", image(seed, (4, 12, 12)), (1, 1, 1)) for seed in range(4)]
    found = compare(thin, thin, networks=[RandomConv(2), RandomConv(3)])
    names = {one.definition.metric for one in found.subjects[MADE]}
    assert "kid/axial" in names
    assert not names & {"kid/coronal", "kid/2.5d", "kid/volume"}
    assert any("no scores of the view volume: r0: 4 x 12 x 12 voxels" in note for note in found.notes)


def test_what_is_made_may_be_blank_and_is_scored_as_bad(real: list[Scan], alike: Comparison) -> None:
    blank = [scan(f"m{k}", np.full(SHAPE, -300)) for k in range(4)]
    found = compare(real, blank, networks=NETWORKS)
    assert value(found, "kid/volume") > 10 * value(alike, "kid/volume")
    assert math.isnan(value(found, "coherence"))
    assert "4 scans have slices in which nothing changes" in score(found, "coherence").note


@pytest.mark.parametrize(
    ("which", "bad", "reason", "message"),
    [
        (0, scan("bad", np.full(SHAPE, 40)), Reason.CONSTANT, "every voxel of a real scan is 40 HU"),
        (1, scan("bad", np.full(SHAPE, np.nan)), Reason.NOT_FINITE, "NaN or infinity in a made scan"),
        (1, scan("bad", image(0), (2, 1, 1.5)), Reason.MIXED, r"2 x 1 x 1 mm \(made m0\) against 2 x 1 x 1.5 mm"),
        (0, scan("bad", image(0), (3, 1, 1)), Reason.MIXED, r"2 x 1 x 1 mm \(real m0\) against 3 x 1 x 1 mm"),
        (1, scan("bad", image(0, (1, 12, 12))), Reason.MIXED, "a slice among made volumes"),
    ],
)
def test_scans_that_cannot_be_scored_are_named(which: int, bad: Scan, reason: Reason, message: str) -> None:
    sets = [many("m", range(3)), many("m", range(3))]
    sets[which].append(bad)
    with pytest.raises(DataInvalid, match=message) as refused:
        compare(*sets, networks=NETWORKS)
    assert refused.value.reason is reason
    assert refused.value.at == "bad"


def test_sets_of_unlike_spacing_and_empty_ones_are_refused(real: list[Scan]) -> None:
    other = [scan("m0", image(0), (2, 1.2, 1.2))]
    with pytest.raises(DataInvalid, match=r"2 x 1 x 1 mm \(real r0\) against 2 x 1.2 x 1.2 mm \(made m0\)"):
        compare(real, other, networks=NETWORKS)
    for sets, which in ((([], real), "real"), ((real, iter([])), "made")):
        with pytest.raises(DataInvalid, match=f"no {which} scans"):
            compare(*sets, networks=NETWORKS)
    with pytest.raises(UsageFault, match="2 feature networks"):
        compare(real, real, networks=[Moments(2), Moments(2)])
    with pytest.raises(UsageFault, match="slices only"):
        compare([scan("r", image(0, (1, 12, 12)))], real, networks=[Moments(3)])


def test_slices_are_evenly_spaced_and_all_where_few() -> None:
    assert planes.places(5, 16) == [0, 1, 2, 3, 4]
    assert planes.places(64, 4) == [8, 24, 40, 56]
    for size in range(1, 100):
        found = planes.places(size, 16)
        assert len(found) == min(size, 16) == len(set(found))
        assert found[0] + found[-1] in (size - 1, size)


def test_planes_are_cut_across_their_axes() -> None:
    volume = Volume(np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4), affine_of((3, 2, 1)))
    cut = planes.cut(volume)
    np.testing.assert_array_equal(cut["axial"][1], volume.hu[1])
    np.testing.assert_array_equal(cut["coronal"][2], volume.hu[:, 2])
    np.testing.assert_array_equal(cut["sagittal"][3], volume.hu[:, :, 3])
    for plane, images in planes.cut(volume.reorient("LPS")).items():
        np.testing.assert_array_equal(images, cut[plane])
    assert {plane: images.shape[0] for plane, images in cut.items()} == {"axial": 2, "coronal": 3, "sagittal": 4}


def test_the_sentence_on_n_has_its_numbers(alike: Comparison) -> None:
    whole, made, floor = (
        score(alike, "kid/volume"),
        score(alike, "kid/volume/equal n"),
        score(alike, "kid/volume/equal n", REAL),
    )
    assert whole.interval is not None
    half = (whole.interval[1] - whole.interval[0]) / 2
    distance = made.value - floor.value
    side = "above" if distance >= 0 else "below"
    first, second = sizes.telling(whole, made, floor, (-0.5, 1.25))
    assert (
        f"lie {abs(distance):.2g} {side} the floor at equal n, made less floor in [-0.5, 1.2]; it cannot tell the made"
        in first
    )
    assert f"with 24 real and 16 made, two models that differ by less than {2**0.5 * half:.2g} cannot" in second
    assert "cannot tell the made from the real" in next(sizes.telling(whole, made, floor, None))
    assert "nearer to real scans than other real ones" in next(sizes.telling(whole, floor, floor, (-2, -1)))
    sure = replace(whole, interval=(whole.value - 1e-9, whole.value + 1e-9))
    assert not list(sizes.telling(sure, replace(made, value=floor.value + 1), floor, (0.5, 1.5)))


def test_two_draws_of_one_law_are_seldom_told_apart_and_another_law_is() -> None:
    def sentences(made: list[Scan], seed: int) -> str:
        return "; ".join(compare(many("r", range(seed, seed + 16)), made, networks=[Moments(3)]).notes)

    same = [sentences(many("m", range(seed + 50, seed + 62)), seed) for seed in range(1000, 3000, 100)]
    found = ["kid/volume" in told and "cannot tell the made from the real" in told for told in same]
    assert sum(found) >= 18
    far = sentences(many("m", range(50, 62), lambda hu: hu + 300), 0)
    assert "kid/volume: the made lie" not in far


def test_shares_of_few_scans_have_a_width(real: list[Scan]) -> None:
    far = compare(real[:8], many("m", range(100, 104), lambda hu: hu + 3000), networks=[Moments(3)])
    for metric in ("precision/volume", "recall/volume", "coverage/volume"):
        found = score(far, metric)
        assert found.value == 0
        assert found.interval is not None
        assert found.interval[0] == 0
        # of 4 made patients, or of 8 real ones
        assert found.interval[1] == pytest.approx(0.64 if metric == "precision/volume" else 0.42, abs=0.01)
    density = score(far, "density/volume")
    assert (density.value, density.interval) == (0, None)
    assert "no interval" in density.note


def test_the_range_of_hu_is_the_networks_and_is_said_once(real: list[Scan]) -> None:
    found = compare(real[:4], many("m", range(100, 103)), networks=[RandomConv(3)])
    definition = score(found, "kid/volume").definition
    assert definition.range == (-1024, 3071)
    assert "HU -1024..3071" in words.terms(definition)
    assert words.terms(definition).count("3071") == 1
    assert "HU as they are" not in words.terms(definition)
    assert "pairs of unlike patients" in words.terms(definition)
    assert "pairs pairs" not in words.terms(definition)
