"""Volumes as DICOM: a folder with one CT series, or, under a name that ends in `.dcm`, one Enhanced CT file.

Valid by dciodvfy and dcentvfy, and honest: what a model made says so in SyntheticData, in its equipment and in
every comment a viewer shows. A slice of a 2D model (depth 1) is a series of one CT image: its values are HU and its
pixels have a size, which a Secondary Capture could not say; pictures are Secondary Captures (`capture.py`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomogen import storage
from tomogen.formats import Provenance
from tomogen.formats.dicom.grid import Stack, stack_of
from tomogen.formats.dicom.origin import Origin, describe, file_meta, origin_of
from tomogen.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"

WINDOWS = ((40, 400, "SOFT_TISSUE"), (-600, 1500, "LUNG"))
"""Centre and width in HU of the windows that a viewer offers."""


def write(volume: Volume, path: Path, provenance: Provenance | None = None, *, rle: bool = False) -> None:
    """Write a CT series into the folder `path`, or one Enhanced CT file if the name ends in `.dcm`.

    int16 HU are kept; float32 HU are rounded to whole ones (where they exceed 16 bits, to the finest step that
    holds them). Every voxel keeps its place in the patient; slices may be written in reverse order. With `rle`
    pixels are compressed without loss (RLE). The same volume and provenance give the same bytes.

    Raises:
        DataInvalid: a grid without right angles, NaN.
        UsageFault: the folder is there and not empty.
    """
    stack = stack_of(volume, path)
    origin = origin_of(volume, provenance)
    with storage.whole(path) as partial:
        if path.suffix.lower() == ".dcm":
            from tomogen.formats.dicom import enhanced

            save(enhanced.dataset(stack, origin), partial, rle)
            return
        partial.mkdir()
        dataset = _series(stack, origin)
        digits = max(5, len(str(len(stack.stored))))
        for k in range(len(stack.stored)):
            _slice(dataset, stack, origin, k)
            save(dataset, partial / f"{k + 1:0{digits}d}.dcm", rle)


def decimal(value: float) -> Any:
    """A decimal string of at most 16 characters (DS)."""
    from pydicom.valuerep import DSfloat

    return DSfloat(value, auto_format=True)


def pixels(dataset: "Dataset", rows: int, columns: int) -> None:
    """What the stored integers of CT are: 16 bits, signed, grey."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"


def _series(stack: Stack, origin: Origin) -> "Dataset":
    """What all slices of the series share."""
    from pydicom import Dataset

    acquisition = origin.acquisition
    dataset = Dataset()
    describe(dataset, origin, series="series", number=1)
    dataset.SOPClassUID = CT_IMAGE
    dataset.Modality = "CT"
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    dataset.PatientPosition = "HFS"
    # Which part is not recorded in a Volume; a part that is no pair needs no Laterality.
    dataset.BodyPartExamined = "WHOLEBODY"
    dataset.AcquisitionNumber = ""
    # No tube and no dose where no X-ray was taken: KVP is there (type 2) and empty.
    dataset.KVP = "" if origin.synthetic or acquisition.kvp is None else decimal(acquisition.kvp)
    if acquisition.kernel and not origin.synthetic:
        dataset.ConvolutionKernel = acquisition.kernel[:16]
    step, row, column = stack.spacing
    dataset.PixelSpacing = [decimal(row), decimal(column)]
    dataset.ImageOrientationPatient = [decimal(cosine) for cosine in stack.orientation]
    dataset.SliceThickness = decimal(acquisition.slice_thickness or step)
    dataset.SpacingBetweenSlices = decimal(step)
    dataset.RescaleSlope, dataset.RescaleIntercept = decimal(stack.slope), decimal(stack.intercept)
    dataset.RescaleType = "HU"
    dataset.WindowCenter = [decimal(centre) for centre, _, _ in WINDOWS]
    dataset.WindowWidth = [decimal(width) for _, width, _ in WINDOWS]
    dataset.WindowCenterWidthExplanation = [name for _, _, name in WINDOWS]
    pixels(dataset, *stack.stored.shape[1:])
    return dataset


def _slice(dataset: "Dataset", stack: Stack, origin: Origin, k: int) -> None:
    """Turn the shared dataset into slice k."""
    from pydicom.uid import ExplicitVRLittleEndian

    dataset.SOPInstanceUID = origin.uid(f"slice {k + 1}")
    dataset.file_meta = file_meta(CT_IMAGE, dataset.SOPInstanceUID)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.InstanceNumber = k + 1
    dataset.ImagePositionPatient = [decimal(x) for x in stack.position(k)]
    dataset.PixelData = stack.stored[k].astype("<i2", copy=False).tobytes()
    dataset["PixelData"].VR = "OW"


def save(dataset: "Dataset", path: Path, rle: bool = False) -> None:
    """Write one file."""
    from pydicom.uid import RLELossless

    if rle:
        dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)
