"""DICOM out: geometry, honesty, identity; and what other programs say of it."""

import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tomogen import formats
from tomogen.cases.scan import scan
from tomogen.conversion import convert
from tomogen.errors import DataInvalid, Reason, UsageFault
from tomogen.formats import Provenance
from tomogen.formats.dicom import capture, writer
from tomogen.formats.pictures import three_planes
from tomogen.volume import Acquisition, Volume, affine_of

MADE = Provenance(model="wgan3d", run="0123456789abcdef", seed=7, index=3)
KINDS = ["series", "rle", "one.dcm", "rle.dcm"]


def body(depth: int = 12) -> Volume:
    """An asymmetric phantom, nowhere equal to its mirror image, on an oblique grid of odd numbers."""
    k, j, i = np.indices((depth, 24, 20))
    hu = -1000 + 900 * ((j - 11) ** 2 / 110 + (i - 9) ** 2 / 64 < 1) + 7 * k + 3 * j + 11 * i
    hu[2:4, 10:14, 3:6] = 1500
    turn = np.radians(17)
    axes = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = affine_of((2.1, 0.9, 0.7), (-123.4567891234, 77.7, -301.33))
    affine[:3, :3] = axes @ affine[:3, :3]
    return Volume(hu.astype(np.int16), affine, Acquisition(synthetic=True))


def written(folder: Path, kind: str, volume: Volume | None = None, provenance: Provenance | None = MADE) -> Path:
    """A series folder or one Enhanced CT file, plain or compressed."""
    path = folder / kind
    writer.write(volume or body(), path, provenance, rle=kind.startswith("rle"))
    return path


def files_of(path: Path) -> list[Path]:
    return sorted(path.glob("*.dcm")) if path.is_dir() else [path]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_made_says_so(kind: str, tmp_path: Path) -> None:
    for file in files_of(written(tmp_path, kind)):
        dataset = pydicom.dcmread(file)
        assert dataset.SyntheticData == "YES"
        (equipment,) = dataset.ContributingEquipmentSequence
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109100"
        assert equipment.ManufacturerModelName == dataset.ManufacturerModelName == "tomogen/wgan3d"
        assert equipment.DeviceSerialNumber == MADE.run
        for word in ("wgan3d", MADE.run, "seed 7", "sample 3"):
            assert word in str(dataset.get("DerivationDescription", "")) + str(dataset.ImageComments)
        for keyword in ("ImageComments", "PatientComments", "SeriesDescription", "StudyDescription"):
            assert "SYNTHETIC, NOT FOR DIAGNOSIS" in dataset[keyword].value
        assert dataset.ImageType[0] == "DERIVED"
        assert dataset.BurnedInAnnotation == "NO"
        assert not dataset.Manufacturer.upper().startswith("TO")
        assert dataset.get("KVP") is None
        for never in ("PatientIdentityRemoved", "ExposureTime", "XRayTubeCurrent", "Exposure", "CTDIvol"):
            assert never not in dataset


def test_type_2_elements_are_there_though_empty(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(files_of(written(tmp_path, "series"))[0])
    for keyword in (
        "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator", "AcquisitionNumber", "KVP",
        "PatientBirthDate", "PatientSex",
    ):  # fmt: skip
        assert dataset[keyword].is_empty, keyword
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert (dataset.Modality, dataset.PatientPosition, dataset.RescaleType) == ("CT", "HFS", "HU")
    assert (dataset.RescaleSlope, dataset.RescaleIntercept, dataset.LossyImageCompression) == (1, 0, "00")
    assert list(zip(dataset.WindowCenter, dataset.WindowWidth, strict=True)) == [(40, 400), (-600, 1500)]
    assert "Laterality" not in dataset


def test_one_series_has_one_of_everything_but_instances(tmp_path: Path) -> None:
    found = [pydicom.dcmread(file) for file in files_of(written(tmp_path, "series"))]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert len({dataset[keyword].value for dataset in found}) == 1
    uids = [dataset.SOPInstanceUID for dataset in found]
    assert len(set(uids)) == len(uids) == 12
    assert all(re.fullmatch(r"2\.25\.[1-9]\d{0,38}", uid) for uid in uids)
    assert [dataset.InstanceNumber for dataset in found] == list(range(1, 13))
    assert re.fullmatch(r"TOMOGEN-[0-9a-f]{8}-000003", found[0].PatientID)
    assert (found[0].IssuerOfPatientID, str(found[0].PatientName)) == ("tomogen", "SYNTHETIC^TOMOGEN 0003")


def identity(path: Path) -> tuple[str, ...]:
    dataset = pydicom.dcmread(files_of(path)[0])
    return dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.PatientID


def test_the_same_sample_is_the_same_patient_and_another_is_another(tmp_path: Path) -> None:
    first = identity(written(tmp_path, "a"))
    assert identity(written(tmp_path, "b")) == first
    for n, (run, seed, index) in enumerate([("fedcba98", 7, 3), (MADE.run, 8, 3), (MADE.run, 7, 4)]):
        other = identity(written(tmp_path, f"c{n}", None, Provenance(model="m", run=run, seed=seed, index=index)))
        assert not set(other) & set(first)
    enhanced = identity(written(tmp_path, "one.dcm"))
    assert enhanced[2:] == first[2:]  # the same study and patient
    assert not set(enhanced[:2]) & set(first[:2])


def test_decimal_strings_have_16_characters_at_most(tmp_path: Path) -> None:
    for kind in ("series", "one.dcm"):
        for file in files_of(written(tmp_path, kind)):
            for element in pydicom.dcmread(file).iterall():
                if element.VR == "DS" and element.value is not None:
                    values = element.value if element.VM > 1 else [element.value]
                    assert all(len(str(value)) <= 16 for value in values), element


@pytest.mark.parametrize("kind", KINDS)
def test_slices_ascend_along_their_normal_whatever_the_grid(kind: str, tmp_path: Path) -> None:
    volume = body()
    for n, turned in enumerate([volume, volume.reorient("ILA"), volume.reorient("RPS"), volume.reorient("ASR")]):
        path = written(tmp_path, f"{n}{kind}" if kind.endswith(".dcm") else f"{kind}{n}", turned)
        datasets = [pydicom.dcmread(file) for file in files_of(path)]
        if kind.endswith(".dcm"):
            shared = datasets[0].SharedFunctionalGroupsSequence[0]
            cosines = shared.PlaneOrientationSequence[0].ImageOrientationPatient
            frames = datasets[0].PerFrameFunctionalGroupsSequence
            places = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames]
        else:
            cosines = datasets[0].ImageOrientationPatient
            places = [dataset.ImagePositionPatient for dataset in datasets]
        normal = np.cross(np.array(cosines[:3], float), np.array(cosines[3:], float))
        heights = np.array(places, dtype=float) @ normal
        assert np.allclose(np.diff(heights), turned.spacing[0], atol=1e-6)


def test_a_grid_without_right_angles_in_a_slice_is_cut_along_another_axis_or_refused(tmp_path: Path) -> None:
    sheared = body().affine.copy()
    sheared[:3, 0] += 0.3 * sheared[:3, 1]  # slices slide over one another, as under a tilted gantry
    volume = Volume(body().hu, sheared)
    dataset = pydicom.dcmread(files_of(written(tmp_path, "a", volume))[3])
    assert np.allclose(np.array(dataset.ImagePositionPatient, float), volume.world((3, 0, 0)), atol=1e-4)
    swapped = Volume(np.ascontiguousarray(volume.hu.transpose(2, 0, 1)), sheared[:, [2, 0, 1, 3]])
    assert len(files_of(written(tmp_path, "b", swapped))) == 12
    sheared[:3, 1] += 0.3 * sheared[:3, 2]
    sheared[:3, 0] += 0.3 * sheared[:3, 2]
    with pytest.raises(DataInvalid, match="right angles"):
        written(tmp_path, "c", Volume(body().hu, sheared))
    assert not (tmp_path / "c").exists()


def test_floats_are_rounded_to_whole_hu_and_what_exceeds_16_bits_to_the_finest_step(tmp_path: Path) -> None:
    hu = np.random.default_rng(1).uniform(-1024, 3000, body().shape).astype(np.float32)
    dataset = pydicom.dcmread(files_of(written(tmp_path, "a", Volume(hu, body().affine)))[2])
    assert np.abs(dataset.pixel_array - hu[2]).max() <= 0.5
    wide = hu * 40
    dataset = pydicom.dcmread(files_of(written(tmp_path, "b", Volume(wide, body().affine)))[2])
    values = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    assert float(dataset.RescaleSlope) < 2.6
    assert np.abs(values - wide[2]).max() <= float(dataset.RescaleSlope) / 2 * 1.01
    hu[0, 0, 0] = np.nan
    with pytest.raises(DataInvalid, match="NaN"):
        written(tmp_path, "c", Volume(hu, body().affine))


def test_a_converted_scan_claims_nothing(tmp_path: Path) -> None:
    scan = Volume(body().hu, body().affine, Acquisition(manufacturer="GE", kernel="LUNG", kvp=120))
    for kind in ("series", "one.dcm"):
        dataset = pydicom.dcmread(files_of(written(tmp_path, kind, scan, None))[0])
        assert dataset.SyntheticData == "NO"
        assert re.fullmatch(r"ANONYMOUS-[0-9a-f]{8}", dataset.PatientID)
        assert dataset.Manufacturer == "GE"
        assert dataset.ImageType[0] == "DERIVED"
        assert "SYNTHETIC" not in str(dataset)
        assert dataset.StudyDate == ""


def test_a_slice_of_a_2d_model_is_a_series_of_one_image(tmp_path: Path) -> None:
    flat = body().crop((5, 0, 0), (1, 24, 20))
    (file,) = files_of(written(tmp_path, "flat", flat))
    dataset = pydicom.dcmread(file)
    assert dataset.SOPClassUID == writer.CT_IMAGE
    assert np.array_equal(dataset.pixel_array, flat.hu[0])
    assert np.array(dataset.PixelSpacing, float) == pytest.approx(flat.spacing[1:])


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("name", ["series", "one.dcm"])
def test_one_or_two_slices_that_we_made_are_read_back_but_not_prepared(tmp_path: Path, name: str, depth: int) -> None:
    flat = body().crop((5, 0, 0), (depth, 24, 20))
    path = written(tmp_path, name, flat)
    after = formats.read(path)
    assert np.array_equal(after.hu, flat.hu)
    assert after.affine == pytest.approx(flat.affine, abs=1e-4)
    (finding,) = scan(path)
    assert finding.reason == (Reason.TOO_FEW if depth == 1 else None)
    for file in files_of(path):
        dataset = pydicom.dcmread(file)
        dataset.SyntheticData = "NO"
        dataset.save_as(file)
    with pytest.raises(DataInvalid, match="a volume needs 3"):
        formats.read(path)


@pytest.mark.parametrize("name", ["1.2.840", "1.2.840.113619.2"])
def test_the_name_of_a_folder_of_slices_may_end_in_a_dot_and_digits(tmp_path: Path, name: str) -> None:
    formats.write(body(), tmp_path / name)
    assert np.array_equal(formats.read(tmp_path / name).hu, body().hu)
    convert(tmp_path / name, tmp_path / f"{name}.7")
    assert (tmp_path / f"{name}.7" / "00001.dcm").is_file()
    with pytest.raises(DataInvalid, match="no format"):
        formats.write(body(), tmp_path / "scan.nothing")


def test_a_folder_that_holds_something_is_never_written_into(tmp_path: Path) -> None:
    path = written(tmp_path, "series")
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(UsageFault, match="not empty"):
        written(tmp_path, "series")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["series"]


def test_a_picture_is_a_secondary_capture_of_the_same_study(tmp_path: Path) -> None:
    volume = body()
    picture = three_planes(volume)
    capture.write(picture, tmp_path / "picture.dcm", volume, MADE)
    dataset = pydicom.dcmread(tmp_path / "picture.dcm")
    assert (dataset.SOPClassUID, dataset.ConversionType) == (capture.SECONDARY_CAPTURE, "WSD")
    assert (list(dataset.ImageType), dataset.SyntheticData) == (["DERIVED", "SECONDARY"], "YES")
    assert np.array_equal(dataset.pixel_array, np.asarray(picture))
    assert dataset.StudyInstanceUID == pydicom.dcmread(files_of(written(tmp_path, "series"))[0]).StudyInstanceUID


# Other programs. Each is skipped by its name where it is not installed.


def tool(name: str, *elsewhere: str) -> str:
    found = shutil.which(name) or next((place for place in elsewhere if Path(place).is_file()), None)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def validated(file: Path) -> list[str]:
    """What dciodvfy finds, but for SyntheticData, which is younger than its dictionary, and what follows from it."""
    done = subprocess.run([tool("dciodvfy"), str(file)], capture_output=True, text=True, timeout=60)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if re.search("Error|Warning", line)]
    return [line for line in lines if not re.search("(?i)0x0008,0x001c|Standard Extended SOP Class", line)]


@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_fault(kind: str, tmp_path: Path) -> None:
    tool("dciodvfy")
    for file in files_of(written(tmp_path, kind))[::5]:
        assert validated(file) == []


def test_dciodvfy_finds_no_fault_with_a_picture_nor_with_a_converted_scan(tmp_path: Path) -> None:
    tool("dciodvfy")
    volume = body()
    capture.write(three_planes(volume), tmp_path / "picture.dcm", volume, MADE)
    assert validated(tmp_path / "picture.dcm") == []
    for kind in ("series", "one.dcm"):
        real = written(tmp_path, kind, Volume(volume.hu, volume.affine), None)
        # No date and number of a study are made up for a real scan; a DICOMDIR would want them.
        assert [line for line in validated(files_of(real)[0]) if "DICOMDIR" not in line] == []


def test_dcentvfy_finds_the_series_consistent(tmp_path: Path) -> None:
    files = [str(file) for file in files_of(written(tmp_path, "series"))]
    done = subprocess.run([tool("dcentvfy"), *files], capture_output=True, text=True, timeout=60)
    assert (done.stdout + done.stderr).strip() == ""


@pytest.mark.parametrize("kind", ["series", "rle", "one.dcm"])  # of RLE in many frames it knows nothing
def test_dcm2niix_gets_the_same_scan_and_guesses_no_maker(kind: str, tmp_path: Path) -> None:
    program, path = tool("dcm2niix"), written(tmp_path, kind)
    out = tmp_path / "nifti"
    out.mkdir()
    done = subprocess.run(
        [program, "-o", str(out), "-f", "x", "-z", "n", "-m", "n", "-s", "n" if path.is_dir() else "y", str(path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "Toshiba" not in done.stdout + (out / "x.json").read_text()
    there, ours = formats.read(out / "x.nii"), body()
    index = np.rint(there.index(ours.world(np.moveaxis(np.indices(ours.shape), 0, -1)))).astype(int)
    assert np.array_equal(there.hu[tuple(np.moveaxis(index, -1, 0))], ours.hu)


@pytest.mark.parametrize("kind", KINDS)
def test_simpleitk_gets_the_same_scan(kind: str, tmp_path: Path) -> None:
    import SimpleITK as sitk  # noqa: N813

    volume, path = body(), written(tmp_path, kind)
    if path.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        image = reader.Execute()
    else:
        image = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.hu)
    assert np.allclose(image.GetOrigin(), volume.origin, atol=1e-4)
    assert np.allclose(image.GetSpacing()[::-1], volume.spacing, atol=1e-4)
    assert np.allclose(np.array(image.GetDirection()).reshape(3, 3)[:, ::-1], volume.directions, atol=1e-6)


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """An Orthanc of our own, on loopback, for the time of a test: its REST address and its DICOM port."""
    program = tool("Orthanc", "/usr/sbin/Orthanc")
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    settings = tmp_path / "orthanc.json"
    settings.write_text(
        f'{{"Name": "test", "HttpPort": {ports[0]}, "DicomPort": {ports[1]}, "RemoteAccessAllowed": false,'
        f' "StorageDirectory": "{tmp_path}/db", "IndexDirectory": "{tmp_path}/db", "AuthenticationEnabled": false,'
        ' "Plugins": []}'
    )
    with (tmp_path / "orthanc.log").open("w") as log:
        server = subprocess.Popen([program, str(settings)], stdout=log, stderr=log, env={**os.environ, "HOME": "/tmp"})
        address = f"http://127.0.0.1:{ports[0]}"
        try:
            for _ in range(100):
                try:
                    urllib.request.urlopen(f"{address}/system", timeout=5).read()
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert server.poll() is None, (tmp_path / "orthanc.log").read_text()
                    time.sleep(0.2)
            yield address, ports[1]
        finally:
            server.terminate()
            server.wait(30)


def ask(address: str, data: bytes | None = None) -> bytes:
    found: bytes = urllib.request.urlopen(address, data=data, timeout=30).read()
    return found


@pytest.mark.slow
def test_orthanc_takes_a_patient_once_and_gives_the_same_bytes_back(orthanc: tuple[str, int], tmp_path: Path) -> None:
    import json

    address, port = orthanc
    series, one = written(tmp_path, "series"), written(tmp_path, "one.dcm")
    for file in [*files_of(series), one, *files_of(series)]:  # the series twice: a re-send is no second patient
        ask(f"{address}/instances", file.read_bytes())
    counts = json.loads(ask(f"{address}/statistics"))
    assert [counts[f"Count{kind}"] for kind in ("Patients", "Studies", "Series", "Instances")] == [1, 1, 2, 13]
    instance = json.loads(ask(f"{address}/instances/{_orthanc_id(files_of(series)[0], address)}"))
    assert ask(f"{address}/instances/{instance['ID']}/file") == files_of(series)[0].read_bytes()
    assert ask(f"{address}/instances/{instance['ID']}/preview")[:4] == b"\x89PNG"
    if storescu := shutil.which("storescu"):
        other = written(tmp_path, "other", None, Provenance(model="m", run="another", seed=1, index=1))
        subprocess.run([storescu, "127.0.0.1", str(port), "+sd", str(other)], check=True, timeout=60)
        assert json.loads(ask(f"{address}/statistics"))["CountPatients"] == 2


def _orthanc_id(file: Path, address: str) -> str:
    uid = pydicom.dcmread(file).SOPInstanceUID
    import json

    (found,) = json.loads(ask(f"{address}/tools/lookup", str(uid).encode()))
    identifier: str = found["ID"]
    return identifier
