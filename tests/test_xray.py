"""The verb `xray`: what it writes, that it is read back, how it refuses."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import tomogen
from tomogen.cli.xray import command
from tomogen.errors import DataInvalid, InputMissing, TomogenError, UsageFault
from tomogen.exposure import XrayResult
from tomogen.formats import write
from tomogen.radiography import geometry as stand
from tomogen.radiography.attenuation import of_water
from tomogen.volume import Acquisition, Volume, affine_of


def torso(depth: int = 24, wide: float = 6.0) -> Volume:
    """An elliptic cylinder of water, 288 x 192 mm, with two lungs, the right one larger, and a spine."""
    k, j, i = np.meshgrid(np.arange(depth), np.arange(48), np.arange(64), indexing="ij")
    x, y = (i - 31.5) * wide, (j - 23.5) * 6.0
    hu = np.full(k.shape, -1000, np.int16)
    hu[(x / 144) ** 2 + (y / 96) ** 2 <= 1] = 0
    hu[((x + 60) / 50) ** 2 + (y / 60) ** 2 <= 1] = -800  # the patient's right is where x is negative
    hu[((x - 65) / 35) ** 2 + (y / 50) ** 2 <= 1] = -800
    hu[(x / 20) ** 2 + ((y - 70) / 20) ** 2 <= 1] = 900
    origin = (-31.5 * wide, -141.0, 0.0)
    return Volume(hu, affine_of((8.0, 6.0, wide), origin))


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "ct.nii.gz"
    write(torso(), path)
    return path


def shoot(scan: Path, out: Path, **more: Any) -> XrayResult:
    return tomogen.xray(scan, out, **({"size": 64, "device": "cpu"} | more))


def test_pa_and_lateral_and_their_geometry_are_written(scan: Path, tmp_path: Path) -> None:
    made = shoot(scan, tmp_path / "shots", format="png,dicom,npy")
    names = ["pa.png", "pa.dcm", "pa.npy", "lateral.png", "lateral.dcm", "lateral.npy", "geometry.json"]
    assert [Path(file).name for file in made.files] == names
    assert sorted(path.name for path in (tmp_path / "shots").iterdir()) == sorted(names)
    assert (made.views, made.size, made.outside) == (("pa", "lateral"), (64, 64), (0.0, 0.0))
    assert made.field_of_view == pytest.approx((500, 500))
    assert [path.name for path in tmp_path.iterdir()] == ["shots"]


def test_line_integrals_are_those_of_water_through_the_middle(scan: Path, tmp_path: Path) -> None:
    shoot(scan, tmp_path / "s", views="lateral", format="npy", geometry="parallel", energy=80, size=512)
    integrals = np.load(tmp_path / "s" / "lateral.npy")
    assert integrals.dtype == np.float32
    # 60 mm before the isocentre the chord is 2 x 144 sqrt(1 - (y / 96)^2), all water: the lungs end at 60 and 50 mm
    column = 255.5 - 75
    chord = 288 * np.sqrt(1 - (75 / 96) ** 2)
    assert integrals[256, round(column)] == pytest.approx(chord * of_water(80), rel=0.05)
    assert integrals[0].max() == integrals[:, 0].max() == 0


def test_the_patients_right_is_on_the_left(scan: Path, tmp_path: Path) -> None:
    shoot(scan, tmp_path / "s", views="pa,ap", size=256)
    for name in ("pa", "ap"):
        row = np.asarray(Image.open(tmp_path / "s" / f"{name}.png"))[128].astype(int)
        left, right = row[60:118].min(), row[138:196].min()  # each lung's darkest column
        assert left < right - 5, name  # the right lung, the larger one, is the darker


def test_sixteen_bits_a_fixed_range_and_inversion(scan: Path, tmp_path: Path) -> None:
    shoot(scan, tmp_path / "a", format="png,npy", bits=16, range=(0.0, 8.0))
    shoot(scan, tmp_path / "b", bits=16, range=(0.0, 8.0), invert=True)
    grey = np.asarray(Image.open(tmp_path / "a" / "pa.png"))
    assert grey.dtype == np.uint16
    assert grey == pytest.approx(np.load(tmp_path / "a" / "pa.npy").clip(0, 8) / 8 * 65535, abs=0.6)
    assert np.abs(65535 - grey.astype(int) - np.asarray(Image.open(tmp_path / "b" / "pa.png"))).max() <= 1


def test_the_geometry_beside_tells_what_grey_means_and_shoots_the_same_again(scan: Path, tmp_path: Path) -> None:
    made = shoot(scan, tmp_path / "a", angle=(20.0, -75.5), views="pa", tilt=5, format="npy,png")
    found = json.loads((tmp_path / "a" / "geometry.json").read_text())
    assert found["schema"] == 1
    assert found["taken"]["isocentre_mm"] == pytest.approx(torso().centre)
    assert found["taken"]["energy_kev"] == 60
    assert set(found["taken"]["black_and_white"]) == set(made.views)
    again = shoot(scan, tmp_path / "b", geometry=str(tmp_path / "a" / "geometry.json"), size=None, format="npy")
    assert again.views == made.views == ("patilt+5", "angle+20tilt+5", "angle-75.5tilt+5")
    for name in made.views:
        np.testing.assert_array_equal(np.load(tmp_path / "a" / f"{name}.npy"), np.load(tmp_path / "b" / f"{name}.npy"))
    one = shoot(scan, tmp_path / "c", geometry=str(tmp_path / "a" / "geometry.json"), views="angle+20tilt+5")
    assert one.views == ("angle+20tilt+5",)


def test_dicom_is_secondary_capture_and_says_what_it_is(scan: Path, tmp_path: Path) -> None:
    import pydicom

    shoot(scan, tmp_path / "s", views="pa,lateral", angle=(30.0,), format="png,dicom", bits=16)
    files = [pydicom.dcmread(tmp_path / "s" / f"{name}.dcm") for name in ("pa", "lateral", "angle+30")]
    for name, file in zip(("pa", "lateral", "angle+30"), files, strict=True):
        assert file.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
        assert (file.Modality, file.ConversionType, list(file.ImageType)) == ("OT", "WSD", ["DERIVED", "SECONDARY"])
        assert "no X-ray was taken" in file.ImageComments
        assert "60 keV" in file.DerivationDescription
        assert "KVP" not in file
        assert "FrameOfReferenceUID" not in file
        assert [float(mm) for mm in file.PixelSpacing] == pytest.approx([500 / 64] * 2)
        np.testing.assert_array_equal(file.pixel_array, np.asarray(Image.open(tmp_path / "s" / f"{name}.png")))
    assert [list(file.PatientOrientation) for file in files] == [["L", "F"], ["P", "F"], ["LP", "F"]]
    assert len({file.SOPInstanceUID for file in files}) == 3
    assert len({file.SeriesInstanceUID for file in files}) == 1
    assert [file.InstanceNumber for file in files] == [1, 2, 3]


def test_the_same_call_writes_the_same_bytes(scan: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shoot(scan, tmp_path / name, format="png,dicom,npy")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_radiographs_of_a_synthetic_scan_say_that_they_are_synthetic(tmp_path: Path) -> None:
    import pydicom

    volume = torso()
    write(Volume(volume.hu, volume.affine, Acquisition(synthetic=True)), tmp_path / "ct.nii")
    shoot(tmp_path / "ct.nii", tmp_path / "s", views="pa", format="png,dicom")
    file = pydicom.dcmread(tmp_path / "s" / "pa.dcm")
    assert file.SyntheticData == "YES"
    assert "SYNTHETIC" in file.SeriesDescription
    assert "SYNTHETIC" in str(Image.open(tmp_path / "s" / "pa.png").info)


def test_the_table_is_left_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    volume = torso()
    hu = volume.hu.copy()
    hu[:, 44:46, 4:60] = -100  # a plate 20 mm below the back
    write(Volume(hu, volume.affine), tmp_path / "ct.nii")
    write(volume, tmp_path / "plain.nii")
    bare, masked, without = (
        np.load(Path(shoot(tmp_path / file, tmp_path / out, views="lateral", format="npy", body_mask=mask).files[0]))
        for file, out, mask in (("ct.nii", "a", False), ("ct.nii", "b", True), ("plain.nii", "c", True))
    )
    assert bare.sum() > 1.03 * without.sum()
    assert masked == pytest.approx(without, abs=0.02)


def test_the_published_geometry_warns_that_the_chest_is_wider(tmp_path: Path) -> None:
    write(torso(wide=8.0), tmp_path / "ct.nii")
    with pytest.warns(UserWarning, match=r"view pa: .*% of the patient lies outside the beam; .*285 x 285 mm"):
        shoot(tmp_path / "ct.nii", tmp_path / "s", geometry="x2ct", views="pa")


def test_a_chest_in_the_chest_geometry_gives_no_warning(scan: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shoot(scan, tmp_path / "s")


def test_overwriting_is_asked_for_and_takes_only_what_we_wrote(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    shoot(scan, out)
    with pytest.raises(UsageFault, match="there already"):
        shoot(scan, out)
    shoot(scan, out, views="ap", overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["ap.png", "geometry.json"]
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UsageFault, match="more than radiographs"):
        shoot(scan, out, overwrite=True)
    assert (out / "thesis.txt").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.png").write_bytes(b"")
    with pytest.raises(UsageFault, match="no folder of radiographs"):
        shoot(scan, other, overwrite=True)


def test_the_folder_of_the_scan_is_never_the_output(scan: Path) -> None:
    with pytest.raises(UsageFault, match="holds the scan"):
        shoot(scan, scan.parent, overwrite=True)
    assert scan.exists()


def test_what_fails_leaves_what_was_there(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "s"
    shoot(scan, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stand, "save", full)
    for folder in (out, tmp_path / "new"):
        with pytest.raises(OSError, match="No space"):
            shoot(scan, folder, overwrite=True, views="ap")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"views": "pa,oblique"}, UsageFault, "no such view 'oblique'"),
        ({"views": "pa,pa"}, UsageFault, "names of their own"),
        ({"geometry": "knee"}, UsageFault, "no such geometry 'knee'"),
        ({"geometry": "nothing.json"}, InputMissing, "cannot read"),
        ({"energy": 500.0}, UsageFault, "20 to 150 keV"),
        ({"format": "tiff"}, UsageFault, "not written as 'tiff'"),
        ({"format": ""}, UsageFault, "not written as"),
        ({"form": "film"}, UsageFault, "log or intensity"),
        ({"bits": 12}, UsageFault, "8 or 16"),
        ({"range": (5.0, 1.0)}, UsageFault, "low and a higher high"),
        ({"percentiles": (50.0, 50.0)}, UsageFault, "two of 0 to 100"),
        ({"size": 0}, UsageFault, "at least 1 pixel"),
        ({"angle": (float("inf"),)}, UsageFault, "number of degrees"),
        ({"angle": (1e9,)}, UsageFault, "from -360 to 360"),
        ({"tilt": 90.0}, UsageFault, "between -90 and 90"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    scan: Path, tmp_path: Path, wrong: dict[str, Any], error: type[TomogenError], says: str
) -> None:
    with pytest.raises(error, match=says):
        shoot(scan, tmp_path / "s", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_geometry_file_takes_no_angle_and_knows_its_views(scan: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    stand.save(stand.preset("chest"), path)
    with pytest.raises(UsageFault, match="--angle and --tilt go with"):
        shoot(scan, tmp_path / "s", geometry=str(path), angle=(3.0,))
    with pytest.raises(UsageFault, match="no view 'ap'; its views: pa, lateral"):
        shoot(scan, tmp_path / "s", geometry=str(path), views="ap")


def test_a_detector_beyond_all_bounds_is_refused(scan: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    path.write_text(json.dumps(stand.record(stand.preset("chest")) | {"detector_px": [100000, 100000]}))
    with pytest.raises(DataInvalid, match="100000 x 100000 pixels, 8192 along a side at most") as caught:
        shoot(scan, tmp_path / "s", geometry=str(path))
    assert "detector_px" in str(caught.value.fix)


def test_a_scan_much_smaller_than_the_beam_is_warned_of(tmp_path: Path) -> None:
    whole = torso()
    write(Volume(whole.hu[:12, 12:36, 20:44], whole.affine), tmp_path / "small.nii.gz")
    with pytest.warns(UserWarning, match="the scan is 96 mm high and 144 mm wide, the beam sees 500 x 500 mm"):
        shoot(tmp_path / "small.nii.gz", tmp_path / "s", body_mask=False)


def test_a_beam_that_misses_the_scan_is_refused(scan: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    record = stand.record(stand.preset("chest", ["pa"])) | {"isocentre_mm": [5000.0, 0.0, 0.0]}
    path.write_text(json.dumps(record))
    with pytest.raises(DataInvalid, match="misses the scan"):
        shoot(scan, tmp_path / "s", geometry=str(path))


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(command, list(words))
    return done.exit_code, done.stdout, done.stderr


def test_the_command_prints_its_files_or_json(scan: Path, tmp_path: Path) -> None:
    code, out, err = run(
        str(scan), str(tmp_path / "a"), "--size", "32", "--views", "pa", "--angle", "10", "--angle", "-10"
    )
    assert code == 0
    names = ["pa.png", "angle+10.png", "angle-10.png", "geometry.json"]
    assert out.splitlines() == [str(tmp_path / "a" / name) for name in names]
    assert "32 x 32 pixels, 500 x 500 mm" in err
    code, out, _ = run(
        str(scan), str(tmp_path / "b"), "--size", "32", "--json", "--bits", "16", "--range", "0,8", "--no-body-mask"
    )
    assert (code, json.loads(out)["views"]) == (0, ["pa", "lateral"])


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--geometry", "hand"], 2, "error: no such geometry 'hand'"),
        (["--range", "5"], 2, "is not two numbers such as 0.5,7"),
        (["--bits", "12"], 2, "12"),
        (["--energy", "5"], 2, "error: --energy is 20 to 150 keV, not 5"),
        (["--geometry", "absent.json"], 3, "error: cannot read: no such file or directory\n  at: absent.json"),
    ],
)
def test_the_command_says_what_is_wrong_in_three_lines(
    scan: Path, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    found, out, err = run(str(scan), str(tmp_path / "s"), *words)
    assert (found, out) == (code, "")
    assert says in err
    assert "Traceback" not in err


def test_a_damaged_geometry_names_the_file_and_what_to_do(scan: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    path.write_text('{"schema": 1,')
    code, _, err = run(str(scan), str(tmp_path / "s"), "--geometry", str(path))
    lines = err.splitlines()
    assert code == 4
    assert lines[0].startswith("error: damaged JSON")
    assert lines[1] == f"  at: {path}"
    assert lines[2].startswith("  fix: ")


def test_a_scan_that_is_missing_is_told(tmp_path: Path) -> None:
    code, _, err = run(str(tmp_path / "nothing"), str(tmp_path / "s"))
    assert code == 3
    assert "no such file or folder" in err


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(scan: Path, tmp_path: Path) -> None:
    import subprocess

    shoot(scan, tmp_path / "s", format="dicom", bits=16)
    for path in (tmp_path / "s").glob("*.dcm"):
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error") and "0x0008,0x001c" not in line]
        assert errors == []


def test_real_chests_look_like_radiographs(ctdata: Path, tmp_path: Path) -> None:
    """Lungs darker than what surrounds them, the heart to the picture's right, the body whole."""
    source = ctdata / "chest" / "CIP-ct64" / "dicom"
    if not source.is_dir():
        pytest.skip(f"no scan at {source}")
    made = shoot(source, tmp_path / "s", format="npy", size=128)
    assert max(made.outside) < 0.005
    pa = np.load(tmp_path / "s" / "pa.npy")
    spine = int(pa[40:80].sum(0)[50:78].argmax()) + 50
    lungs = [pa[45:80, spine + side].mean() for side in (-14, 14)]
    assert max(lungs) < 0.6 * pa[45:80, spine].mean()
    low = pa[74:80]
    assert low[:, spine + 5 : spine + 12].mean() > low[:, spine - 12 : spine - 5].mean()  # the apex
