"""Reading a DICOM series to HU: a 300-slice 512 x 512 one against SimpleITK and MONAI, and compressed ones.

The series is written here: an ellipse of noisy tissue in air, 12 bits in 16, the headers that a scanner writes.
All readers must agree in every voxel before anything is timed. Rounds are interleaved, medians given, the cache warm.

    python benchmarks/read_dicom.py            # writes benchmarks/read_dicom.json
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tomogen import formats

SPACING = (1.0, 0.703125, 0.703125)


def slices(depth: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    body = np.where((x / 0.9) ** 2 + (y / 0.7) ** 2 < 1, 40, -1000)
    lungs = np.where(((np.abs(x) - 0.4) / 0.3) ** 2 + (y / 0.5) ** 2 < 1, -860, body)
    noise = rng.normal(0, 25, (16, size, size))
    return (
        np.stack([np.clip(lungs + noise[k % 16] + k % 7, -1024, 3071) for k in range(depth)]).round().astype(np.int16)
    )


def write(folder: Path, hu: np.ndarray) -> None:
    folder.mkdir()
    series, study, frame = (pydicom.uid.generate_uid() for _ in range(3))
    for k, values in enumerate(hu):
        d = Dataset()
        d.file_meta = FileMetaDataset()
        d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        d.SeriesInstanceUID, d.StudyInstanceUID, d.FrameOfReferenceUID = series, study, frame
        d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        d.StudyDate = d.SeriesDate = d.AcquisitionDate = d.ContentDate = "20260101"
        d.StudyTime = d.SeriesTime = d.AcquisitionTime = d.ContentTime = "120000.000000"
        d.AccessionNumber, d.Modality, d.Manufacturer = "1", "CT", "SYNTHETIC"
        d.InstitutionName, d.StationName, d.StudyDescription = "none", "none", "thorax"
        d.SeriesDescription, d.ManufacturerModelName = "axial 1 mm", "none"
        d.PatientName, d.PatientID, d.PatientBirthDate, d.PatientSex, d.PatientAge = "A^B", "1", "", "O", "050Y"
        d.BodyPartExamined, d.ScanOptions, d.SliceThickness, d.KVP = "CHEST", "HELICAL MODE", "1.0", "120"
        d.DataCollectionDiameter, d.ProtocolName, d.ReconstructionDiameter = "500", "chest", "360"
        d.DistanceSourceToDetector, d.DistanceSourceToPatient, d.GantryDetectorTilt = "949.1", "541", "0"
        d.TableHeight, d.RotationDirection, d.ExposureTime, d.XRayTubeCurrent = "150", "CW", "500", "300"
        d.Exposure, d.FilterType, d.GeneratorPower, d.FocalSpots = "150", "BODY", "36000", "1.2"
        d.ConvolutionKernel, d.PatientPosition, d.StudyID = "STANDARD", "FFS", "1"
        d.SeriesNumber, d.AcquisitionNumber, d.InstanceNumber = 2, 1, k + 1
        d.ImagePositionPatient, d.ImageOrientationPatient = [-180, -180, k * SPACING[0] - 150], [1, 0, 0, 0, 1, 0]
        d.SliceLocation, d.PixelSpacing = k * SPACING[0] - 150, list(SPACING[1:])
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.Rows, d.Columns = values.shape
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
        d.WindowCenter, d.WindowWidth = "40", "400"
        d.RescaleIntercept, d.RescaleSlope, d.RescaleType = "-1024", "1", "HU"
        d.PixelData = (values + 1024).astype("<u2").tobytes()
        d.save_as(folder / f"{k * 7919 % len(hu):04d}.dcm", enforce_file_format=True)


def recode(source: Path, folder: Path, syntax: pydicom.uid.UID) -> None:
    folder.mkdir()
    for file in source.iterdir():
        if syntax == JPEGLosslessSV1:
            _by_gdcm(file, folder / file.name)
            continue
        d = pydicom.dcmread(file)
        if syntax == DeflatedExplicitVRLittleEndian:
            d.file_meta.TransferSyntaxUID = syntax
        else:
            d.compress(syntax, generate_instance_uid=False)
        d.save_as(folder / file.name)


def _by_gdcm(source: Path, target: Path) -> None:
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.Write()


def by_tomogen(folder: Path) -> np.ndarray:
    return formats.read(folder).hu


def by_simpleitk(folder: Path) -> np.ndarray:
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    return SimpleITK.GetArrayViewFromImage(image).copy()


def by_monai(folder: Path) -> np.ndarray:
    from monai.data import PydicomReader

    reader = PydicomReader()
    array, _ = reader.get_data(reader.read(str(folder)))
    return array.transpose(2, 1, 0)


def timed(function: Callable[[Path], np.ndarray], folder: Path) -> float:
    start = time.perf_counter()
    function(folder)
    return time.perf_counter() - start


def medians(readers: dict[str, Callable[[Path], np.ndarray]], folder: Path, rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, function in readers.items():
            taken[name].append(timed(function, folder))
    return {name: round(statistics.median(times), 4) for name, times in taken.items()}


def plain(root: Path, depth: int, rounds: int) -> dict[str, Any]:
    hu = slices(depth, 512)
    folder = root / "plain"
    write(folder, hu)
    for reader in (by_tomogen, by_simpleitk, by_monai):
        assert np.array_equal(reader(folder), hu), f"{reader.__name__} reads other values"
    readers = {"tomogen": by_tomogen, "SimpleITK": by_simpleitk, "MONAI PydicomReader": by_monai}
    seconds = medians(readers, folder, rounds)
    return {
        "series": f"{depth} x 512 x 512, explicit little endian, bit-equal",
        "seconds": seconds,
        "ratio_to_SimpleITK": round(seconds["SimpleITK"] / seconds["tomogen"], 2),
        "ratio_to_MONAI": round(seconds["MONAI PydicomReader"] / seconds["tomogen"], 1),
        "goals": {"ratio_to_SimpleITK": 3, "ratio_to_MONAI": 10},
    }


def compressed(root: Path, depth: int, rounds: int) -> dict[str, Any]:
    hu = slices(depth, 512)
    source = root / "source"
    write(source, hu)
    found: dict[str, Any] = {}
    for syntax in (RLELossless, JPEGLSLossless, JPEGLosslessSV1, JPEG2000Lossless, DeflatedExplicitVRLittleEndian):
        folder = root / syntax.replace(".", "_")
        recode(source, folder, syntax)
        assert np.array_equal(by_tomogen(folder), hu), syntax.name
        assert np.array_equal(by_simpleitk(folder), hu), syntax.name
        seconds = medians({"tomogen": by_tomogen, "SimpleITK": by_simpleitk}, folder, rounds)
        found[syntax.name] = {name: round(1000 * value / depth, 2) for name, value in seconds.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as root:
        result = {
            "uncompressed": plain(Path(root), given.depth, given.rounds),
            "compressed_ms_per_slice": compressed(Path(root), 40, 5),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        }
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
