"""Pairs must lie voxel on voxel: what is turned, what is refused, what is resampled; and the scans under a path."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
import tomogen
from tomogen import formats
from tomogen.errors import DataInvalid, InputMissing, Reason
from tomogen.evaluation.floors import MeanScan, blurred
from tomogen.evaluation.gather import Source, gather, guessed
from tomogen.evaluation.grids import difference, on_grid, size
from tomogen.evaluation.marks import Marks, marked
from tomogen.formats import DEFAULT
from tomogen.volume import Volume, affine_of


def scan(
    shape: tuple[int, int, int] = (6, 8, 10), spacing: tuple[float, float, float] = (2.5, 0.8, 0.7), seed: int = 0
) -> Volume:
    hu = np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)
    return Volume(hu, affine_of(spacing, (-30, 12, 400)))


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(3)), flips=st.tuples(*[st.booleans()] * 3))
def test_a_scan_turned_and_flipped_lies_on_its_own_grid_again(order: list[int], flips: tuple[bool, ...]) -> None:
    truth = scan()
    pairs = [("SI", 0), ("PA", 1), ("LR", 2)]
    letters = "".join(pairs[axis][0][int(flips[axis])] for axis in order)
    turned, covered, moved = on_grid(truth, truth.reorient(letters), resampled=False)
    assert moved == ""
    assert size(covered) == truth.shape
    np.testing.assert_array_equal(turned.hu, truth.hu)


def test_differing_grids_are_refused_with_both_shown() -> None:
    truth = scan()
    for other, words in (
        (scan((6, 8, 9)), ("6 x 8 x 10", "6 x 8 x 9")),
        (scan(spacing=(2.5, 0.8, 0.8)), ("2.5, 0.8, 0.7", "2.5, 0.8, 0.8")),
        (Volume(truth.hu, affine_of(truth.spacing, (-30, 15, 400))), ("3.0 mm apart", "-30, 12, 400", "-30, 15, 400")),
    ):
        with pytest.raises(DataInvalid) as caught:
            on_grid(truth, other, resampled=False, at="made.nii")
        assert caught.value.reason is Reason.UNPAIRED
        assert all(word in str(caught.value) for word in (*words, "--resample", "made.nii"))


def test_rounded_headers_make_no_other_grid() -> None:
    truth = scan()
    near = Volume(truth.hu, affine_of((2.5, 0.8001, 0.7), (-30.01, 12, 400)))
    assert difference(truth, near) == ""


def test_a_shifted_scan_is_resampled_to_where_it_was() -> None:
    z, y, x = np.mgrid[:20, :24, :28]
    ramp = Volume((10 * z + 5 * y - 3 * x).astype(np.int16), affine_of((2, 1, 1)))
    inner = ramp.crop((3, 4, 5), (10, 12, 14))
    placed, covered, moved = on_grid(inner, ramp, resampled=True)
    assert "10 x 12 x 14 voxels against 20 x 24 x 28" in moved
    assert size(covered) == inner.shape
    np.testing.assert_array_equal(placed.hu, inner.hu)
    np.testing.assert_array_equal(placed.affine, inner.affine)


@settings(max_examples=30, deadline=None)
@given(start=st.tuples(*[st.integers(-4, 11)] * 3), step=st.sampled_from([0.5, 1.0, 2.0]))
def test_what_a_resampled_scan_reaches_is_what_it_holds(start: tuple[int, ...], step: float) -> None:
    truth = Volume(np.zeros((8, 9, 10), np.int16), affine_of((1, 1, 1)))
    made = Volume(np.full((7, 7, 7), 100, np.int16), affine_of((step, step, step), (start[2], start[1], start[0])))
    made.hu[3, 3, 3] = 101
    index = [(np.arange(count) - first) / step for count, first in zip(truth.shape, start, strict=True)]
    d, h, w = ((along >= -0.5) & (along <= 6.5) for along in index)
    expected = d[:, None, None] & h[:, None] & w
    if not expected.any():
        with pytest.raises(DataInvalid, match="share no voxel"):
            on_grid(truth, made, resampled=True)
        return
    placed, covered, _ = on_grid(truth, made, resampled=True)
    reached = np.zeros(truth.shape, bool)
    reached[covered] = True
    np.testing.assert_array_equal(reached, expected)
    np.testing.assert_array_equal(placed.hu > -1024, expected)


def test_scans_that_share_no_voxel_are_refused() -> None:
    truth = scan()
    far = Volume(truth.hu, affine_of(truth.spacing, (4970, 12, 400)))
    with pytest.raises(DataInvalid, match="share no voxel") as caught:
        on_grid(truth, far, resampled=True, at="made.nii")
    assert caught.value.reason is Reason.UNPAIRED


@pytest.mark.parametrize("resampled", [False, True])
def test_grids_at_an_angle_are_to_be_registered(resampled: bool) -> None:
    truth = scan()
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    for tilted in (Volume(truth.hu, turn @ truth.affine), Volume(truth.hu[1:], turn @ truth.affine)):
        with pytest.raises(DataInvalid, match=r"angle of 5\.7 degrees") as caught:
            on_grid(truth, tilted, resampled=resampled)
        assert caught.value.fix == "register them first"


def test_scans_are_named_by_their_place_and_patients_by_nobody(tmp_path: Path) -> None:
    for place in ("a/one.nii.gz", "a/two.mha", "b/one.nrrd"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        formats.write(scan(seed=len(place) + ord(place[0])), tmp_path / place)
    formats.write(scan(seed=77), tmp_path / "b" / "series")
    (tmp_path / "b" / "notes.txt").write_text("nothing")
    found = gather(tmp_path)
    assert [source.name for source in found] == ["a/one", "a/two", "b/one", "b/series"]
    assert sorted(source.patient for source in found) == [f"patient-000{n}" for n in (1, 2, 3, 4)]
    assert found[3].read().shape == (6, 8, 10)


def test_a_scan_in_several_formats_counts_once(tmp_path: Path) -> None:
    for ending in (".nii.gz", ".mha", ""):
        formats.write(scan(), tmp_path / f"sample{ending}")
    tomogen.view(tmp_path / "sample.mha", tmp_path / "sample.gif")
    tomogen.view(tmp_path / "sample.mha", tmp_path / "grid.png")
    found = gather(tmp_path)
    assert [source.name for source in found] == ["sample"]
    np.testing.assert_array_equal(found[0].read().hu, scan().hu)


def test_a_csv_joins_scans_of_one_patient(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        formats.write(scan(seed=len(name)), tmp_path / "scans" / f"{name}.nii")
    (tmp_path / "who.csv").write_text("path,patient\none.nii,A\nthree.nii,A\ntwo.nii,B\n")
    found = {source.name: source.patient for source in gather(tmp_path / "scans", patients=tmp_path / "who.csv")}
    assert found["one"] == found["three"] != found["two"]
    assert set(found.values()) == {"patient-0001", "patient-0002"}


def test_a_csv_that_names_none_of_the_scans_is_refused(tmp_path: Path) -> None:
    formats.write(scan(), tmp_path / "scans" / "one.nii")
    (tmp_path / "who.csv").write_text("path,patient\nzero.nii,A\nnought.nii,B\n")
    with pytest.raises(DataInvalid, match=r"no line of the CSV .*line 2 names .*zero\.nii") as caught:
        gather(tmp_path / "scans", patients=tmp_path / "who.csv")
    assert str(tmp_path / "who.csv") == caught.value.at


def test_patients_that_nobody_names_are_told(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        formats.write(scan(seed=len(name) + ord(name[0])), tmp_path / "scans" / f"{name}.nii")
    (sentence,) = guessed(gather(tmp_path / "scans"))
    assert sentence.startswith("3 scans name no patient")
    assert "--patients" in sentence
    (tmp_path / "who.csv").write_text("path,patient\none.nii,A\nthree.nii,A\n")
    (sentence,) = guessed(gather(tmp_path / "scans", patients=tmp_path / "who.csv"))
    assert sentence.startswith("1 scan names no patient")
    (tmp_path / "who.csv").write_text("path,patient\n.,A\n")
    assert guessed(gather(tmp_path / "scans", patients=tmp_path / "who.csv")) == []
    assert guessed(gather(tmp_path / "scans" / "one.nii")) == []


def test_prepared_cases_are_gathered_by_split(tmp_path: Path) -> None:
    tiny.cases(tmp_path / "cases", count=3)
    assert len(gather(tmp_path / "cases")) == len(gather(tmp_path / "cases", split="train")) == 3
    assert gather(tmp_path / "cases", split="val") == []


def test_nothing_and_damage_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        gather(tmp_path / "absent")
    with pytest.raises(InputMissing, match="0 files"):
        gather(tmp_path)
    formats.write(scan(), tmp_path / "good.nii")
    whole = (tmp_path / "good.nii").read_bytes()
    (tmp_path / "cut.nii").write_bytes(whole[:200])
    with pytest.raises(DataInvalid, match=r"cut\.nii"):
        gather(tmp_path)


def test_a_mask_marks_the_voxels_of_its_scan(tmp_path: Path) -> None:
    truth = scan()
    label = Volume((truth.hu > 500).astype(np.int16), truth.affine)
    (tmp_path / "masks").mkdir()
    formats.write(label.reorient("RAI"), tmp_path / "masks" / "case.nii.gz")
    np.testing.assert_array_equal(marked(tmp_path / "masks", "case", truth, DEFAULT), truth.hu > 500)
    with pytest.raises(InputMissing, match="no mask for other"):
        marked(tmp_path / "masks", "other", truth, DEFAULT)
    with pytest.raises(DataInvalid, match="another grid"):
        marked(tmp_path / "masks", "case", scan((6, 8, 9)), DEFAULT)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (scan().hu, "values down to -"),
        (np.abs(scan().hu), "different values; labels are whole numbers"),
        (np.linspace(0, 1, 480, dtype=np.float32).reshape(6, 8, 10), "not whole"),
        (np.zeros((6, 8, 10), np.int16), "marks no voxel"),
    ],
)
def test_what_is_no_mask_is_refused(values: np.ndarray, words: str, tmp_path: Path) -> None:
    formats.write(Volume(values, scan().affine), tmp_path / "t.nii.gz")
    with pytest.raises(DataInvalid, match=words) as caught:
        marked(tmp_path / "t.nii.gz", "case", scan(), DEFAULT)
    assert "mask" in str(caught.value)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_a_mask_of_all_voxels_is_one(ending: str, tmp_path: Path) -> None:
    formats.write(Volume(np.ones((6, 8, 10), np.int16), scan().affine), tmp_path / f"all{ending}")
    assert marked(tmp_path / f"all{ending}", "case", scan(), DEFAULT).all()
    with pytest.raises(DataInvalid, match="another grid"):
        marked(tmp_path / f"all{ending}", "case", scan((6, 8, 9)), DEFAULT)


def test_a_misspelt_body_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="did you mean body"):
        marked("bdy", "case", scan(), DEFAULT)


def test_masks_of_one_name_are_told_apart_by_what_they_mark(tmp_path: Path) -> None:
    truth, names = scan(), []
    for number, low in enumerate((500, 500, 800)):
        marks = [Volume((scan(seed=seed).hu > low).astype(np.int16), truth.affine) for seed in (0, 1)]
        folder = tmp_path / str(number) / "m"
        for name, mark in zip("ab", marks, strict=True):
            formats.write(mark, folder / f"{name}.nii.gz")
        seen = Marks(folder, None, DEFAULT)
        for name in "ab":
            assert seen.counting(truth, name, (slice(0, 6), slice(0, 8), slice(2, 10))).shape == (6, 8, 8)
        assert seen.structure(truth, "a", (slice(0, 6), slice(0, 8), slice(0, 10))) is None
        names.append(seen.names()[seen.counted])
    assert all(name.startswith("given: m, SHA-256 ") for name in names)
    assert names[0] == names[1] != names[2]


def test_the_blurred_truth_keeps_its_mean_and_loses_its_edges() -> None:
    truth = scan().hu
    soft = blurred(truth)
    assert float(soft.mean()) == pytest.approx(float(truth.mean()), abs=40)
    assert soft.std() < 0.6 * truth.std()


def test_the_mean_scan_lies_centre_on_centre() -> None:
    truth = scan()
    one, two = (
        Volume(np.full((6, 8, 10), hu, np.int16), affine_of((2.5, 0.8, 0.7), (200, 0, 0))) for hu in (-200, 100)
    )
    one.hu[3, 4, 5] = 0
    mean = MeanScan([Source("1", "p", lambda: one), Source("2", "q", lambda: two)]).on(truth)
    assert mean.shape == truth.shape
    assert mean[0, 0, 0] == -50
    assert mean[3, 4, 5] == 50
    assert not MeanScan([Source("1", "p", lambda: one)]).holds(one)


def test_the_mean_scan_is_of_those_that_reach_a_voxel_and_knows_them_again() -> None:
    truth = scan()
    narrow = Volume(np.full((6, 8, 6), 100, np.int16), truth.affine)
    wide = Volume(np.full((6, 8, 8), 300, np.int16), truth.affine)
    mean = MeanScan([Source("1", "p", lambda: narrow), Source("2", "q", lambda: wide)])
    found = mean.on(truth)
    assert found[0, 0].tolist() == [-1024, 300, 200, 200, 200, 200, 200, 200, 300, -1024]
    assert mean.holds(wide.reorient("IAR"))
    assert not mean.holds(truth)
    assert "2 scans of 2 patients" in mean.told
