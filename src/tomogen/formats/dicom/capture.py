"""Secondary Capture: a picture in a DICOM archive. Not CR or DX: no X-ray was taken."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tomogen import storage
from tomogen.formats import Provenance
from tomogen.formats.dicom.origin import describe, file_meta, origin_of
from tomogen.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def write(image: "Image", path: Path, volume: Volume, provenance: Provenance | None = None) -> None:
    """Write an 8-bit grey picture of a volume; it belongs to the volume's study."""
    from pydicom import Dataset

    origin = origin_of(volume, provenance)
    pixels = np.asarray(image.convert("L"))
    file = Dataset()
    describe(file, origin, series="pictures", number=3)
    # A picture has no frame of reference, and what is burnt into it is a window's name.
    del file.FrameOfReferenceUID, file.PositionReferenceIndicator
    file.SOPClassUID, file.SOPInstanceUID = SECONDARY_CAPTURE, origin.uid(f"picture {hash_of(pixels)}")
    file.file_meta = file_meta(SECONDARY_CAPTURE, file.SOPInstanceUID)
    file.Modality = "OT"
    file.ConversionType = "WSD"
    file.ImageType = ["DERIVED", "SECONDARY"]
    file.InstanceNumber = 1
    file.PatientOrientation = ""
    file.BodyPartExamined = "WHOLEBODY"
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns = pixels.shape
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    file.BurnedInAnnotation = "NO"
    file.LossyImageCompression = "00"
    body = pixels.tobytes()
    file.PixelData = body + b"\0" * (len(body) % 2)
    file["PixelData"].VR = "OB"
    with storage.whole(path) as partial:
        file.save_as(partial, enforce_file_format=True)


def hash_of(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> str:
    """What tells one picture of a volume from another."""
    import hashlib

    return hashlib.sha256(pixels.tobytes()).hexdigest()
