"""`tomogen convert` and `tomogen view`: any format to any other, and to a picture."""

import errno
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tomogen
from tomogen import formats
from tomogen.cli.__main__ import main
from tomogen.errors import UsageFault
from tomogen.formats import ReadOptions
from tomogen.intensity import Window
from tomogen.volume import Acquisition, Volume, affine_of

ALL = "dicom,nii,nrrd,mha,slices"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    hu = np.random.default_rng(0).integers(-1000, 1500, (6, 16, 14)).astype(np.int16)
    path = tmp_path / "scan.nii.gz"
    formats.write(Volume(hu, affine_of((3.0, 1.5, 1.25), (-10, 20, 30)), Acquisition(synthetic=True)), path)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


def test_every_format_becomes_every_other_without_change(source: Path, tmp_path: Path) -> None:
    first = tomogen.convert(source, tmp_path / "a", to=ALL)
    before = formats.read(source)
    for n, path in enumerate(first.files):
        for other in tomogen.convert(path, tmp_path / f"b{n}", to=ALL).files:
            after = formats.read(other)
            assert np.array_equal(after.hu, before.hu), (path, other)
            assert np.allclose(after.affine, before.affine, atol=1e-5), (path, other)
            assert after.acquisition.synthetic


def test_the_ending_of_out_tells_the_format(source: Path, tmp_path: Path) -> None:
    for name in ("x.nii", "x.mhd", "x.nhdr", "x.dcm", "x.slices", "series"):
        made = tomogen.convert(source, tmp_path / name)
        assert made.files == (str(tmp_path / name),)
        assert np.array_equal(formats.read(tmp_path / name).hu, formats.read(source).hu)
    assert (tmp_path / "series").is_dir()
    with pytest.raises(UsageFault, match="no format writes"):
        tomogen.convert(source, tmp_path / "x.bmp")


def test_pictures_are_made_once_for_each_window(source: Path, tmp_path: Path) -> None:
    made = tomogen.convert(source, tmp_path / "out", to="nii,gif,jpegs", window="lung,bone")
    assert [Path(file).name for file in made.files] == [
        "scan.nii.gz", "scan-lung.gif", "scan-bone.gif", "scan-lung.jpegs", "scan-bone.jpegs",
    ]  # fmt: skip
    assert all(Path(file).exists() for file in made.files)
    tomogen.convert(source, tmp_path / "a.png", window="lung")
    tomogen.convert(source, tmp_path / "b.png", window="bone")
    lung, bone = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "ab")
    assert not np.array_equal(lung, bone)
    assert tomogen.convert(source, tmp_path / "two", to="gif", window="-900..100").files[0].endswith("two/scan.gif")


def test_a_window_brings_pictures_back(source: Path, tmp_path: Path) -> None:
    made = tomogen.convert(source, tmp_path / "out", to="slices", window="-1000..1500")
    back = tomogen.convert(made.files[0], tmp_path / "back.nii", options=ReadOptions(window_of=Window(-1000, 1500)))
    assert np.abs(formats.read(back.files[0]).hu - formats.read(source).hu).max() <= 2500 / 255 / 2 + 1e-3


def test_nothing_is_overwritten_unless_asked_and_then_only_what_is_ours(source: Path, tmp_path: Path) -> None:
    tomogen.convert(source, tmp_path / "out", to="dicom,nii")
    for arguments in ({"to": "dicom"}, {"to": "nii"}):
        with pytest.raises(UsageFault, match="there already"):
            tomogen.convert(source, tmp_path / "out", **arguments)
    tomogen.convert(source, tmp_path / "out", to="dicom,nii", overwrite=True)
    (tmp_path / "out" / "scan" / "thesis.txt").write_text("ten years of work")
    with pytest.raises(UsageFault, match="more than slices"):
        tomogen.convert(source, tmp_path / "out", to="dicom", overwrite=True)
    assert (tmp_path / "out" / "scan" / "thesis.txt").exists()


def test_a_scan_is_never_written_over_itself(source: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(UsageFault, match="the scan itself"):
        tomogen.convert(source, source, overwrite=True)
    assert source.read_bytes() == before


def test_an_earlier_series_comes_back_when_the_new_one_is_not_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tomogen.convert(source, tmp_path / "series")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tomogen.conversion.files._write", full)
    with pytest.raises(OSError, match="No space"):
        tomogen.convert(source, tmp_path / "series", overwrite=True)
    assert {entry.name for entry in tmp_path.iterdir()} == {"scan.nii.gz", "series"}
    assert formats.read(tmp_path / "series").shape == (6, 16, 14)


def test_an_output_that_is_taken_is_told_before_the_work(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scan.mha").write_text("")
    with pytest.raises(UsageFault):
        tomogen.convert(source, tmp_path / "out", to="nii,mha")
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["scan.mha"]


def test_enhanced_and_rle_on_the_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pydicom

    code, out, _ = run(capsys, "convert", source, tmp_path / "x", "--to", "dicom", "--enhanced", "--rle")
    assert (code, out) == (0, f"{tmp_path}/x/scan.dcm\n")
    dataset = pydicom.dcmread(tmp_path / "x" / "scan.dcm")
    assert (dataset.NumberOfFrames, dataset.file_meta.TransferSyntaxUID.name) == (6, "RLE Lossless")
    code, _, err = run(capsys, "convert", source, tmp_path / "y", "--enhanced")
    assert code == 2
    assert "y.dcm" in err


def test_the_command_line_says_what_the_twin_returns(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "convert", source, tmp_path / "x.mha", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["files"] == [f"{tmp_path}/x.mha"]
    assert (found["shape"], found["spacing"], found["orientation"]) == ([6, 16, 14], [3.0, 1.5, 1.25], "SPL")


def test_what_a_reader_warns_of_is_one_line(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: object, options: object) -> Volume:
        warnings.warn("1 missing slices interpolated", stacklevel=1)
        return Volume(np.zeros((4, 5, 6), np.int16), affine_of((1, 1, 1)))

    monkeypatch.setattr("tomogen.formats.nifti.read", read)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, err = run(capsys, "convert", source, tmp_path / "x.mha")
    assert code == 0
    assert err.splitlines()[0] == "warning: 1 missing slices interpolated"
    assert "UserWarning" not in err


def test_an_archive_is_to_be_unpacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scan.zip").write_bytes(b"PK")
    code, _, err = run(capsys, "convert", tmp_path / "scan.zip", tmp_path / "x.mha")
    assert code == 4
    assert "fix: unpack it" in err


@pytest.mark.parametrize("style", ["sheet", "strip", "planes"])
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.gif", "x.dcm"])
def test_a_view_in_every_style_and_ending(
    style: str, name: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(
        capsys, "view", source, tmp_path / name, "--style", style, "--window", "lung,-160..240", "--json"
    )
    assert code == 0, err
    made = json.loads(out)
    assert made["frames"] == (6 if name == "x.gif" else 1)
    if name != "x.dcm":
        with Image.open(tmp_path / name) as image:
            assert image.size == (made["width"], made["height"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["view", "SOURCE", "OUT.bmp"], 2, "no picture ends in '.bmp'"),
        (["view", "SOURCE", "OUT.png", "--window", "long"], 2, "no such window 'long'"),
        (["view", "SOURCE", "OUT.png", "--window", "5..1"], 2, "no such window"),
        (["view", "missing.nii", "OUT.png"], 3, "no such file"),
        (["convert", "SOURCE", "OUT", "--to", "pdf"], 2, "no such format 'pdf'"),
        (["convert", "SOURCE", "OUT", "--window-of", "5"], 2, "is not a window such as -1000,400"),
        (["convert", "SOURCE", "OUT", "--spacing", "1,2"], 2, "is not a length"),
        (["convert", "SOURCE", "OUT", "--max-volume", "lots"], 2, "is not a size such as 8GB"),
        (["convert", "SOURCE", "OUT.nii", "--max-volume", "1KB"], 4, "cap"),
    ],
)
def test_what_is_put_wrongly_gets_one_line(
    arguments: list[str], code: int, message: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("SOURCE", str(source)).replace("OUT", str(tmp_path / "out")) for word in arguments]
    found, out, err = run(capsys, *words)
    assert (found, out) == (code, "")
    assert message in err
    assert err.startswith("error: ")


def test_real_scans_are_drawn(ctdata: Path, tmp_path: Path) -> None:
    made = tomogen.view(
        ctdata / "chest/Lung_Dx-A0002/B40f/ct.nii.gz", tmp_path / "x.png", style="planes", window="lung"
    )
    image = np.asarray(Image.open(tmp_path / "x.png"))
    assert made.width > 600
    assert 30 < image.mean() < 220


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_told_with_the_file_that_found_no_room(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrapped: bool
) -> None:
    def full(*_: object, **__: object) -> None:
        error = OSError(errno.ENOSPC, "No space left on device")
        if wrapped:
            raise OSError("With tag (7FE0,0010) got exception") from error
        raise error

    monkeypatch.setattr("tomogen.formats.nifti.gzip.GzipFile", full)
    code, out, err = run(capsys, "convert", source, tmp_path / "copy.nii.gz")
    assert (code, out) == (6, "")
    assert err.splitlines()[:2] == ["error: the disk is full", f"  at: {tmp_path / 'copy.nii.gz'}"]
    assert not list(tmp_path.glob("copy*"))
