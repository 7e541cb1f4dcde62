"""A radiograph in a DICOM file, taken (CR, DX) or computed by us (Secondary Capture), as a Radiograph."""

import contextlib
import hashlib
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason
from tomogen.formats import ReadOptions
from tomogen.formats.dicom.capture import SECONDARY_CAPTURE
from tomogen.formats.dicom.chest import refuse_others
from tomogen.formats.dicom.frames import Frame
from tomogen.formats.dicom.hanging import hanging
from tomogen.formats.dicom.header import Header, quiet, read_header
from tomogen.formats.dicom.pixels import Damaged, PixelBytes, stored_values
from tomogen.formats.dicom.radiograph import COMMENT
from tomogen.formats.dicom.series import fault
from tomogen.formats.dicom.words import counted, spoken
from tomogen.radiography import geometry as stand
from tomogen.radiography import taken
from tomogen.radiography.radiograph import Radiograph

MAX_BYTES = 2**28
"""Of one radiograph as stored: detectors have at most some 30 million pixels of 16 bits."""

CHESTS = (100.0, 1000.0)
"""mm along the longer side of a picture that can hold a chest, a newborn's at least; another spacing is disbelieved."""

_ANY = ReadOptions(modality="any", max_volume=MAX_BYTES)
_FACTOR = re.compile(r"magnification (\d+(?:\.\d+)?)")
_VIEW = re.compile(r"^DRR, view ([\w.+-]+?): ")


def read(path: Path, view: str | None = None) -> Radiograph:
    """The radiograph in a DICOM file, hung as on a viewing box; `view` goes before what the file says.

    Stored values pass the modality's rescale or table, then the first table or window for viewing (where there is
    none, the range that is there) and lie on 0..1, bone bright: MONOCHROME1 is inverted. Values of a detector that
    are `FOR PROCESSING` are turned into attenuation by the relation that they state.

    Raises:
        InputMissing: the file cannot be opened.
        DataInvalid: no DICOM, damaged, or no radiograph of a chest by its tags; several frames; a constant picture.
        DependencyMissing: its compression needs a decoder that is not installed.
    """
    from pydicom import dcmread

    with quiet():
        header = read_header(path, MAX_BYTES)
        try:
            dataset: Any = dcmread(path, stop_before_pixels=True, force=True)
        except Exception as error:  # a header that the quick look passed; its text may hold header values
            raise _damaged(path, error) from None
        computed = header.sop_class == SECONDARY_CAPTURE and spoken(dataset, "ImageComments").endswith(COMMENT)
        try:
            if not computed:
                refuse_others(header, dataset, path)
            _single(header)
            hang = hanging(dataset, view or (_drawn(dataset, path) if computed else None), path)
            grey = _grey(_values(header), header, dataset)
            shown = taken.shown_of(spoken(dataset, "DerivationDescription")) if computed else None
            grey = grey if shown is None else taken.restored(grey, shown, path)
        except DataInvalid:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
            raise _damaged(path, error) from None
    magnification = _magnification(dataset) if computed else None
    return Radiograph(
        hang.hung(grey),
        hang.spaced(_spacing(dataset, header, magnification)),
        hang.view,
        _patient(header),
        computed or header.synthetic,
        magnification,
        shown=shown,
    )


def _single(header: Header) -> None:
    """Whether it is one grey picture that can be decoded.

    Raises:
        DataInvalid: it is not; the reason says why.
    """
    if header.frames > 1:
        raise DataInvalid(
            f"{header.frames:,} frames, one radiograph expected", reason=Reason.DIMENSIONS, at=header.path
        )
    # A secondary capture is no part of a scan, but may be a radiograph.
    if (error := fault(replace(header, sop_class=""), _ANY)) is not None:
        raise error


def _values(header: Header) -> NDArray[Any]:
    """Stored values `(rows, columns)`, unused bits cleared.

    Raises:
        DataInvalid: truncated, or a stream that cannot be decoded.
    """
    frame = Frame(header, 0, (), (), (), None, None, "", None)
    try:
        return stored_values(frame, np.empty((header.rows, header.columns), np.uint16), PixelBytes(MAX_BYTES))
    except Damaged as damaged:
        raise damaged.error from None


def _grey(stored: NDArray[Any], header: Header, dataset: Any) -> NDArray[np.float32]:
    """Stored values on 0..1, high where much is absorbed; padding is 0.

    Raises:
        DataInvalid: one value everywhere.
    """
    padded = None
    if header.padding:
        padded = (stored >= min(header.padding)) & (stored <= max(header.padding))
        padded = None if padded.all() else padded
    values = _modality(stored, dataset)
    real = values if padded is None else values[~padded]
    if real.min() == real.max():
        raise DataInvalid(
            "one value everywhere", reason=Reason.CONSTANT, at=header.path, fix="a picture that shows a chest"
        )
    if spoken(dataset, "PresentationIntentType").upper() == "FOR PROCESSING":
        unit = _of_detector(values, real, dataset)
    else:
        unit = _viewed(values, real, dataset)
        if header.photometric == "MONOCHROME1" or spoken(dataset, "PresentationLUTShape").upper() == "INVERSE":
            unit = 1 - unit
    found: NDArray[np.float32] = unit.astype(np.float32)
    if padded is not None:
        found[padded] = 0
    return found


def _modality(stored: NDArray[Any], dataset: Any) -> NDArray[np.float64]:
    """Stored values by the Modality LUT, or rescaled (PS3.3 C.11.1)."""
    table = _table(dataset, "ModalityLUTSequence")
    if table is not None:
        return table.of(stored)
    slope, intercept = (next(iter(counted(dataset, name)), None) for name in ("RescaleSlope", "RescaleIntercept"))
    rescaled: NDArray[np.float64] = stored * (slope or 1.0) + (intercept or 0.0)
    return rescaled


def _viewed(values: NDArray[np.float64], real: NDArray[np.float64], dataset: Any) -> NDArray[np.float64]:
    """Values by the first VOI LUT or window (PS3.3 C.11.2) on 0..1; what leaves nothing to see is passed over."""
    table = _table(dataset, "VOILUTSequence")
    if table is not None:
        seen = table.of(values)
        if np.ptp(table.entries) > 0 and np.ptp(seen) > 0:
            unit: NDArray[np.float64] = (seen - table.entries.min()) / float(np.ptp(table.entries))
            return unit
    ends = _window(dataset)
    if ends is not None and ends[0] < float(real.max()) and ends[1] > float(real.min()):
        if spoken(dataset, "VOILUTFunction").upper() == "SIGMOID":
            middle, width = sum(ends) / 2, ends[1] - ends[0]
            return 1 / (1 + np.exp(np.clip(-4 * (values - middle) / width, -50, 50)))
        return ((values - ends[0]) / (ends[1] - ends[0])).clip(0, 1)
    low, high = float(real.min()), float(real.max())
    return ((values - low) / (high - low)).clip(0, 1)


def _window(dataset: Any) -> tuple[float, float] | None:
    """Values that the first window shows black and white."""
    centre, width = (next(iter(counted(dataset, name)), None) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    exact = spoken(dataset, "VOILUTFunction").upper() in ("LINEAR_EXACT", "SIGMOID")
    # LINEAR: from c - 0.5 - (w - 1) / 2 to c - 0.5 + (w - 1) / 2
    middle, half = (centre, width / 2) if exact else (centre - 0.5, (width - 1) / 2)
    return (middle - half, middle + half) if half > 0 else None


def _of_detector(values: NDArray[np.float64], real: NDArray[np.float64], dataset: Any) -> NDArray[np.float64]:
    """Values of an unprocessed detector on 0..1 of attenuation, by the relation to intensity that they state."""
    sign = next(iter(counted(dataset, "PixelIntensityRelationshipSign")), 1.0)
    if spoken(dataset, "PixelIntensityRelationship").upper() == "LIN" and sign > 0:
        least = max(1.0, float(real.max()) * 1e-4)
        values, real = np.log(np.maximum(values, least)), np.log(np.maximum(real, least))
    low, high = float(real.min()), float(real.max())
    unit = ((values - low) / max(high - low, 1e-9)).clip(0, 1)
    return 1 - unit if sign > 0 else unit


class _Table:
    """A lookup table (PS3.3 C.11.1.1)."""

    def __init__(self, first: int, entries: NDArray[np.float64]) -> None:
        self.first, self.entries = first, entries

    def of(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Entries of values; those before the first get the first, those beyond the last get the last."""
        index = np.rint(values).astype(np.int64) - self.first
        found: NDArray[np.float64] = self.entries[index.clip(0, len(self.entries) - 1)]
        return found


def _table(dataset: Any, sequence: str) -> _Table | None:
    """The first table of a sequence; None where there is none, or it is damaged."""
    with contextlib.suppress(Exception):  # the parser decodes it only now, and raises anything
        items = dataset.get(sequence) or ()
        if not items:
            return None
        count, first, bits = (int(number) for number in items[0].LUTDescriptor)
        data = items[0].LUTData
        order = ">" if dataset.original_encoding[1] is False else "<"
        if isinstance(data, bytes):
            wide = len(data) >= 2 * (count or 2**16) or bits > 8
            entries = np.frombuffer(data, np.dtype(f"{order}u2") if wide else np.dtype("u1"))
        else:
            entries = np.asarray(data)
        # DICOM counts 65536 entries as 0, and the first value mapped may have been read without its sign.
        entries = entries[: count or 2**16].astype(np.float64)
        signed = spoken(dataset, "PixelRepresentation") == "1" and sequence == "ModalityLUTSequence"
        if len(entries):
            return _Table(first - 2**16 if signed and first >= 2**15 else first, entries)
    return None


def _magnification(dataset: Any) -> float | None:
    """That at the isocentre, as a picture states it that we computed."""
    match = _FACTOR.search(spoken(dataset, "PixelSpacingCalibrationDescription"))
    return None if match is None else float(match[1])


def _spacing(dataset: Any, header: Header, magnification: float | None) -> tuple[float, float] | None:
    """Distance of pixels (row, column) in mm at the detector.

    ImagerPixelSpacing, else PixelSpacing, which a calibration may have made smaller; ours is that at the isocentre.
    """
    found = counted(dataset, "ImagerPixelSpacing")
    factor = 1.0
    if len(found) != 2:
        found = counted(dataset, "PixelSpacing")
        if spoken(dataset, "PixelSpacingCalibrationType").upper() == "GEOMETRY":
            factor = next(iter(counted(dataset, "EstimatedRadiographicMagnificationFactor")), 1.0)
        factor = magnification or factor
    if len(found) != 2 or min(found) <= 0 or not math.isfinite(factor) or factor < 1:
        return None
    row, column = found[0] * factor, found[1] * factor
    longest = max(row * header.rows, column * header.columns)
    believed = magnification is not None or (CHESTS[0] <= longest <= CHESTS[1] and 0.5 < row / column < 2)
    return (row, column) if believed else None


def _drawn(dataset: Any, path: Path) -> str | None:
    """The view of a picture that we computed; None for one of a name of its own.

    Raises:
        DataInvalid: it was shot from no straight view.
    """
    match = _VIEW.search(spoken(dataset, "DerivationDescription"))
    shot = None if match is None else stand.of_name(match[1])
    if match is None or shot is None:
        return None
    found = stand.straight(shot)
    if found is None:
        raise stand.oblique(match[1], shot, path)
    return found


def _patient(header: Header) -> str | None:
    """A hash of PatientID."""
    identifier = header.patient.strip()
    return hashlib.sha256(b"patient " + identifier.encode()).hexdigest()[:16] if identifier else None


def _damaged(path: Path, error: Exception) -> DataInvalid:
    return DataInvalid(f"the DICOM header is damaged ({type(error).__name__})", reason=Reason.CORRUPT, at=path)
