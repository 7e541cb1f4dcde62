"""A DICOM series made from another: what it keeps, says of itself and leaves out; what other programs say of it."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

import dicoms
from test_dicom_out import ask, orthanc, tool, validated
from tomogen import formats
from tomogen.errors import DataInvalid, Reason, UsageFault
from tomogen.formats import Provenance, ReadOptions, dicom
from tomogen.formats.dicom import derived

__all__ = ["orthanc"]

MADE = Provenance(model="pix2pix3d", run="0123456789abcdef", seed=0, index=1, source="sha256:0011223344556677")
EXACT = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices")
KEPT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
    "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "BodyPartExamined", "PatientPosition", "PatientAge",
)  # fmt: skip


def identify(dataset: Dataset) -> Dataset:
    """A patient, a study, and much that has no place in what is derived."""
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName, dataset.PatientID, dataset.IssuerOfPatientID = "Müller^Zoë", "P-42", "clinic"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19500102", "F", "070Y"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200304", "101112", "S7"
    dataset.StudyDescription, dataset.AccessionNumber = "Thorax größer", "A1"
    dataset.ReferringPhysicianName, dataset.PositionReferenceIndicator = "Bär^Karl", "XY"
    dataset.BodyPartExamined, dataset.PatientPosition, dataset.SeriesNumber = "CHEST", "FFS", 4
    dataset.SliceThickness = "2.500"
    dataset.OperatorsName, dataset.InstitutionName, dataset.StationName = "SECRET^Op", "SECRET clinic", "SECRET"
    dataset.SeriesDescription = dataset.ProtocolName = dataset.ImageComments = "SECRET"
    dataset.CTDIvol, dataset.ExposureTime, dataset.XRayTubeCurrent, dataset.Exposure = 12.5, 500, 200, 100
    dataset.ContrastBolusAgent, dataset.ScanOptions = "SECRET", "HELICAL"
    dataset.private_block(0x0009, "SECRET CREATOR", create=True).add_new(1, "LO", "SECRET")
    return dataset


def source(folder: Path, change: Callable[[int, Dataset], None] = lambda k, dataset: None, **how: object) -> Path:
    """A series on oblique axes with odd numbers, in files whose order is not that of the slices."""
    turn = np.radians(17)
    axes = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    made = [identify(one) for one in dicoms.slices(dicoms.chest(), axes=axes, **how)]  # type: ignore[arg-type]
    for k, dataset in enumerate(made):
        dataset.InstanceNumber = 40 - k
        dataset.ImagePositionPatient = ["-120.50000", "-110.2500", f"{30 + 2.5 * k:.6f}"]
        dataset.PixelSpacing = ["0.800000", "0.700"]
        change(k, dataset)
    return dicoms.save(folder, made, lambda k: f"{(k * 3) % 5}.dcm")


def translated(path: Path, out: Path, provenance: Provenance = MADE) -> tuple[NDArray[np.int16], list[Dataset]]:
    """The series derived from the one in `path` by adding 100 HU; the HU, and the files as read."""
    found = dicom.load(dicom.files_in(path))
    hu = found.volume.hu.astype(np.int16) + np.int16(100)
    derived.write(hu, out, found.slices, provenance)
    return hu, [pydicom.dcmread(file) for file in sorted(out.iterdir())]


def by_position(datasets: Sequence[Dataset]) -> list[Dataset]:
    return sorted(datasets, key=lambda one: float(one.ImagePositionPatient[2]))


def files(path: Path) -> list[Dataset]:
    return [pydicom.dcmread(file) for file in path.iterdir()]


def test_each_slice_lies_exactly_where_its_source_lies_and_names_it(tmp_path: Path) -> None:
    path = source(tmp_path / "s")
    _, made = translated(path, tmp_path / "d")
    before = by_position(files(path))
    assert len(made) == len(before) == 5
    for new, old in zip(made, before, strict=True):
        for keyword in EXACT:
            if keyword in old:
                assert [str(x) for x in np.atleast_1d(new[keyword].value)] == [
                    str(x) for x in np.atleast_1d(old[keyword].value)
                ]
        (reference,) = new.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == old.SOPClassUID
        assert "ReferencedFrameNumber" not in reference
        assert reference.SpatialLocationsPreserved == "YES"
        (purpose,) = reference.PurposeOfReferenceCodeSequence
        assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("121322", "DCM")
        assert new.InstanceNumber == old.InstanceNumber
    raw = [bytes(file.read_bytes()) for file in sorted((tmp_path / "d").iterdir())]
    assert all(b"-120.50000\\-110.2500\\" in data and b"0.800000\\0.700" in data for data in raw)


def test_pixels_return_as_they_were_given_and_in_their_place(tmp_path: Path) -> None:
    path = source(tmp_path / "s")
    hu, made = translated(path, tmp_path / "d")
    before, after = formats.read(path), formats.read(tmp_path / "d")
    assert np.array_equal(after.hu, hu)
    assert np.array_equal(after.affine, before.affine)
    for one in made:
        assert (one.RescaleSlope, one.RescaleIntercept, one.RescaleType) == (1, 0, "HU")
        assert (one.PixelRepresentation, one.BitsStored, one.LossyImageCompression) == (1, 16, "00")


def test_patient_study_and_frame_of_reference_are_the_sources(tmp_path: Path) -> None:
    path = source(tmp_path / "s")
    _, made = translated(path, tmp_path / "d")
    old = files(path)[0]
    for new in made:
        assert new.SpecificCharacterSet == "ISO_IR 192"
        for keyword in KEPT:
            assert str(new[keyword].value) == str(old[keyword].value), keyword
    assert "Müller^Zoë".encode() in (tmp_path / "d" / "00001.dcm").read_bytes()


def test_a_name_in_three_scripts_comes_over(tmp_path: Path) -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"

    def japanese(k: int, dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        dataset.PatientName = name
        dataset.StudyDescription, dataset.ReferringPhysicianName = "", ""

    _, made = translated(source(tmp_path / "s", japanese), tmp_path / "d")
    assert str(made[0].PatientName) == name
    assert name.encode() in (tmp_path / "d" / "00001.dcm").read_bytes()


def test_nothing_else_of_the_header_comes_along(tmp_path: Path) -> None:
    _, made = translated(source(tmp_path / "s"), tmp_path / "d")
    for file in (tmp_path / "d").iterdir():
        assert b"SECRET" not in file.read_bytes()
    for one in made:
        assert not any(element.tag.is_private for element in one)
        assert one["KVP"].is_empty
        assert one["AcquisitionNumber"].is_empty
        for never in ("CTDIvol", "ExposureTime", "XRayTubeCurrent", "Exposure", "ContrastBolusAgent", "ScanOptions"):
            assert never not in one


def test_what_a_model_made_says_so(tmp_path: Path) -> None:
    _, made = translated(source(tmp_path / "s"), tmp_path / "d")
    for one in made:
        assert (one.SyntheticData, list(one.ImageType)) == ("YES", ["DERIVED", "SECONDARY", "AXIAL"])
        for keyword in ("ImageComments", "SeriesDescription"):
            assert "SYNTHETIC, NOT FOR DIAGNOSIS" in one[keyword].value
        (equipment,) = one.ContributingEquipmentSequence
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109100"
        for maker in (one, equipment):
            assert (maker.Manufacturer, maker.ManufacturerModelName) == ("SYNTHETIC (tomogen)", "tomogen/pix2pix3d")
            assert maker.DeviceSerialNumber == MADE.run
        for word in (MADE.model, MADE.run, MADE.source):
            assert word in one.DerivationDescription


def test_the_series_is_a_new_one_and_the_same_every_time(tmp_path: Path) -> None:
    path = source(tmp_path / "s")
    _, made = translated(path, tmp_path / "d")
    assert {one.SeriesNumber for one in made} == {9004}
    (series,) = {one.SeriesInstanceUID for one in made}
    uids = [one.SOPInstanceUID for one in made]
    assert len({series, *uids, *(one.SOPInstanceUID for one in files(path)), files(path)[0].SeriesInstanceUID}) == 12
    assert all(re.fullmatch(r"2\.25\.[1-9]\d{0,38}", uid) for uid in [series, *uids])
    assert [one.file_meta.MediaStorageSOPInstanceUID for one in made] == uids
    translated(path, tmp_path / "again")
    for file in (tmp_path / "d").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    for n, changes in enumerate([{"run": "fedcba9876543210"}, {"source": "sha256:8899"}]):
        other = Provenance(**({**vars(MADE), **changes}))
        _, differing = translated(path, tmp_path / f"other{n}", other)
        assert not {one.SOPInstanceUID for one in differing} & set(uids)
        assert differing[0].SeriesInstanceUID != series
        assert differing[0].StudyInstanceUID == made[0].StudyInstanceUID


def test_frames_of_an_enhanced_file_are_named_by_their_number(tmp_path: Path) -> None:
    whole = identify(dicoms.enhanced(dicoms.chest()))
    del whole.SliceThickness
    dicoms.save(tmp_path / "s", [whole])
    hu, made = translated(tmp_path / "s", tmp_path / "d")
    assert [one.SourceImageSequence[0].ReferencedFrameNumber for one in made] == [1, 2, 3, 4, 5]
    assert {one.SourceImageSequence[0].ReferencedSOPInstanceUID for one in made} == {whole.SOPInstanceUID}
    assert len({one.SOPInstanceUID for one in made}) == 5
    assert [one.InstanceNumber for one in made] == [1, 2, 3, 4, 5]
    assert [float(one.ImagePositionPatient[2]) for one in made] == [30, 32.5, 35, 37.5, 40]
    assert (made[0].SliceThickness, list(made[0].PixelSpacing)) == (2.5, [0.8, 0.7])
    assert str(made[0].PatientName) == "Müller^Zoë"
    assert np.array_equal(formats.read(tmp_path / "d").hu, hu)


def test_what_was_compressed_with_loss_stays_lossy(tmp_path: Path) -> None:
    def lossy(k: int, dataset: Dataset) -> None:
        dataset.LossyImageCompression, dataset.LossyImageCompressionRatio = "01", 11.5
        dataset.LossyImageCompressionMethod, dataset.BurnedInAnnotation = "ISO_10918_1", "YES"

    _, made = translated(source(tmp_path / "s", lossy), tmp_path / "d")
    one = made[0]
    assert (one.LossyImageCompression, one.LossyImageCompressionRatio) == ("01", 11.5)
    assert (one.LossyImageCompressionMethod, one.BurnedInAnnotation) == ("ISO_10918_1", "YES")


def test_decimals_that_are_too_long_are_shortened_to_what_the_standard_allows(tmp_path: Path) -> None:
    def long(k: int, dataset: Dataset) -> None:
        dataset.add(pydicom.DataElement("ImagePositionPatient", "DS", ["-25.2", "7", str(30 + k * 2.5)]))
        element = dataset["ImagePositionPatient"]
        element.value[0].original_string = "-25.200000000000003"

    path = source(tmp_path / "s", long)
    assert b"-25.200000000000003" in (path / "0.dcm").read_bytes()
    _, made = translated(path, tmp_path / "d")
    assert all(len(str(x)) <= 16 for one in made for x in one.ImagePositionPatient)
    assert float(made[0].ImagePositionPatient[0]) == pytest.approx(-25.2, abs=1e-12)


def test_a_slice_that_was_interpolated_is_not_made_up(tmp_path: Path) -> None:
    path = source(tmp_path / "s")
    (path / "3.dcm").unlink()  # the second from below
    found = dicom.load(dicom.files_in(path), ReadOptions(fill_gaps=True))
    assert [one is None for one in found.slices] == [False, True, False, False, False]
    derived.write(found.volume.hu.astype(np.int16), tmp_path / "d", found.slices, MADE)
    made = files(tmp_path / "d")
    assert len(made) == 4
    assert {str(one.ImagePositionPatient) for one in made} == {str(one.ImagePositionPatient) for one in files(path)}


def test_a_header_that_lacks_much_still_makes_a_valid_series(tmp_path: Path) -> None:
    def bare(k: int, dataset: Dataset) -> None:
        for keyword in (*KEPT, "SeriesNumber", "SliceThickness", "InstanceNumber"):
            if keyword in dataset:
                delattr(dataset, keyword)

    _, made = translated(source(tmp_path / "s", bare), tmp_path / "d")
    one = made[0]
    for keyword in ("PatientName", "PatientID", "StudyDate", "SliceThickness", "PositionReferenceIndicator"):
        assert one[keyword].is_empty, keyword
    assert one.StudyInstanceUID.startswith("2.25.")
    assert one.FrameOfReferenceUID.startswith("2.25.")
    assert one.SeriesNumber == 9000
    assert [one.InstanceNumber for one in made] == [1, 2, 3, 4, 5]


def test_slices_without_identifiers_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    def nameless(k: int, dataset: Dataset) -> None:
        if k == 3:
            del dataset.SOPInstanceUID

    path = source(tmp_path / "s", nameless)
    found = dicom.load(dicom.files_in(path))
    for call in (
        lambda: derived.check(found.slices),
        lambda: derived.write(found.volume.hu.astype(np.int16), tmp_path / "d", found.slices, MADE),
    ):
        with pytest.raises(DataInvalid, match="no SOPInstanceUID") as caught:
            call()
        assert (caught.value.reason, caught.value.fix) == (Reason.CORRUPT, "--format nii")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["s"]


def test_a_folder_that_holds_something_is_never_written_into(tmp_path: Path) -> None:
    path = source(tmp_path / "s")
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(UsageFault, match="not empty"):
        translated(path, path)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


REAL = ["chest/CIP-ct64/dicom", "chest/LIDC-IDRI-0001/3000566-03192"]
"""Implicit little endian without a body part; JPEG-LS."""


@pytest.mark.parametrize("name", [REAL[0], pytest.param(REAL[1], marks=pytest.mark.slow)])
def test_real_series_are_derived_from_bit_for_bit(name: str, ctdata: Path, tmp_path: Path) -> None:
    hu, made = translated(ctdata / name, tmp_path / "d")
    before, after = formats.read(ctdata / name), formats.read(tmp_path / "d")
    assert np.array_equal(after.hu, hu)
    assert np.array_equal(after.affine, before.affine)
    old = {one.SOPInstanceUID: one for one in (pydicom.dcmread(f) for f in (ctdata / name).glob("*.dcm"))}
    for one in made:
        its = old[one.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert its.ImagePositionPatient == one.ImagePositionPatient
        assert its.FrameOfReferenceUID == one.FrameOfReferenceUID
    if shutil.which("dciodvfy"):
        left = [line for line in validated(tmp_path / "d" / "00007.dcm") if "DICOMDIR" not in line]
        # Of the source's own: names without a caret, and a body part that is not said.
        assert [line for line in left if "Retired Person Name" not in line and "<Laterality>" not in line] == []


# Other programs. Each is skipped by its name where it is not installed.


def test_dciodvfy_finds_no_fault(tmp_path: Path) -> None:
    tool("dciodvfy")
    translated(source(tmp_path / "s"), tmp_path / "d")
    for file in (tmp_path / "d").iterdir():
        assert validated(file) == []


def test_dcentvfy_finds_source_and_derived_series_consistent(tmp_path: Path) -> None:
    def plain(k: int, dataset: Dataset) -> None:  # it compares bytes, whatever the character set
        dataset.PatientName, dataset.ReferringPhysicianName = "Mueller^Zoe", "Baer^Karl"
        dataset.StudyDescription = "Thorax"

    path = source(tmp_path / "s", plain)
    translated(path, tmp_path / "d")
    named = [str(file) for folder in (path, tmp_path / "d") for file in sorted(folder.iterdir())]
    done = subprocess.run([tool("dcentvfy"), *named], capture_output=True, text=True, timeout=60)
    assert (done.stdout + done.stderr).strip() == ""


def test_dcm2niix_gets_the_same_scan_and_guesses_no_maker(tmp_path: Path) -> None:
    program = tool("dcm2niix")
    hu, _ = translated(source(tmp_path / "s"), tmp_path / "d")
    out = tmp_path / "nifti"
    out.mkdir()
    done = subprocess.run(
        [program, "-o", str(out), "-f", "x", "-z", "n", "-m", "n", str(tmp_path / "d")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "Toshiba" not in done.stdout + (out / "x.json").read_text()
    there, ours = formats.read(out / "x.nii"), formats.read(tmp_path / "d")
    index = np.rint(there.index(ours.world(np.moveaxis(np.indices(ours.shape), 0, -1)))).astype(int)
    assert np.array_equal(there.hu[tuple(np.moveaxis(index, -1, 0))], hu)


def test_dcmtk_reads_every_element(tmp_path: Path) -> None:
    program = tool("dcmdump")
    translated(source(tmp_path / "s"), tmp_path / "d")
    done = subprocess.run([program, "-q", str(tmp_path / "d" / "00001.dcm")], capture_output=True, timeout=60)
    assert done.returncode == 0
    assert "SourceImageSequence" in done.stdout.decode()
    assert done.stderr == b""


@pytest.mark.slow
def test_orthanc_puts_it_beside_its_source(orthanc: tuple[str, int], tmp_path: Path) -> None:
    address, port = orthanc
    path = source(tmp_path / "s")
    translated(path, tmp_path / "d")
    for folder in (path, tmp_path / "d"):
        for file in sorted(folder.iterdir()):
            ask(f"{address}/instances", file.read_bytes())
    counts = json.loads(ask(f"{address}/statistics"))
    assert [counts[f"Count{kind}"] for kind in ("Patients", "Studies", "Series", "Instances")] == [1, 1, 2, 10]
    (study,) = json.loads(ask(f"{address}/studies?expand"))
    assert len(study["Series"]) == 2
    frames = set()
    for series in study["Series"]:
        found = json.loads(ask(f"{address}/series/{series}"))
        assert found["ParentStudy"] == study["ID"]
        for instance in found["Instances"]:
            tags = json.loads(ask(f"{address}/instances/{instance}/simplified-tags"))
            frames.add(tags["FrameOfReferenceUID"])
    assert len(frames) == 1
    if storescu := shutil.which("storescu"):  # sent again over DICOM: duplicates, no second series
        subprocess.run([storescu, "127.0.0.1", str(port), "+sd", str(tmp_path / "d")], check=True, timeout=60)
        assert json.loads(ask(f"{address}/statistics"))["CountInstances"] == 10
