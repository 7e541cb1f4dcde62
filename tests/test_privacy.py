"""No value of a header that could identify somebody gets out: canaries in every such place, every byte searched."""

import gzip
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import DataElement, Dataset, FileDataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from tomogen.cases.folder import CaseFolder

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom sees what is planted

CANARY = "Kanarienvogel"
"""In texts and names, whole or in part of a longer value."""

ROOT = "1.2.826.0.1.3680043.8.498.7777777"
"""Start of every UID of the source."""

DATE, TIME, NUMBER = "19120314", "031415.926535", "8675309"

SECRETS = [CANARY.lower(), ROOT, "7777777", DATE, "1912-03-14", "1912", "031415", NUMBER, "042y"]

TEXTS = """
PatientName PatientID IssuerOfPatientID OtherPatientIDs OtherPatientNames PatientBirthName
PatientMotherBirthName PatientAddress PatientTelephoneNumbers EthnicGroup Occupation AdditionalPatientHistory
PatientComments PatientReligiousPreference MedicalRecordLocator MilitaryRank BranchOfService
CountryOfResidence RegionOfResidence MedicalAlerts Allergies InstitutionName InstitutionAddress
InstitutionalDepartmentName StationName DeviceSerialNumber ReferringPhysicianName ReferringPhysicianAddress
ReferringPhysicianTelephoneNumbers PhysiciansOfRecord PerformingPhysicianName NameOfPhysiciansReadingStudy
OperatorsName RequestingPhysician ScheduledPerformingPhysicianName AccessionNumber StudyID StudyDescription
SeriesDescription ProtocolName ImageComments RequestedProcedureDescription PerformedProcedureStepDescription
PerformedProcedureStepID RequestedProcedureID AdmissionID InsurancePlanIdentification CurrentPatientLocation
DetectorID PlateID CassetteID GantryID ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialSubjectID
ClinicalTrialSiteID ClinicalTrialSiteName TextComments VisitComments AcquisitionComments DerivationDescription
PersonName ContentCreatorName IssuerOfAdmissionID RouteOfAdmissions SecondaryCaptureDeviceID
Manufacturer ManufacturerModelName ConvolutionKernel ContrastBolusAgent SoftwareVersions FilterType BodyPartExamined
"""
DATES = """
PatientBirthDate StudyDate SeriesDate AcquisitionDate ContentDate InstanceCreationDate DateOfSecondaryCapture
LastMenstrualDate AdmittingDate PerformedProcedureStepStartDate DateOfLastCalibration
"""
TIMES = """
PatientBirthTime StudyTime SeriesTime AcquisitionTime ContentTime InstanceCreationTime AdmittingTime
"""
UIDS = """
StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID InstanceCreatorUID SynchronizationFrameOfReferenceUID
DeviceUID IrradiationEventUID TransactionUID
"""


def body(seed: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    _, j, i = np.indices((8, 20, 24)) - np.array([3.5, 9.5, 11.5])[:, None, None, None]
    noise = np.random.default_rng(seed).integers(-9, 10, i.shape)
    return np.where((i / (9 - seed % 3)) ** 2 + (j / 7) ** 2 < 1, 40 + noise, -1000).astype(np.int16)


def identify(dataset: Dataset) -> None:
    """Plant a canary in every element that could name somebody."""
    for word in TEXTS.split():
        try:
            setattr(dataset, word, f"{CANARY}^{word}"[:64])
        except (ValueError, TypeError):
            setattr(dataset, word, [CANARY])
    for word in DATES.split():
        setattr(dataset, word, DATE)
    for word in TIMES.split():
        setattr(dataset, word, TIME)
    for number, word in enumerate(UIDS.split()):
        setattr(dataset, word, f"{ROOT}.{number}")
    dataset.PatientAge, dataset.PatientSize, dataset.PatientWeight, dataset.PatientSex = (
        "042Y",
        "1.912",
        "86.75309",
        "O",
    )
    item = Dataset()
    item.CodeValue, item.CodeMeaning, item.ReferencedSOPInstanceUID = CANARY[:16], CANARY, f"{ROOT}.55"
    item.PersonName = item.InstitutionName = CANARY
    for word in ("RequestAttributesSequence", "ReferencedStudySequence", "OtherPatientIDsSequence"):
        setattr(dataset, word, [item])
    block = dataset.private_block(0x0029, f"{CANARY} HEADER", create=True)
    block.add_new(0x10, "LO", CANARY)
    block.add_new(0x11, "UN", CANARY.encode())


def series(folder: Path, seed: int, change: Callable[[Dataset, int], None] = lambda dataset, number: None) -> None:
    """A CT series full of canaries; file names tell nothing."""
    folder.mkdir(parents=True)
    for number, plane in enumerate(body(seed)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = f"{ROOT}.9.{seed}.{number}"
        meta.ImplementationVersionName = meta.SourceApplicationEntityTitle = CANARY[:16]
        dataset = FileDataset(None, {}, file_meta=meta, preamble=(CANARY * 10)[:128].encode())
        identify(dataset)
        dataset.SeriesInstanceUID = f"{ROOT}.2.{seed}"
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"{ROOT}.9.{seed}.{number}"
        dataset.Modality, dataset.InstanceNumber, dataset.ImageType = "CT", number + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.Rows, dataset.Columns = plane.shape
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.PixelSpacing, dataset.SliceThickness = [12, 12], 10
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 10 * number]
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = plane.tobytes()
        change(dataset, number)
        dataset.save_as(folder / f"{number:02d}.dcm", enforce_file_format=True)


def nifti(path: Path, seed: int, name: bytes = b"") -> None:
    """NIfTI-1 with canaries in every text field and in extensions of three kinds."""
    values = body(seed)
    text = CANARY.encode()
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    header[4:14], header[14:32] = text[:10], text.ljust(18, b"\0")
    struct.pack_into("<8h", header, 40, 3, *values.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1, 12, 12, 10, 0, 0, 0, 0)
    header[123] = 2
    header[148 : 148 + len(text)] = header[228 : 228 + len(text)] = text
    struct.pack_into("<hh", header, 252, 0, 1)
    struct.pack_into("<12f", header, 280, 12, 0, 0, 0, 0, 12, 0, 0, 0, 0, 10, 0)
    header[328 : 328 + len(text)] = text
    header[344:348] = b"n+1\0"
    extensions = b"\1\0\0\0"
    for code in (2, 4, 6, 44):
        extensions += struct.pack("<ii", 64, code) + (text * 5)[:56]
    struct.pack_into("<f", header, 108, 348 + len(extensions))
    path.write_bytes(gzip.compress(bytes(header) + extensions + values.tobytes()))


def nrrd(path: Path, seed: int) -> None:
    values = body(seed)
    fields = [
        "NRRD0005", f"# {CANARY}", f"content: {CANARY}", "type: int16", "dimension: 3",
        "space: left-posterior-superior", "sizes: 24 20 8", "space directions: (12,0,0) (0,12,0) (0,0,10)",
        "space origin: (0,0,0)", "encoding: raw", "endian: little", f"PatientName:={CANARY}", f"date:={DATE}",
        f"DICOM_0010_0020:={NUMBER}", f"{CANARY}:=key",
    ]  # fmt: skip
    path.write_bytes("\n".join(fields).encode() + b"\n\n" + values.tobytes())


def mha(path: Path, seed: int) -> None:
    fields = [
        "ObjectType = Image", "NDims = 3", f"Comment = {CANARY}", f"Name = {CANARY}", f"ID = {NUMBER}",
        "BinaryData = True", "BinaryDataByteOrderMSB = False", "TransformMatrix = 1 0 0 0 1 0 0 0 1", "Offset = 0 0 0",
        "ElementSpacing = 12 12 10", "DimSize = 24 20 8", f"0010|0010 = {CANARY}", f"AcquisitionDate = {DATE}",
        "ElementType = MET_SHORT", "ElementDataFile = LOCAL",
    ]  # fmt: skip
    path.write_bytes("\n".join(fields).encode() + b"\n" + body(seed).tobytes())


def broken(word: str, value: str) -> Callable[[Dataset, int], None]:
    """Set an element to a text that its VR does not allow, past pydicom's checks."""

    def change(dataset: Dataset, number: int) -> None:
        vr = dictionary_VR(word)
        content: Any = value.encode() if vr == "OB or OW" else value
        dataset[word] = DataElement(tag_for_keyword(word), vr[:2], content, already_converted=True)

    return change


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans that will be used, refused and fail, with canaries all over."""
    folder = tmp_path_factory.mktemp("sources")
    series(folder / "a", 0)
    series(folder / "b", 1)
    nifti(folder / "c.nii.gz", 2)
    nrrd(folder / "d.nrrd", 3)
    mha(folder / "e.mha", 4)

    def other_patient(dataset: Dataset, number: int) -> None:
        dataset.PatientID = f"{CANARY}{number % 2}"

    def misplaced(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient = [0, 0, 10 * number + 40 * (number > 4)]

    def magnetic(dataset: Dataset, number: int) -> None:
        dataset.Modality = "MR"

    def texts(dataset: Dataset, number: int) -> None:
        dataset.PixelSpacing = None

    for name, change in {
        "mixed": other_patient,
        "gap": misplaced,
        "mr": magnetic,
        "nospacing": texts,
        "badspacing": broken("PixelSpacing", CANARY),
        "badposition": broken("ImagePositionPatient", f"{CANARY}\\0\\0"),
        "badslope": broken("RescaleSlope", CANARY),
        "badnumber": broken("InstanceNumber", CANARY),
        "baduid": broken("SeriesInstanceUID", CANARY),
        "badmodality": broken("Modality", CANARY),
        "badtype": broken("ImageType", CANARY),
        "badclass": broken("SOPClassUID", CANARY),
        "badkv": broken("KVP", CANARY),
        "badthickness": broken("SliceThickness", CANARY),
        "numberaskv": broken("KVP", NUMBER),
        "numberasthickness": broken("SliceThickness", NUMBER),
        "numberaskernel": broken("ConvolutionKernel", f"B{NUMBER}"),
        "badset": broken("SpecificCharacterSet", CANARY),
        "badphotometric": broken("PhotometricInterpretation", CANARY),
        "badpixels": broken("PixelData", CANARY),
    }.items():
        series(folder / name, 5 + len(name), change)
    (folder / "cut").mkdir()
    whole = (folder / "a" / "00.dcm").read_bytes()
    (folder / "cut" / "00.dcm").write_bytes(whole[: whole.index(b"Kanarienvogel^Study") + 6])
    (folder / "text.dcm").write_text(CANARY * 40)
    (folder / "text.nii").write_text(CANARY * 40)
    (folder / "text.nrrd").write_text(f"NRRD0004\ntype: {CANARY}\nsizes: {CANARY}\n\n")
    (folder / "text.mha").write_text(f"ObjectType = {CANARY}\nNDims = {CANARY}\nElementDataFile = {CANARY}\n")
    for name, word, ending in (
        ("type", "int16", "nrrd"),
        ("space", "left-posterior-superior", "nrrd"),
        ("sizes", "24 20 8", "nrrd"),
        ("encoding", "raw", "nrrd"),
        ("type", "MET_SHORT", "mha"),
        ("dimensions", "NDims = 3", "mha"),
    ):
        whole = (folder / ("d.nrrd" if ending == "nrrd" else "e.mha")).read_bytes()
        said = f"NDims = {CANARY}" if name == "dimensions" else CANARY
        (folder / f"no{name}.{ending}").write_bytes(whole.replace(word.encode(), said.encode(), 1))
    content = gzip.decompress((folder / "c.nii.gz").read_bytes())
    (folder / "cut.nii.gz").write_bytes(gzip.compress(content)[:-20])
    (folder / "notype.nii").write_bytes(content[:70] + b"\x99\x99" + content[72:])
    (folder / "e_cut.mha").write_bytes((folder / "e.mha").read_bytes()[:-999])
    (folder / "d_cut.nrrd").write_bytes((folder / "d.nrrd").read_bytes()[:-999])
    return folder


def run(*arguments: str) -> tuple[int, bytes]:
    """Exit code, and all that was said on both streams, C libraries included."""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-m", "tomogen", *arguments], capture_output=True, timeout=240, check=False
    )
    return done.returncode, done.stdout + done.stderr


def secrets_in(said: bytes, places: tuple[str, ...] = ()) -> list[str]:
    """Which secrets occur, in any case and as UTF-8 or UTF-16; `places` are paths that may be named."""
    text = said.lower()
    for place in places:
        text = text.replace(place.lower().encode(), b"")
    return [word for word in SECRETS if word.encode() in text or word.encode("utf-16-le") in text]


def test_the_search_finds_what_is_there(sources: Path) -> None:
    content = (sources / "a" / "00.dcm").read_bytes()
    assert set(secrets_in(content)) >= {CANARY.lower(), ROOT, DATE, "1912", "042y"}
    assert secrets_in(b"nothing here") == []


@pytest.mark.parametrize("flags", [["-v"], ["--json"]])
def test_prepare_writes_and_says_nothing_that_identifies(sources: Path, tmp_path: Path, flags: list[str]) -> None:
    out = tmp_path / "out"
    code, said = run("prepare", str(sources), str(out), "--shape", "8", "16", "16", "--workers", "1", *flags)
    assert code == 8, said.decode()
    assert secrets_in(said, (str(sources), str(out))) == []
    assert len(CaseFolder.open(out).cases) >= 5
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 15
    for path in files:
        assert secrets_in(path.read_bytes(), (str(sources),)) == [], path
        assert secrets_in(str(path.relative_to(out)).encode()) == []


def test_worker_processes_say_nothing_either(sources: Path, tmp_path: Path) -> None:
    code, said = run("prepare", str(sources), str(tmp_path / "out"), "--shape", "8", "16", "16", "--workers", "2")
    assert code == 8, said.decode()
    assert secrets_in(said, (str(sources), str(tmp_path))) == []


def test_a_csv_of_patients_does_not_get_out(sources: Path, tmp_path: Path) -> None:
    rows = [f"{name},{CANARY}-{number}" for number, name in enumerate(("a", "b", "c.nii.gz", "d.nrrd", "e.mha"))]
    (tmp_path / "names.csv").write_text("\n".join(["path,patient", *rows]))
    flags = ["--shape", "8", "16", "16", "--workers", "1", "--patients", str(tmp_path / "names.csv"), "--json"]
    code, said = run("prepare", str(sources), str(tmp_path / "out"), *flags)
    assert code == 8, said.decode()
    assert secrets_in(said, (str(sources), str(tmp_path))) == []
    assert all(secrets_in(path.read_bytes(), (str(sources),)) == [] for path in (tmp_path / "out").rglob("*.json"))


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs full of canaries: one that is good, and one for each thing that headers can tell against a pair."""
    folder = tmp_path_factory.mktemp("paired")

    def half(seed: int, **words: str) -> Callable[[Dataset, int], None]:
        def change(dataset: Dataset, number: int) -> None:
            k, j, i = np.indices((8, 20, 24)) - np.array([3.5, 9.5, 11.5])[:, None, None, None]
            hu = body(seed)
            hu[((i - 3) / 3) ** 2 + (j / 4) ** 2 + ((k - 1) / 2) ** 2 < 1] = -800  # one place in the body to hold on to
            dataset.PixelData = hu[number].tobytes()
            dataset.PatientID = dataset.FrameOfReferenceUID = f"{ROOT}.1"
            for word, value in words.items():
                setattr(dataset, word, value)

        return change

    for name, words in {
        "good": {},
        "person": {"PatientID": f"{CANARY}-2"},
        "frame": {"FrameOfReferenceUID": f"{ROOT}.66"},
        "spacing": {"PixelSpacing": "11\\12"},
    }.items():
        series(folder / name / "CT1", 0, half(0))
        series(folder / name / "CT2", 3, half(3, **words))
    series(folder / "alone" / "CT1", 6, half(6))
    return folder


@pytest.mark.parametrize("flags", [["-v"], ["--json"]])
def test_pairs_tell_nothing_either(paired: Path, tmp_path: Path, flags: list[str]) -> None:
    out, shape = tmp_path / "out", ["--shape", "8", "16", "16", "--workers", "1"]
    code, said = run("prepare", str(paired), str(out), *shape, *flags, "--pairs")
    assert code == 8, said.decode()
    assert all(word in said for word in (b"two patients", b"two frames of reference", b"unlike spacing", b"partner"))
    rows = [f"good/CT1,good/CT2,{CANARY}", f"alone/CT1,{paired / 'good' / 'CT3'},{CANARY}"]
    (tmp_path / "pairs.csv").write_text("\n".join(["source,target,patient", *rows]))
    again, more = run(
        "prepare", str(paired), str(tmp_path / "listed"), *shape, *flags, f"--pairs={tmp_path / 'pairs.csv'}"
    )
    assert again == 8, more.decode()
    found, told = run("doctor", str(paired), *flags, "--pairs")
    assert found == 1, told.decode()
    assert secrets_in(said + more + told, (str(paired), str(tmp_path))) == []
    assert len(CaseFolder.open(out).cases) == 1
    for folder in (out, tmp_path / "listed"):
        for path in folder.rglob("*"):
            if path.is_file():
                assert secrets_in(path.read_bytes(), (str(paired), str(tmp_path))) == [], path


@pytest.mark.parametrize("flags", [["-v"], ["--json"]])
def test_doctor_says_nothing_that_identifies(sources: Path, flags: list[str]) -> None:
    code, said = run("doctor", str(sources), *flags)
    assert code in (0, 1), said.decode()
    assert b"gap" in said
    assert secrets_in(said, (str(sources),)) == []


def test_every_single_source_is_refused_or_used_without_a_word_too_much(sources: Path, tmp_path: Path) -> None:
    from tomogen.cases.prepare import prepare
    from tomogen.errors import TomogenError

    for number, path in enumerate(sorted(sources.iterdir())):
        try:
            told = json.dumps(vars(prepare(path, tmp_path / str(number), shape=(8, 16, 16), workers=1)), default=str)
        except TomogenError as error:
            told = f"{error} {error!r} {error.what}"
        assert secrets_in(told.encode(), (str(sources), str(tmp_path))) == [], path.name
