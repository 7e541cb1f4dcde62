"""What a DICOM file of ours says of where it comes from: identity, honesty, unique identifiers."""

import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tomogen._version import __version__
from tomogen.formats import Provenance
from tomogen.volume import Acquisition, Volume

if TYPE_CHECKING:
    from pydicom import Dataset

NOTICE = "SYNTHETIC, NOT FOR DIAGNOSIS"

MAKER = "SYNTHETIC (tomogen)"
"""Manufacturer. A name that starts with TO is read as Toshiba by dcm2niix, which looks into sequences too."""

NEVER = ("19000101", "000000")
"""Date and time where they must be there (a DICOMDIR, Enhanced CT): of no clock, since the same sample is the same
file whenever it is made, and of no study, since there was none."""

_NAMESPACE = uuid.UUID("6f1f7d1e-3c55-5d0c-9a8e-0f7a3f6c2b11")
"""Of all our identifiers; chosen once."""

_OF_THE_PATIENT = ("study", "frame of reference")
"""Kinds of identifier that the scans of one patient share."""


@dataclass(frozen=True)
class Origin:
    """Where a volume comes from, and the identity that follows from it and from nothing else."""

    synthetic: bool
    key: str
    """What every identifier is a function of."""
    patient_id: str
    patient_name: str
    description: str
    equipment: str
    serial: str
    acquisition: Acquisition
    scan: int = 1
    """Which scan of this patient, counted from 1."""

    def uid(self, kind: str) -> str:
        """The identifier of this kind: same sample, same identifier, so that sending twice makes a duplicate."""
        scan = "" if self.scan == 1 or kind in _OF_THE_PATIENT else f"/scan {self.scan}"
        return f"2.25.{uuid.uuid5(_NAMESPACE, f'{self.key}{scan}/{kind}').int}"


def origin_of(volume: Volume, provenance: Provenance | None) -> Origin:
    """A synthetic volume is known by run, seed, index and source; any other by its voxels and its place.

    The first block of the PatientID is made of run and seed together: sample 1 of two seeds is two patients.
    """
    acquisition = volume.acquisition
    if provenance is not None:
        run, seed, index = provenance.run, provenance.seed, provenance.index
        source = f"/{provenance.source}" if provenance.source else ""
        block = uuid.uuid5(_NAMESPACE, f"{run}/{seed}{source}").hex[:8]
        told = f"made from {provenance.source}" if source else f"seed {seed}, sample {index}"
        text = f"model {provenance.model}, run {run}, {told}"
        return Origin(
            synthetic=True,
            key=f"{run}/{seed}/{index}{source}",
            patient_id=f"TOMOGEN-{block}-{index:06d}",
            patient_name=f"SYNTHETIC^TOMOGEN {index:04d}",
            description=f"{text}. {provenance.description}" if provenance.description else text,
            equipment=f"tomogen/{provenance.model}",
            serial=run,
            acquisition=acquisition,
            scan=provenance.scan,
        )
    digest = _digest(volume)
    synthetic = acquisition.synthetic
    return Origin(
        synthetic=synthetic,
        key=f"voxels/{digest}",
        patient_id=f"{'TOMOGEN' if synthetic else 'ANONYMOUS'}-{digest[:8]}",
        patient_name=f"SYNTHETIC^TOMOGEN {digest[:4]}" if synthetic else "ANONYMOUS^CONVERTED",
        description="synthetic volume, its model not recorded" if synthetic else "converted from another format",
        equipment="tomogen",
        serial="",
        acquisition=acquisition,
    )


def describe(dataset: "Dataset", origin: Origin, *, series: str, number: int) -> None:
    """Fill in patient, study, series, equipment and honesty; what is unknown and required (type 2) stays empty."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = origin.patient_name
    dataset.PatientID = origin.patient_id
    dataset.IssuerOfPatientID = "tomogen"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.StudyInstanceUID = origin.uid("study")
    dataset.StudyDate, dataset.StudyTime = NEVER if origin.synthetic else ("", "")
    dataset.StudyID = "1" if origin.synthetic else ""
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.SeriesInstanceUID = origin.uid(series)
    # series 1 to 9 belong to the patient's first scan, 11 to 19 to the second
    dataset.SeriesNumber = number + 10 * (origin.scan - 1)
    dataset.FrameOfReferenceUID = origin.uid("frame of reference")
    dataset.PositionReferenceIndicator = ""
    own_up(dataset, origin)
    if origin.synthetic:
        dataset.PatientComments = dataset.StudyDescription = NOTICE


def own_up(dataset: "Dataset", origin: Origin) -> None:
    """Fill in what made the series, and say what it is in the comments of its images."""
    dataset.SyntheticData = "YES" if origin.synthetic else "NO"
    dataset.SoftwareVersions = __version__
    dataset.DerivationDescription = origin.description[:1024]
    dataset.ContributingEquipmentSequence = [_equipment(origin)]
    if origin.synthetic:
        dataset.Manufacturer = MAKER
        dataset.ManufacturerModelName = origin.equipment[:64]
        dataset.DeviceSerialNumber = origin.serial[:64] or "none"
        dataset.ImageComments = NOTICE
        dataset.SeriesDescription = f"{NOTICE} ({origin.equipment})"[:64]
    else:
        dataset.Manufacturer = origin.acquisition.manufacturer[:64]
        dataset.SeriesDescription = "converted by tomogen"


def file_meta(sop_class: str, instance: str) -> "Dataset":
    """File meta information, explicit little endian."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(f"2.25.{uuid.uuid5(_NAMESPACE, 'implementation').int}")
    meta.ImplementationVersionName = f"TOMOGEN {__version__}"[:16]
    return meta


def code(value: str, scheme: str, meaning: str) -> "Dataset":
    """An item of a code sequence."""
    from pydicom import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _equipment(origin: Origin) -> "Dataset":
    """CID 7005. No time of contribution: the same sample is the same file, whenever it is made."""
    from pydicom import Dataset

    item: Any = Dataset()
    item.Manufacturer = MAKER if origin.synthetic else "conversion (tomogen)"
    item.ManufacturerModelName = origin.equipment[:64]
    if origin.serial:
        item.DeviceSerialNumber = origin.serial[:64]
    item.SoftwareVersions = __version__
    item.ContributionDescription = NOTICE if origin.synthetic else "Converted from another format"
    item.PurposeOfReferenceCodeSequence = [
        code("109100", "DCM", "Synthesizing Equipment")
        if origin.synthetic
        else code("109103", "DCM", "Modifying Equipment")
    ]
    return item


def _digest(volume: Volume) -> str:
    found = hashlib.sha256(volume.affine.tobytes())
    for plane in volume.hu:
        found.update(plane.tobytes())
    return found.hexdigest()
