"""A radiograph computed from CT as DICOM Secondary Capture. Never CR or DX: no X-ray was taken."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen import storage
from tomogen.formats.dicom.capture import SECONDARY_CAPTURE
from tomogen.formats.dicom.origin import NOTICE, describe, file_meta, origin_of
from tomogen.formats.dicom.writer import decimal
from tomogen.volume import Volume

COMMENT = "Digitally reconstructed radiograph: computed from CT, no X-ray was taken. Not for diagnosis"


def write(
    pixels: NDArray[np.uint8 | np.uint16],
    path: Path,
    volume: Volume,
    *,
    name: str,
    number: int,
    spacing: tuple[float, float],
    orientation: tuple[str, str],
    magnification: float,
    description: str,
    shown: str,
) -> None:
    """Write 8- or 16-bit grey values, high ones white, of the view `name`, the `number`th of the scan `volume`.

    `spacing` is in mm (row, column) at the isocentre, `magnification` that between it and the detector;
    `orientation` the patient directions, such as L and F, to which columns and rows grow. The file belongs to the
    scan's study; the same scan, view, description and look (`shown`, what the greys are) give the same identifiers.
    """
    from pydicom import Dataset

    origin = origin_of(volume, None)
    file: Any = Dataset()
    describe(file, origin, series=f"radiographs {description}", number=4)
    # A Secondary Capture has no frame of reference.
    del file.FrameOfReferenceUID, file.PositionReferenceIndicator
    file.SOPClassUID = SECONDARY_CAPTURE
    file.SOPInstanceUID = origin.uid(f"radiograph {number} {name} {description} {shown}")
    file.file_meta = file_meta(SECONDARY_CAPTURE, file.SOPInstanceUID)
    file.Modality, file.ConversionType, file.ImageType = "OT", "WSD", ["DERIVED", "SECONDARY"]
    file.SeriesDescription = f"{NOTICE} (DRR)" if origin.synthetic else "DRR, not for diagnosis (tomogen)"
    file.ImageComments = f"{NOTICE}. {COMMENT}" if origin.synthetic else COMMENT
    file.DerivationDescription = f"DRR, view {name}: {description}; {shown}. {origin.description}"[:1024]
    file.InstanceNumber = number
    file.PatientOrientation = list(orientation)
    file.BodyPartExamined = "WHOLEBODY"
    file.PixelSpacing = [decimal(mm) for mm in spacing]
    file.PixelSpacingCalibrationType = "GEOMETRY"
    file.PixelSpacingCalibrationDescription = f"at the isocentre, magnification {magnification:.4g}"
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns = pixels.shape
    bits = pixels.dtype.itemsize * 8
    file.BitsAllocated = file.BitsStored = bits
    file.HighBit, file.PixelRepresentation = bits - 1, 0
    file.WindowCenter, file.WindowWidth = decimal(2 ** (bits - 1)), decimal(2**bits)
    file.BurnedInAnnotation = "NO"
    file.LossyImageCompression = "00"
    body = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    file.PixelData = body + b"\0" * (len(body) % 2)
    file["PixelData"].VR = "OB" if bits == 8 else "OW"
    with storage.whole(path) as partial:
        file.save_as(partial, enforce_file_format=True)
