"""Sets of pictures: every slice of any number of scans in any windows, a CSV that tells which, and the way back."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import dicoms
import test_privacy
import tomogen
from tomogen import formats
from tomogen.cases.folder import CaseFolder
from tomogen.cli.__main__ import main
from tomogen.errors import DataInvalid, InputMissing, Interrupted, Reason, UsageFault
from tomogen.formats import ReadOptions
from tomogen.formats.pictures.merge import RINGING, Scale, accuracy, merged
from tomogen.formats.pictures.views import grey
from tomogen.intensity import BONE, LUNG, MEDIASTINUM, Window, windows
from tomogen.volume import Acquisition, Volume, affine_of

SIDE = 24


def body(depth: int = 6, seed: int = 0, air: tuple[int, ...] = ()) -> NDArray[np.int16]:
    """An ellipse of tissue with lungs and bone in air; slices `air` hold nothing of it."""
    k, j, i = np.indices((depth, SIDE, SIDE))
    hu = np.random.default_rng(seed).integers(-1020, -980, k.shape)
    inside = ((i - 11.5) / 10) ** 2 + ((j - 11.5) / 8) ** 2 < 1
    hu[inside] = np.random.default_rng(seed + 1).integers(-900, 1400, k.shape)[inside]
    hu[list(air)] = np.random.default_rng(seed + 2).integers(-1020, -980, (len(air), SIDE, SIDE))
    return hu.astype(np.int16)


def patient(folder: Path, name: str, seed: int, **more: object) -> NDArray[np.int16]:
    """A DICOM series of the patient `name`; files are called alike in every folder."""
    hu = body(seed=seed)
    datasets = dicoms.slices(hu, spacing=(5, 12, 12))
    for d in datasets:
        d.PatientID, d.PatientName = name, f"{name}^Canary"
        for word, value in more.items():
            setattr(d, word, value)
    dicoms.save(folder, datasets)
    return hu


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, list[NDArray[np.int16]]]:
    """Two patients with equal file names, one of them with two series."""
    scans = tmp_path / "scans"
    hu = [patient(scans / name, name[:3], seed) for seed, name in enumerate(("SMI-a", "SMI-b", "DOE-a"))]
    return scans, hu


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "pictures.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rewrite(folder: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    lines = change(rows(folder))
    with (folder / "pictures.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, lines[0].keys())
        out.writeheader()
        out.writerows(lines)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


def single(path: Path, hu: NDArray[np.int16], orientation: str = "SPL") -> Path:
    formats.write(Volume(hu, affine_of((5, 12, 11), (-10, 20, 30), orientation), Acquisition(synthetic=True)), path)
    return path


def test_many_scans_become_one_set_without_a_collision_and_come_back_exactly(
    tree: tuple[Path, list[NDArray[np.int16]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, hu = tree
    code, out, err = run(capsys, "convert", source, tmp_path / "set", "--to", "png")
    assert (code, out) == (0, f"{tmp_path}/set/pictures.csv\n"), err
    assert "18 pictures of 18 slices, 3 scans, 2 patients" in err
    assert "exact" in err
    lines = rows(tmp_path / "set")
    assert len({line["picture"] for line in lines}) == len(lines) == 18
    assert {tuple(line["scan"].split("-scan-")) for line in lines} >= {("patient-0001", "01"), ("patient-0002", "01")}
    assert all((tmp_path / "set" / line["picture"]).is_file() for line in lines)
    made = tomogen.convert(tmp_path / "set" / "pictures.csv", tmp_path / "back", to="nii")
    assert (made.scans, made.patients, len(made.files)) == (3, 2, 3)
    back = {formats.read(file).hu.tobytes() for file in made.files}
    assert back == {one.tobytes() for one in hu}
    assert formats.read(made.files[0]).hu.dtype == np.int16


def test_a_line_says_where_its_slice_lies_and_no_patient(
    tree: tuple[Path, list[NDArray[np.int16]]], tmp_path: Path
) -> None:
    tomogen.convert(tree[0], tmp_path / "set", to="png", window="mediastinum")
    datasets = [pydicom.dcmread(file) for file in tree[0].rglob("*.dcm")]
    held = {grey(d.pixel_array.astype(np.int16) - 1024, MEDIASTINUM).tobytes(): d for d in datasets}
    for line in rows(tmp_path / "set"):
        dataset = held.pop(np.asarray(Image.open(tmp_path / "set" / line["picture"])).tobytes())
        assert [float(line[f"{axis}_mm"]) for axis in "xyz"] == pytest.approx(list(dataset.ImagePositionPatient))
        uids = dataset.SeriesInstanceUID, dataset.StudyInstanceUID
        for path in (tmp_path / "set").rglob("*.png"):
            assert not any(word.encode() in path.read_bytes() for word in ("Canary", *uids))
        assert not any(word in (tmp_path / "set" / "pictures.csv").read_text() for word in ("Canary", *uids))
    assert not held


def test_no_folder_or_file_name_of_the_user_gets_into_a_set(tmp_path: Path) -> None:
    patient(tmp_path / "scans" / "DOE_JANE" / "DOE_CT", "A", 0)
    single(tmp_path / "scans" / "DOE_JOHN.nii.gz", body(seed=5))
    for kind in ("png", "jpg"):
        tomogen.convert(tmp_path / "scans", tmp_path / kind, to=kind, window="lung")
        for path in (tmp_path / kind).rglob("*"):
            said = str(path.relative_to(tmp_path)).encode() + (path.read_bytes() if path.is_file() else b"")
            assert not any(word in said for word in (b"DOE", b"scans", b".dcm", b".nii"))


def test_who_hands_a_set_on_is_told_that_the_list_of_failures_holds_paths(
    tree: tuple[Path, list[NDArray[np.int16]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "convert", tree[0], tmp_path / "whole", "--to", "png")
    assert (code, "leave it out" in err) == (0, False)
    for file in (tree[0] / "SMI-b").iterdir():
        file.write_bytes(file.read_bytes()[:-300])
    code, _, err = run(capsys, "convert", tree[0], tmp_path / "set", "--to", "png")
    assert code == 8
    assert f"{tmp_path}/set/failed.jsonl names scans by their paths: leave it out" in err
    assert "SMI-b" not in (tmp_path / "set" / "pictures.csv").read_text()


def test_patients_are_numbered_as_prepare_numbers_them(
    tree: tuple[Path, list[NDArray[np.int16]]], tmp_path: Path
) -> None:
    tomogen.prepare(tree[0], tmp_path / "cases", shape=(4, 8, 8), workers=1)
    tomogen.convert(tree[0], tmp_path / "set", to="png")
    drawn = {(line["patient"], line["scan"]) for line in rows(tmp_path / "set")}
    cases = CaseFolder.open(tmp_path / "cases").cases
    assert sorted(name for name, _ in drawn) == sorted(case.patient for case in cases)


def test_a_csv_says_whose_scans_are_whose_and_equal_voxels_count_once(
    tree: tuple[Path, list[NDArray[np.int16]]], tmp_path: Path
) -> None:
    shutil.copytree(tree[0] / "DOE-a", tree[0] / "again")
    for file in (tree[0] / "again").iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = "1.2.3"
        dataset.save_as(file)
    (tmp_path / "who.csv").write_text("path,patient\nSMI-a,A\nSMI-b,B\nDOE-a,C\nagain,C\n")
    made = tomogen.convert(tree[0], tmp_path / "set", to="png", patients=tmp_path / "who.csv")
    assert (made.scans, made.patients, made.copies) == (3, 3, 1)


@pytest.mark.parametrize("orientation", ["SPL", "LAI", "ARS", "IPR"])
def test_every_voxel_comes_back_to_its_place_whatever_way_slices_were_cut(orientation: str, tmp_path: Path) -> None:
    source = single(tmp_path / "x.nii.gz", body(), orientation)
    tomogen.convert(source, tmp_path / "set", to="png")
    before, after = formats.read(source).reorient(), formats.read(tmp_path / "set")
    assert np.array_equal(after.hu, before.hu)
    assert np.allclose(after.affine, before.affine, atol=1e-6)
    assert after.acquisition.synthetic
    assert b"SYNTHETIC" in next((tmp_path / "set" / "hu").iterdir()).read_bytes()


def test_several_windows_give_the_finest_value_in_each_range(tmp_path: Path) -> None:
    source = single(tmp_path / "x.nii.gz", body())
    made = tomogen.convert(source, tmp_path / "set", to="png", window="lung,mediastinum,bone")
    true, back = formats.read(source).hu, formats.read(tmp_path / "set").hu
    error = np.abs(back - true)
    assert [round(one.error, 3) for one in made.accuracy] == [2.941, 0.784, 3.922]
    for one in made.accuracy:
        within = (true >= one.low) & (true <= one.high)
        assert within.any()
        assert error[within].max() <= one.error + 1e-3
        assert error[within].max() > one.error / 2  # the bound is no larger than it need be
    alone = tomogen.convert(source, tmp_path / "lung", to="png", window="lung").accuracy
    assert [(one.low, one.high) for one in alone] == [(-1350, 150)]


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(-1200, 1000), st.integers(20, 2500)).map(lambda ends: Window(ends[0], sum(ends))),
        min_size=1, max_size=4,
    ),
    st.integers(0, 10**6),
)  # fmt: skip
def test_no_value_is_further_off_than_is_said(shown: list[Window], seed: int) -> None:
    scales = [Scale(window, 255) for window in shown]
    hu = np.random.default_rng(seed).integers(-1300, 3600, 4000).astype(np.float32)
    error = np.abs(merged([grey(hu, window) for window in shown], scales) - hu)
    for one in accuracy(scales):
        within = (hu >= one.low) & (hu <= one.high)
        assert (error[within] <= one.error + 0.01).all()
    ends = min(w.low for w in shown), max(w.high for w in shown)
    outside = (hu < ends[0]) | (hu > ends[1])
    clipped = hu[outside].clip(*ends)
    assert np.abs(error[outside] - np.abs(clipped - hu[outside])).max(initial=0) < 0.01


def test_between_windows_that_do_not_meet_nothing_is_promised() -> None:
    found = accuracy([Scale(Window(-1000, -500), 255), Scale(Window(0, 510), 255)])
    assert [one.error for one in found] == [pytest.approx(500 / 510), float("inf"), 1]
    assert (found[1].low, found[1].high) == (pytest.approx(-500 - 500 / 510), 1)


def test_jpeg_at_odds_believes_the_widest_window() -> None:
    scales = [Scale(LUNG, 255, RINGING), Scale(MEDIASTINUM, 255, RINGING)]
    lung = grey(np.array([[-1000.0, 50.0]], np.float32), LUNG)
    # Ringing lifted the first pixel to grey 40 of the fine window: -97 HU, which the wide one excludes.
    hu = merged([lung, np.array([[40, 134]], np.uint8)], scales)
    assert hu[0] == pytest.approx([-1000, -160 + 134 * 400 / 255], abs=3)


def test_jpeg_is_lossy_and_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = single(tmp_path / "x.nii.gz", body())
    code, _, err = run(capsys, "convert", source, tmp_path / "set", "--to", "jpg", "--window", "lung")
    assert code == 0
    assert "lossy" in err
    smooth = formats.read(tmp_path / "set").hu
    assert np.abs(smooth.clip(-1350, 150) - body().clip(-1350, 150)).mean() < 3 * LUNG.width / 255
    code, _, err = run(capsys, "convert", source, tmp_path / "other", "--to", "jpg")
    assert code == 2
    assert "JPEG holds 8 bits" in err


def test_blank_slices_are_left_out_counted_and_come_back_as_air(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hu = body(9, air=(0, 1, 8))
    hu[0, 20:22, 4:20] = 200  # a table is no body
    source = single(tmp_path / "x.nii.gz", hu)
    code, _, err = run(capsys, "convert", source, tmp_path / "set", "--to", "png", "--skip-blank")
    assert code == 0
    assert "3 blank slices left out" in err
    assert sorted({int(line["slice"]) for line in rows(tmp_path / "set")}) == [3, 4, 5, 6, 7, 8]
    code, _, err = run(capsys, "convert", tmp_path / "set", tmp_path / "back", "--to", "nii")
    assert code == 0
    assert "3 blank slices became air" in err
    back = formats.read(tmp_path / "back" / "patient-0001-scan-01.nii.gz")
    assert np.array_equal(back.hu[2:8], hu[2:8])
    assert (back.hu[[0, 1, 8]] == -1000).all()
    assert np.allclose(back.affine, formats.read(source).affine)


def test_a_damaged_series_among_many_fails_alone(
    tree: tuple[Path, list[NDArray[np.int16]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, hu = tree
    for file in (source / "SMI-b").iterdir():
        file.write_bytes(file.read_bytes()[:-300])
    (source / "notes.txt").write_text("nothing")
    code, out, err = run(capsys, "convert", source, tmp_path / "set", "--to", "png", "--json")
    found = json.loads(out)
    assert (code, found["scans"]) == (8, 2), err
    failed = [json.loads(line) for line in (tmp_path / "set" / "failed.jsonl").read_text().splitlines()]
    assert failed
    assert all("SMI-b" in one["path"] for one in failed)
    assert [Path(one["path"]).name for one in found["refused"]] == ["notes.txt"]
    made = tomogen.convert(tmp_path / "set", tmp_path / "back", to="nii")
    assert {formats.read(file).hu.tobytes() for file in made.files} == {hu[0].tobytes(), hu[2].tobytes()}


def test_when_every_series_fails_that_is_the_error_and_nothing_is_written(tmp_path: Path) -> None:
    patient(tmp_path / "scans" / "a", "A", 0, RescaleSlope=None)
    with pytest.raises(DataInvalid):
        tomogen.convert(tmp_path / "scans", tmp_path / "set", to="png")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputMissing, match="no CT found"):
        tomogen.convert(tmp_path / "none", tmp_path / "set", to="png")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["none", "scans"]


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_set_that_is_not_whole_leaves_nothing_and_an_earlier_one_as_it_was(
    stopped: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = single(tmp_path / "x.nii.gz", body())
    tomogen.convert(source, tmp_path / "set", to="png", window="lung")
    before = (tmp_path / "set" / "pictures.csv").read_bytes()
    count = 0
    save = formats.pictures.slices.save  # type: ignore[attr-defined]

    def some(*arguments: object) -> None:
        nonlocal count
        if (count := count + 1) > 3:
            raise stopped
        save(*arguments)

    monkeypatch.setattr("tomogen.formats.pictures.slices.save", some)
    for name in ("set", "fresh"):
        count = 0
        with pytest.raises((Interrupted, OSError)):
            tomogen.convert(source, tmp_path / name, to="png", overwrite=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["set", "x.nii.gz"]
    assert (tmp_path / "set" / "pictures.csv").read_bytes() == before


def test_only_a_set_of_ours_is_replaced_and_only_when_asked(tmp_path: Path) -> None:
    source, out = single(tmp_path / "x.nii.gz", body()), tmp_path / "set"
    tomogen.convert(source, out, to="png", window="lung,bone")
    with pytest.raises(UsageFault, match="there already"):
        tomogen.convert(source, out, to="png")
    tomogen.convert(source, out, to="png", overwrite=True)
    assert sorted(entry.name for entry in out.iterdir()) == ["hu", "pictures.csv"]
    (out / "hu" / "thesis.png").write_bytes(b"ten years")
    with pytest.raises(UsageFault, match="more than pictures"):
        tomogen.convert(source, out, to="png", overwrite=True)
    with pytest.raises(UsageFault, match="a set of pictures already"):
        tomogen.convert(out, tmp_path / "more", to="png")
    with pytest.raises(UsageFault, match="PNG or JPEG"):
        tomogen.convert(source, tmp_path / "more", to="png,jpg", window="lung")
    with pytest.raises(UsageFault, match="is for sets of pictures"):
        tomogen.convert(source, tmp_path / "more", to="nii", skip_blank=True)
    with pytest.raises(UsageFault, match="lie in the output folder"):
        tomogen.convert(source, tmp_path, to="png")


def test_beside_other_formats_the_set_has_a_folder_of_its_own(tmp_path: Path) -> None:
    made = tomogen.convert(single(tmp_path / "x.nii.gz", body()), tmp_path / "out", to="mha,png")
    assert [str(Path(file).relative_to(tmp_path)) for file in made.files] == ["out/x.mha", "out/pictures/pictures.csv"]


def test_a_set_is_read_wherever_a_scan_is_and_several_are_told_apart(
    tree: tuple[Path, list[NDArray[np.int16]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tomogen.convert(tree[0], tmp_path / "set", to="png", window="-1100,1500")
    code, _, err = run(capsys, "convert", tmp_path / "set", tmp_path / "one.nii.gz")
    assert code == 4
    assert "3 scans: patient-0001-scan-01, " in err
    assert "fix: --series patient-0001-scan-01" in err
    tomogen.convert(tmp_path / "set", tmp_path / "one.nii.gz", options=ReadOptions(series="patient-0002-scan-01"))
    assert formats.read(tmp_path / "one.nii.gz").shape == (6, SIDE, SIDE)
    with pytest.raises(UsageFault, match="says which HU"):
        formats.read(tmp_path / "set", ReadOptions(series="patient-0002-scan-01", window_of=Window()))
    for options, message in ((ReadOptions(window_of=Window()), "of one slice"), (ReadOptions(), "is not HU")):
        with pytest.raises(DataInvalid, match=message) as error:
            formats.read(tmp_path / "set" / "hu_-1100..1500", options)
        assert error.value.fix == f"name the folder {tmp_path}/set, which holds pictures.csv"


def test_pictures_that_were_drawn_anew_come_back_and_a_csv_saved_by_a_spreadsheet_too(tmp_path: Path) -> None:
    tomogen.convert(single(tmp_path / "x.nii.gz", body()), tmp_path / "set", to="png", window="0,255")
    file = tmp_path / "set" / rows(tmp_path / "set")[2]["picture"]
    Image.fromarray(np.full((SIDE, SIDE), 77, np.uint8)).save(file)
    text = (tmp_path / "set" / "pictures.csv").read_text()
    (tmp_path / "set" / "pictures.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert (formats.read(tmp_path / "set").hu[2] == 77).all()


def _without(lines: list[dict[str, str]], *names: str) -> list[dict[str, str]]:
    return [{key: value for key, value in line.items() if key not in names} for line in lines]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[1:], "5 lines for 6 slices, 0 of them blank"),
        (lambda lines: [*lines, lines[2]], "line 8 shows slice 3 of patient-0001-scan-01 in lung again"),
        (lambda lines: [*lines[:-1], lines[-1] | {"slice": "7"}], "line 7 is slice 7 of 6"),
        (lambda lines: [*lines[:-1], lines[-1] | {"slice": "5.5"}], "line 7 gives slice as '5.5', a whole number"),
        (lambda lines: [*lines[:-1], lines[-1] | {"low_hu": "soft"}], "line 7 gives low_hu as 'soft', a number"),
        (lambda lines: [*lines[:-1], lines[-1] | {"high_hu": "-1400"}], "a window of -1350 to -1400 HU"),
        (lambda lines: [*lines[:-1], lines[-1] | {"low_hu": "-1300"}], "the window lung other HU than lines before"),
        (lambda lines: [*lines[:-1], lines[-1] | {"z_mm": "99"}], "line 7 lies 44 mm from where its affine puts"),
        (lambda lines: [*lines[:-1], lines[-1] | {"rows": "25"}], "line 7 contradicts line 2, of the same scan"),
        (lambda lines: [line | {"rows": "25"} for line in lines], "24 x 24 pixels of 8 bits, 24 x 25 of 8 expected"),
        (lambda lines: [line | {"bits": "16"} for line in lines], "24 x 24 of 16 expected"),
        (lambda lines: [line | {"affine": "1 2 3"} for line in lines], "line 2 has no affine of 12 numbers"),
        (lambda lines: [line | {"scan": "../../x"} for line in lines], "names a scan as no file can be called"),
        (lambda lines: [lines[0] | {"picture": "../x.png"}, *lines[1:]], "names a picture outside the folder"),
        (lambda lines: [lines[0] | {"picture": "/etc/x.png"}, *lines[1:]], "names a picture outside the folder"),
        (lambda lines: _without(lines, "affine"), "lacks the column affine"),
    ],
)
def test_an_edited_csv_is_refused_with_its_line(
    change: Callable[[list[dict[str, str]]], list[dict[str, str]]],
    message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    tomogen.convert(single(tmp_path / "x.nii.gz", body()), tmp_path / "set", to="png", window="lung")
    rewrite(tmp_path / "set", change)
    code, out, err = run(capsys, "convert", tmp_path / "set", tmp_path / "back", "--to", "nii")
    assert (code, out) == (4, ""), err
    assert message in err
    assert "fix: " in err
    assert not list((tmp_path / "back").rglob("*.nii.gz"))


def test_columns_for_people_may_go_and_others_may_come(tmp_path: Path) -> None:
    source = single(tmp_path / "x.nii.gz", body())
    tomogen.convert(source, tmp_path / "set", to="png")
    rewrite(tmp_path / "set", lambda lines: _without([x | {"source": "1.dcm"} for x in lines], "patient", "row_mm"))
    assert np.array_equal(formats.read(tmp_path / "set").hu, formats.read(source).hu)


def colour(file: Path) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(file)


def larger(file: Path) -> None:
    Image.new("L", (SIDE, SIDE + 1)).save(file)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-60])


@pytest.mark.parametrize(
    ("damage", "reason", "message"),
    [
        (os.remove, "unreadable", "no such picture"), (colour, Reason.DIMENSIONS, "a RGB picture, grey expected"),
        (larger, Reason.MIXED, "24 x 25 pixels of 8 bits, 24 x 24 of 8 expected"),
        (cut, Reason.TRUNCATED, "a damaged picture"),
    ],
)  # fmt: skip
def test_a_picture_that_is_missing_or_another_fails_its_scan_alone(
    damage: Callable[[Path], None], reason: str, message: str, tree: tuple[Path, list[NDArray[np.int16]]],
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    tomogen.convert(tree[0], tmp_path / "set", to="png", window="lung")
    line = rows(tmp_path / "set")[3]
    damage(tmp_path / "set" / line["picture"])
    code, _, err = run(capsys, "convert", tmp_path / "set", tmp_path / "back", "--to", "nii")
    assert code == 8
    assert message in err
    assert line["picture"] in err
    (failed,) = [json.loads(text) for text in (tmp_path / "back" / "failed.jsonl").read_text().splitlines()]
    assert (failed["reason"], line["scan"] in failed["path"]) == (str(reason), True)
    assert len(list((tmp_path / "back").glob("*.nii.gz"))) == 2
    code, _, err = run(capsys, "convert", tmp_path / "set", tmp_path / "y.nii", "--series", line["scan"])
    assert code == (3 if damage is os.remove else 4)
    assert not (tmp_path / "y.nii").exists()


@pytest.mark.parametrize(
    ("damage", "code", "fix"),
    [(os.remove, 3, "put the file back"), (larger, 4, "put the picture back as it was"),
     (colour, 4, "put the picture back as it was")],
)  # fmt: skip
def test_when_the_only_scan_of_a_set_fails_nothing_is_said_to_be_written(
    damage: Callable[[Path], None], code: int, fix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tomogen.convert(single(tmp_path / "x.nii.gz", body()), tmp_path / "set", to="png", window="lung")
    damage(tmp_path / "set" / rows(tmp_path / "set")[3]["picture"])
    got, out, err = run(capsys, "convert", tmp_path / "set", tmp_path / "back", "--to", "nii")
    assert (got, out) == (code, "")
    assert "written" not in err
    assert f"fix: {fix}, or make the pictures again" in err


def pictures(folder: Path, *sides: int) -> Path:
    """Grey pictures s001.png and on, of these sides."""
    folder.mkdir()
    for number, side in enumerate(sides, start=1):
        Image.fromarray(np.full((side, side + 1), 9 + number, np.uint8)).save(folder / f"s{number:03d}.png")
    return folder


@pytest.mark.parametrize(
    ("sides", "listed", "fix"),
    [
        ((64, 64, 48, 64), "3 of 65 x 64, 1 of 49 x 48: s003.png", "replace s003.png by 65 x 64 pixels"),
        ((48, 64, 64), "2 of 65 x 64, 1 of 49 x 48: s001.png", "replace s001.png by 65 x 64 pixels"),
        ((9, 9, 9, 9, 9, 1, 2, 3, 4), "5 of 10 x 9, 1 of 2 x 1, 1 of 3 x 2, 1 of 4 x 3 and 1 of other sizes: s006.png, "
         "s007.png, s008.png and 1 more", "by 10 x 9 pixels"),
    ],
)  # fmt: skip
def test_pictures_of_unlike_size_are_counted_and_the_odd_ones_named(
    sides: tuple[int, ...], listed: str, fix: str, tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "mixed", *sides)
    with pytest.raises(DataInvalid) as error:
        formats.read(folder, ReadOptions(window_of=Window(), spacing=(2, 2, 2)))
    assert error.value.what == f"pictures of unlike size: {listed}"
    assert fix in str(error.value.fix)
    assert Path(str(error.value.at)).name == listed.partition(": ")[2].partition(",")[0]


def test_pictures_of_unlike_depth_and_in_colour_are_named_with_what_to_do(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "mixed", 8, 8, 8)
    Image.fromarray(np.zeros((8, 9), np.uint16)).save(folder / "s002.png")
    options = ReadOptions(window_of=Window(), spacing=(2, 2, 2))
    with pytest.raises(DataInvalid, match=r"2 of 9 x 8 of 8 bits, 1 of 9 x 8 of 16 bits: s002\.png"):
        formats.read(folder, options)
    Image.new("RGB", (9, 8)).save(folder / "s002.png")
    with pytest.raises(DataInvalid, match="a RGB picture, grey expected") as error:
        formats.read(folder, options)
    assert (Path(str(error.value.at)).name, str(error.value.fix)[:21]) == ("s002.png", "save it as a grey PNG")


def test_windows_are_named_or_two_numbers_and_the_nearest_name_is_told() -> None:
    assert windows("lung,-1000,400,bone,0..80") == {
        "lung": LUNG, "-1000..400": Window(-1000, 400), "bone": BONE, "0..80": Window(0, 80)
    }  # fmt: skip
    with pytest.raises(UsageFault, match="no such window 'lungs'; did you mean 'lung'"):
        windows("lungs")
    for wrong in ("400,-1000", "-1000", "nan,5", "-1000..", "1,2,3"):
        with pytest.raises(UsageFault, match="no such window"):
            windows(wrong)


@pytest.mark.parametrize(
    ("window", "level", "width"), [("lung", -600, 1500), ("mediastinum", 40, 400), ("bone", 500, 2000)]
)
def test_named_windows_have_the_level_and_width_that_help_says(window: str, level: float, width: float) -> None:
    (found,) = windows(window).values()
    assert (found.centre, found.width) == (level, width)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom sees what is planted
def test_no_value_of_a_header_that_identifies_gets_into_a_set(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2):
        test_privacy.series(tmp_path / "scans" / str(seed), seed)
    test_privacy.series(tmp_path / "scans" / "mr", 3, lambda dataset, number: setattr(dataset, "Modality", "MR"))
    test_privacy.series(tmp_path / "scans" / "bad", 4, test_privacy.broken("PixelSpacing", test_privacy.CANARY))
    with pytest.raises(SystemExit) as done:
        main(["convert", str(tmp_path / "scans"), str(tmp_path / "set"), "--to", "png", "--json", "-v"])
    said = "".join(capfd.readouterr())
    assert done.value.code == 8
    assert test_privacy.secrets_in(said.encode(), (str(tmp_path),)) == []
    files = [path for path in (tmp_path / "set").rglob("*") if path.is_file()]
    assert len(files) == 16 + 2
    for path in files:
        assert test_privacy.secrets_in(path.read_bytes(), (str(tmp_path),)) == [], path


@pytest.mark.slow
def test_a_real_chest_comes_back_within_what_is_said(ctdata: Path, tmp_path: Path) -> None:
    source = ctdata / "chest" / "LIDC-IDRI-0001"
    made = tomogen.convert(source, tmp_path / "set", to="png", window="lung,mediastinum,bone", skip_blank=True)
    assert made.blank == 0
    true = formats.read(source / "3000566-03192").reorient().hu.astype(np.float64)
    error = np.abs(formats.read(tmp_path / "set").hu - true)
    for one in made.accuracy:
        within = (true >= one.low) & (true <= one.high)
        assert error[within].max() <= one.error + 1e-3
