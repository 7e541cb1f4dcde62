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
from tomogen.evaluation.gather import Source, gather
from tomogen.evaluation.grids import difference, on_grid
from tomogen.evaluation.marks import marked
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
    turned, word = on_grid(truth, truth.reorient(letters), resampled=False)
    assert word == ""
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
    placed, word = on_grid(inner, ramp, resampled=True)
    assert "10 x 12 x 14 voxels against 20 x 24 x 28" in word
    np.testing.assert_array_equal(placed.hu, inner.hu)
    np.testing.assert_array_equal(placed.affine, inner.affine)


def test_grids_at_an_angle_are_not_guessed() -> None:
    truth = scan()
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    with pytest.raises(DataInvalid, match=r"5\.7 degrees"):
        on_grid(truth, Volume(truth.hu, turn @ truth.affine), resampled=True)


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
