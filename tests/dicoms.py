"""Series of CT slices, made from an array for the tests: as a scanner writes them, or as damaged as a test likes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
"""Rows: along a row, along a column, the normal."""


def chest(shape: tuple[int, int, int] = (5, 12, 10), seed: int = 0) -> NDArray[np.int16]:
    """Air about -1000, a body near 0 with bone: HU that pass for a scan, no two voxels expected alike."""
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1000, -900, shape)
    depth, height, width = shape
    hu[:, height // 4 : -(height // 4), width // 4 : -(width // 4)] = rng.integers(-100, 1200, (depth, height, width))[
        :, height // 4 : -(height // 4), width // 4 : -(width // 4)
    ]
    return hu.astype(np.int16)


def slices(
    hu: NDArray[np.int16],
    *,
    spacing: Sequence[float] = (2.5, 0.8, 0.7),
    axes: NDArray[np.float64] = AXIAL,
    origin: Sequence[float] = (-120.0, -110.0, 30.0),
    intercept: int = -1024,
    dtype: str = "<u2",
) -> list[Dataset]:
    """One dataset for each slice of `hu (depth, height, width)`; spacing (depth, height, width) in mm."""
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    found = []
    for k, values in enumerate(hu):
        d = _head(CTImageStorage, series, study, frame)
        d.InstanceNumber = k + 1
        d.ImagePositionPatient = [f"{v:.10g}"[:16] for v in np.asarray(origin) + k * spacing[0] * axes[2]]
        d.ImageOrientationPatient = [f"{v:.10f}"[:16] for v in (*axes[0], *axes[1])]
        d.PixelSpacing = [f"{spacing[1]:.10g}", f"{spacing[2]:.10g}"]
        d.RescaleSlope, d.RescaleIntercept, d.RescaleType = 1, intercept, "HU"
        store(d, (values.astype(np.int32) - intercept).astype(dtype))
        found.append(d)
    return found


def enhanced(hu: NDArray[np.int16], *, spacing: Sequence[float] = (2.5, 0.8, 0.7), intercept: int = -1024) -> Dataset:
    """One enhanced CT file with a frame for each slice."""
    d = _head(EnhancedCTImageStorage, generate_uid(), generate_uid(), generate_uid())
    store(d, (hu.astype(np.int32) - intercept).astype("<u2"))
    d.NumberOfFrames = len(hu)
    measures, plane, transform = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [spacing[1], spacing[2]], spacing[0]
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = 1, intercept, "HU"
    shared = Dataset()
    shared.PixelMeasuresSequence = Items([measures])
    shared.PlaneOrientationSequence = Items([plane])
    shared.PixelValueTransformationSequence = Items([transform])
    d.SharedFunctionalGroupsSequence = Items([shared])
    groups = []
    for k in range(len(hu)):
        place, content, group = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [-120, -110, 30 + k * spacing[0]]
        content.StackID, content.InStackPositionNumber = "1", k + 1
        group.PlanePositionSequence, group.FrameContentSequence = Items([place]), Items([content])
        groups.append(group)
    d.PerFrameFunctionalGroupsSequence = Items(groups)
    return d


def store(d: Dataset, stored: NDArray[np.generic]) -> None:
    """Set the pixels and what describes them."""
    bits = stored.dtype.itemsize * 8
    d.Rows, d.Columns = stored.shape[-2:]
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated = d.BitsStored = bits
    d.HighBit, d.PixelRepresentation = bits - 1, int(stored.dtype.kind == "i")
    data = np.ascontiguousarray(stored).tobytes()
    d.PixelData = data + b"\0" * (len(data) % 2)
    d["PixelData"].VR = "OB" if bits == 8 else "OW"


def stored_of(d: Dataset) -> NDArray[np.generic]:
    """The pixels that `store` set."""
    dtype = np.dtype(f"<{'i' if d.PixelRepresentation else 'u'}{d.BitsAllocated // 8}")
    return np.frombuffer(d.PixelData, dtype)[: d.Rows * d.Columns].reshape(d.Rows, d.Columns).copy()


def save(
    folder: Path, datasets: Sequence[Dataset], name: Callable[[int], str] = lambda k: f"{k:03d}.dcm", **encoding: bool
) -> Path:
    """Write datasets into a folder, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, d in enumerate(datasets):
        d.save_as(folder / name(k), enforce_file_format=True, **encoding)
    return folder


def _head(sop_class: str, series: str, study: str, frame: str) -> Dataset:
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = sop_class
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    d.SeriesInstanceUID, d.StudyInstanceUID, d.FrameOfReferenceUID = series, study, frame
    d.Modality, d.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    d.PatientID, d.PatientName = "P1", "Nobody"
    d.Manufacturer, d.ConvolutionKernel, d.KVP, d.SliceThickness = "SIEMENS", "B40f", "120", "3"
    return d
