import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import RLELossless

from dicoms import chest, save, slices
from tomogen import formats
from tomogen.cases.scan import Finding, scan
from tomogen.errors import DataInvalid, InputMissing, Reason
from tomogen.formats import ReadOptions
from tomogen.volume import Volume, affine_of


def nifti(path: Path, hu: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return formats.write(Volume(hu, affine_of((2.5, 0.8, 0.7))), path)


def test_a_mix_of_formats_gives_a_finding_for_each_scan_and_each_stranger(tmp_path: Path) -> None:
    save(tmp_path / "a" / "deep" / "series", slices(chest()), name=lambda k: f"IM{k}")
    nifti(tmp_path / "b" / "scan.nii.gz", chest())
    nifti(tmp_path / "b" / "mask.nii", (chest() > -300).astype(np.int16))
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4")
    found = {str(one.path.relative_to(tmp_path)): one for one in scan(tmp_path, deep=True)}
    assert {name: one.verdict for name, one in found.items()} == {
        "a/deep/series": "use", "b/scan.nii.gz": "use", "b/mask.nii": "refuse", "notes.txt": "refuse",
        ".DS_Store": "refuse", "broken.zip": "refuse",
    }  # fmt: skip
    assert found["b/mask.nii"].reason == Reason.MASK
    assert found[".DS_Store"].reason == Reason.NOT_CT_FILE
    series = found["a/deep/series"]
    assert (series.format, len(series.files), series.shape) == ("dicom", 5, (5, 12, 10))
    assert np.array_equal(series.read().hu, chest())


def test_headers_leave_to_the_reading_what_only_voxels_tell(tmp_path: Path) -> None:
    nifti(tmp_path / "mask.nii", (chest() > -300).astype(np.int16))
    (finding,) = scan(tmp_path)
    assert finding.verdict == "use"
    with pytest.raises(DataInvalid) as caught:
        finding.read()
    assert caught.value.reason == Reason.MASK


def test_a_refused_finding_raises_its_reason_when_read(tmp_path: Path) -> None:
    (finding,) = scan(save(tmp_path, slices(chest((2, 12, 10)))))
    with pytest.raises(DataInvalid) as caught:
        finding.read()
    assert caught.value.reason == finding.reason == Reason.TOO_FEW


def test_series_that_share_a_folder_are_findings_of_their_own(tmp_path: Path) -> None:
    one, other = slices(chest(seed=1)), slices(chest((4, 12, 10), seed=2))
    findings = scan(save(tmp_path, one + other))
    assert [finding.verdict for finding in findings] == ["use", "use"]
    assert sorted(len(finding.files) for finding in findings) == [4, 5]
    for finding in findings:
        assert finding.read().shape == finding.shape


def test_what_is_set_aside_from_a_series_is_a_finding_with_its_own_reason(tmp_path: Path) -> None:
    datasets, scout = slices(chest()), slices(chest())[0]
    scout.SeriesInstanceUID, scout.ImageType = datasets[0].SeriesInstanceUID, ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    folder = save(tmp_path, [*datasets, scout])
    (folder / "004.dcm").write_bytes((folder / "004.dcm").read_bytes()[:-50])
    findings = {len(one.files): one for one in scan(folder) if one.verdict == "use"}
    refused = {one.path.name: one.reason for one in scan(folder) if one.verdict == "refuse"}
    assert refused == {"004.dcm": Reason.TRUNCATED, "005.dcm": Reason.LOCALIZER}
    (used,) = findings.values()
    assert used.shape == (4, 12, 10)
    assert len(used.warnings) == 2


def test_an_undecodable_slice_becomes_a_finding_of_its_own_once_pixels_are_read(tmp_path: Path) -> None:
    datasets = slices(chest())
    for d in datasets:
        d.compress(RLELossless, generate_instance_uid=False)
    folder = save(tmp_path, datasets)
    data = (folder / "004.dcm").read_bytes()
    start = data.rindex(b"\x02\x00\x00\x00\x40\x00\x00\x00")  # the RLE header: two segments, the first at byte 64
    (folder / "004.dcm").write_bytes(data[:start] + b"\xff" * 64 + data[start + 64 :])
    (shallow,) = scan(folder)
    assert (shallow.verdict, len(shallow.files)) == ("use", 5)
    findings = {one.verdict: one for one in scan(folder, deep=True)}
    assert findings["refuse"].files == (folder / "004.dcm",)
    assert findings["refuse"].reason == Reason.CORRUPT
    assert (len(findings["use"].files), findings["use"].shape) == (4, (4, 12, 10))


def test_a_slice_that_cannot_be_read_is_not_lost_silently(tmp_path: Path) -> None:
    folder = save(tmp_path, slices(chest()))
    (folder / "004.dcm").write_bytes(b"<html>403</html>" * 20)
    used = next(one for one in scan(folder) if one.verdict == "use")
    assert used.shape == (4, 12, 10)
    assert "1 file beside it cannot be read" in used.warnings[0]


def test_data_files_belong_to_the_header_that_names_them(tmp_path: Path) -> None:
    header = "NDims = 3\nDimSize = 10 12 5\nElementType = MET_SHORT\nElementSpacing = 0.7 0.8 2.5\nOffset = 0 0 0\n"
    header += "TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementDataFile = body.raw\n"
    (tmp_path / "body.raw").write_bytes(chest().tobytes())
    (tmp_path / "body.mhd").write_text(f"ObjectType = Image\n{header}")
    (finding,) = scan(tmp_path, deep=True)
    assert finding.files == (tmp_path / "body.mhd", tmp_path / "body.raw")
    assert finding.verdict == "use"


def test_only_the_chosen_series_is_used(tmp_path: Path) -> None:
    one, other = slices(chest(seed=1)), slices(chest((4, 12, 10), seed=2))
    folder = save(tmp_path, one + other)
    uid = other[0].SeriesInstanceUID
    found = scan(folder, ReadOptions(series=uid), deep=True)
    assert [(finding.verdict, len(finding.files)) for finding in found if finding.series == uid] == [("use", 4)]
    assert [finding.reason for finding in found if finding.series != uid] == [Reason.SEVERAL]


def test_single_files_and_paths_given_twice_are_looked_at_once(tmp_path: Path) -> None:
    folder = save(tmp_path, slices(chest()))
    assert len(scan([folder, folder, folder / "000.dcm"])) == 1
    (alone,) = scan(folder / "000.dcm")
    assert alone.reason == Reason.TOO_FEW


def test_links_that_lead_round_in_a_circle_end(tmp_path: Path) -> None:
    folder = save(tmp_path / "scan", slices(chest()))
    (folder / "round").symlink_to(tmp_path, target_is_directory=True)
    assert [finding.verdict for finding in scan(tmp_path)] == ["use"]


def test_a_path_that_is_not_there_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    with pytest.raises(InputMissing, match="scans"):
        scan(tmp_path / "scan")


def test_progress_is_told_and_ends_at_its_total(tmp_path: Path) -> None:
    save(tmp_path, slices(chest()))
    told: list[tuple[int, int | None, str]] = []
    scan(tmp_path, progress=lambda *args: told.append(args), deep=True)
    assert told[-1][0] == told[-1][1] == 5
    assert {what for _, _, what in told} == {"reading headers", "reading voxels", "done"}


def test_findings_travel_between_processes_and_show_nobody(tmp_path: Path) -> None:
    datasets = slices(chest())
    for d in datasets:
        d.PatientID = d.PatientName = d.StationName = "CANARY"
    (finding,) = scan(save(tmp_path, datasets))
    assert finding.patient == "CANARY"
    assert "CANARY" not in repr(finding)
    assert str(datasets[0].SeriesInstanceUID) not in repr(finding)
    again = pickle.loads(pickle.dumps(finding))
    assert isinstance(again, Finding)
    assert np.array_equal(again.read().hu, chest())


def test_a_folder_that_cannot_be_entered_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "open", slices(chest()))
    (tmp_path / "shut").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = {finding.path.name: finding for finding in scan(tmp_path)}
    assert found["open"].verdict == "use"
    assert "cannot be read" in found["shut"].detail


def test_a_series_spread_over_folders_is_one_scan_and_copies_are_two(tmp_path: Path) -> None:
    hu = chest((8, 12, 10))
    datasets = slices(hu)
    save(tmp_path / "disc" / "A", datasets[::2])
    save(tmp_path / "disc" / "B", datasets[1::2])
    (finding,) = scan(tmp_path, deep=True)
    assert (finding.path, finding.verdict) == (tmp_path / "disc", "use")
    assert np.array_equal(finding.read().hu, hu)
    assert np.array_equal(formats.read(tmp_path).hu, hu)
    save(tmp_path / "copy", datasets)
    assert sorted(len(one.files) for one in scan(tmp_path)) == [4, 4, 8]
