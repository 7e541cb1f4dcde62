"""A CT series made from another: the same patient, study, frame of reference and places, and new pixels.

Slice for slice: each file lies where its source lies, written with the source's own digits, and names it in
SourceImageSequence. Of the source's header only what `PATIENT`, `STUDY`, `SERIES` and `PLANE` list is copied; all else,
private elements, exposure and dose among it, is written anew or not at all. The patient's identity is kept on purpose:
in the archive the series has to lie beside its source.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tomogen import storage
from tomogen.errors import DataInvalid, Reason
from tomogen.formats import Provenance
from tomogen.formats.dicom import header as headers
from tomogen.formats.dicom.frames import Frame
from tomogen.formats.dicom.origin import Origin, code, file_meta, own_up
from tomogen.formats.dicom.words import counted, spoken
from tomogen.formats.dicom.writer import CT_IMAGE, WINDOWS, decimal, pixels, save
from tomogen.volume import Acquisition

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientBirthTime", "PatientSex",
    "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod",
)  # fmt: skip
STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName", "PatientAge", "PatientSize", "PatientWeight",
)  # fmt: skip
SERIES = (
    "FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "BodyPartExamined", "Laterality",
)  # fmt: skip
PLANE = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
}
"""Of each slice; with the functional group that holds it in a file of many frames."""

LATER = 9000
"""What is added to the number of the source's series."""

_LOSSY = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator", "PatientPosition", "SliceThickness",
    "KVP", "AcquisitionNumber",
)  # fmt: skip
"""Required and of no use without a value (type 2): there, though empty, where the source has none."""
_MOST = 2**31 - 1
"""An integer string goes no further."""
_LONGEST = 16
"""Characters of a decimal string."""


def write(hu: NDArray[np.int16], path: Path, source: Sequence[Frame | None], provenance: Provenance) -> None:
    """Write `hu (depth, height, width)`, whole HU, into the folder `path`; `source` is the slice at each depth.

    Where there is None (a slice that was interpolated) none is written: the series has the slices of its source. The
    same run and the same source give the same bytes; a source compressed with loss makes a series that says so.

    Raises:
        DataInvalid: the source's slices have no identifiers to refer to.
        UsageFault: the folder is there and not empty.
    """
    assert len(hu) == len(source), f"{len(hu)} slices from {len(source)}"
    slices = [(plane, frame) for plane, frame in zip(hu, source, strict=True) if frame is not None]
    with headers.quiet(), storage.whole(path) as partial:
        partial.mkdir()
        files = _Files()
        first = files.of(slices[0][1])
        origin = _origin(first, provenance)
        dataset = _series(first, origin)
        pixels(dataset, *hu.shape[1:])
        _losses(dataset, first)
        number = _numbering([files.of(frame) for _, frame in slices])
        digits = max(5, len(str(len(slices))))
        for k, (plane, frame) in enumerate(slices):
            _slice(dataset, files.of(frame), frame, origin, number(k))
            dataset.PixelData = np.ascontiguousarray(plane, dtype="<i2").tobytes()
            dataset["PixelData"].VR = "OW"
            save(dataset, partial / f"{k + 1:0{digits}d}.dcm")


def check(source: Sequence[Frame | None]) -> None:
    """Raise DataInvalid unless every slice has an identifier that a derived one can refer to."""
    with headers.quiet():
        files = _Files()
        for frame in source:
            if frame is not None:
                files.of(frame)


class _Files:
    """Headers of the source's files, each read once, with nothing of them that is not used."""

    def __init__(self) -> None:
        self.found: dict[Path, Dataset] = {}

    def of(self, frame: Frame) -> "Dataset":
        """The header of the file that a slice lies in.

        Raises:
            DataInvalid: it has no identifier.
        """
        from pydicom import dcmread

        path = frame.header.path
        if path not in self.found:
            wanted = [
                *PATIENT, *STUDY, *SERIES, *PLANE, *_LOSSY, "LossyImageCompression", "BurnedInAnnotation",
                "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber",
            ]  # fmt: skip
            parsed = frame.header.dataset
            if parsed is None:
                parsed = dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(wanted))
            if not spoken(parsed, "SOPInstanceUID"):
                raise DataInvalid(
                    "no SOPInstanceUID: a derived series has nothing to refer to", reason=Reason.CORRUPT, at=path,
                    fix="--format nii",
                )  # fmt: skip
            self.found[path] = parsed
        return self.found[path]


def _origin(first: "Dataset", provenance: Provenance) -> Origin:
    """Identifiers follow from the run, what it was given, and the identifiers of that."""
    told = f"model {provenance.model}, run {provenance.run}, made from {provenance.source or 'the source images'}"
    return Origin(
        synthetic=True,
        key=f"{provenance.run}/{provenance.source}/{spoken(first, 'SeriesInstanceUID')}",
        patient_id="",
        patient_name="",
        description=f"{told}. {provenance.description}" if provenance.description else told,
        equipment=f"tomogen/{provenance.model}",
        serial=provenance.run,
        acquisition=Acquisition(synthetic=True),
    )


def _series(first: "Dataset", origin: Origin) -> "Dataset":
    """What all slices of the derived series share."""
    dataset = _copied(first, (*PATIENT, *STUDY, *SERIES))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _EMPTY:
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    if "BodyPartExamined" not in dataset and "Laterality" not in dataset:
        dataset.Laterality = ""  # which part it is, and so whether it is one of a pair, is not said
    dataset.StudyInstanceUID = spoken(first, "StudyInstanceUID") or origin.uid("study")
    dataset.FrameOfReferenceUID = spoken(first, "FrameOfReferenceUID") or origin.uid("frame of reference")
    dataset.SeriesInstanceUID = origin.uid("derived series")
    dataset.SeriesNumber = LATER + _whole(first, "SeriesNumber", _MOST - LATER)
    own_up(dataset, origin)
    dataset.SOPClassUID = CT_IMAGE
    dataset.Modality = "CT"
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = decimal(1), decimal(0), "HU"
    dataset.WindowCenter = [decimal(centre) for centre, _, _ in WINDOWS]
    dataset.WindowWidth = [decimal(width) for _, width, _ in WINDOWS]
    dataset.WindowCenterWidthExplanation = [name for _, _, name in WINDOWS]
    return dataset


def _losses(dataset: "Dataset", first: "Dataset") -> None:
    """What was lost, or burnt in, before stays so in what is made from it (PS3.3 C.7.6.1.1.5)."""
    if spoken(first, "LossyImageCompression") == "01":
        dataset.LossyImageCompression = "01"
        dataset.update(_copied(first, _LOSSY))
    if spoken(first, "BurnedInAnnotation") == "YES":
        dataset.BurnedInAnnotation = "YES"


def _slice(dataset: "Dataset", source: "Dataset", frame: Frame, origin: Origin, number: int) -> None:
    """Turn the shared dataset into the slice that lies where `frame` does."""
    many = frame.header.dataset is not None
    of = spoken(source, "SOPInstanceUID")
    dataset.SOPInstanceUID = origin.uid(f"slice {number} of {of}")
    dataset.file_meta = file_meta(CT_IMAGE, dataset.SOPInstanceUID)
    dataset.InstanceNumber = number
    for keyword, group in PLANE.items():
        found = next((place for place in _places(source, group, frame, many) if spoken(place, keyword)), None)
        if found is not None:
            dataset.add(_element(found, keyword))
        elif keyword in _EMPTY:
            setattr(dataset, keyword, "")
        elif keyword in dataset:
            delattr(dataset, keyword)
    dataset.SourceImageSequence = [_reference(source, of, frame.number + 1 if many else None)]


def _places(source: "Dataset", group: str, frame: Frame, many: bool) -> "Iterator[Dataset]":
    """Where a value of a slice may stand: its own functional group, that of all frames, the file."""
    if many:
        yield from source.PerFrameFunctionalGroupsSequence[frame.number].get(group) or ()
        for shared in source.get("SharedFunctionalGroupsSequence") or ():
            yield from shared.get(group) or ()
    yield source


def _reference(source: "Dataset", instance: str, frame: int | None) -> "Dataset":
    """An item of SourceImageSequence; CID 7202."""
    from pydicom import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = spoken(source, "SOPClassUID") or CT_IMAGE
    item.ReferencedSOPInstanceUID = instance
    if frame is not None:
        item.ReferencedFrameNumber = frame
    item.PurposeOfReferenceCodeSequence = [code("121322", "DCM", "Source image for image processing operation")]
    item.SpatialLocationsPreserved = "YES"
    return item


def _numbering(files: "Sequence[Dataset]") -> Callable[[int], int]:
    """Number of the slice at each place: the source's own where each has one of its own, else counted."""
    numbers = [_whole(one, "InstanceNumber", _MOST) for one in files]
    own = min(numbers) > 0 and len(set(numbers)) == len(numbers)
    return lambda k: numbers[k] if own else k + 1


def _whole(source: "Dataset", keyword: str, most: int) -> int:
    """A number of a header from 0 to `most`; 0 where there is none."""
    values = counted(source, keyword)
    return int(values[0]) if values and 0 <= values[0] <= most else 0


def _copied(source: "Dataset", keywords: Sequence[str]) -> "Dataset":
    """The elements that a header has and that can be read."""
    from pydicom import Dataset

    dataset = Dataset()
    for keyword in keywords:
        if spoken(source, keyword):
            dataset.add(_element(source, keyword))
    return dataset


def _element(source: "Dataset", keyword: str) -> "DataElement":
    """An element as text of its own, whatever character set it came in; numbers with the digits that they had."""
    from pydicom import DataElement, config
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.multival import MultiValue

    tag = tag_for_keyword(keyword) or 0
    kind = dictionary_VR(tag)
    value = source[tag].value
    several = isinstance(value, MultiValue)
    values: list[Any] = [str(part).strip(" \0") for part in (value if several else [value])]
    if kind == "DS":
        values = [value if len(value) <= _LONGEST else decimal(float(value)) for value in values]
    return DataElement(tag, kind, values if several else values[0], validation_mode=config.IGNORE)
