"""Files to series, a series to a volume: what is left out, what is refused, and why."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tomogen import hounsfield
from tomogen.errors import DataInvalid, InputMissing, Reason, TomogenError
from tomogen.formats import ReadOptions
from tomogen.formats.dicom import codecs, pixels, repair
from tomogen.formats.dicom.frames import Frame, frames_of
from tomogen.formats.dicom.header import NATIVE, Header, acquisition, read_header
from tomogen.formats.dicom.stack import SAME, Grid, arrange
from tomogen.volume import Volume

DAMAGE = (Reason.TRUNCATED, Reason.CORRUPT, Reason.TOO_LARGE)
"""Reasons for which a slice is left out of a series that can do without it."""

MAX_TILT = 45.0
"""Degrees; gantries tilt by 30 at most. What lies further off is no stack."""

_MASKS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_DERIVED = {"1.2.840.10008.5.1.4.1.1.481.2": "a dose map", "1.2.840.10008.5.1.4.1.1.30": "a parametric map"}
_NOT_HU = frozenset(
    (
        "CBF", "CBV", "DOSE", "DOSE_INFO", "ENERGY_PROP_WT", "FUSION", "IODINE_MAP", "MAX_IP", "MINIP", "MIN_IP",
        "MIP", "MTT", "OTHER_MAP", "PERFUSION", "PROJECTION_IMAGE", "RCBF", "RCBV", "SCREEN_SAVE", "SPECTRAL_MAP",
        "SURFACE_RENDERED", "TMAX", "TTP", "VNC_MAP", "VOLUME_RENDERED", "Z_EFF",
    )
)  # fmt: skip
"""Words of Image Type for pixels that are no plain CT."""
_RADIOGRAPHS = ("CR", "DX", "RG")
_COLOURS = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_BELIEVED = 64 * 2**20
"""Bytes of pixels for which any compression is believed; beyond, at most `_RATIO` to one."""
_RATIO = 2000


@dataclass(frozen=True)
class Refused:
    """Files that are no part of a scan, and the error they would raise."""

    headers: tuple[Header, ...]
    error: DataInvalid


@dataclass(frozen=True)
class Series:
    """The slices of one series in one folder, and what was set aside."""

    headers: tuple[Header, ...]
    refused: tuple[Refused, ...] = ()

    @property
    def uid(self) -> str:
        """SeriesInstanceUID; empty where there is none."""
        return self._any.series

    @property
    def modality(self) -> str:
        """Modality of its files."""
        return self._any.modality

    @property
    def path(self) -> Path:
        """The file, or the folder of the files."""
        return place([header.path for header in self.headers or self.refused[0].headers])

    @property
    def _any(self) -> Header:
        return self.headers[0] if self.headers else self.refused[0].headers[0]


@dataclass(frozen=True)
class Plan:
    """A series that is a volume as far as its headers tell."""

    grid: Grid
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Loaded:
    """A volume, what was odd about it, the slices whose pixels could not be had, and those it is made of."""

    volume: Volume
    warnings: tuple[str, ...]
    damaged: tuple[pixels.Damaged, ...]
    slices: tuple[Frame | None, ...] = ()
    """By depth: the slice there, None where it was interpolated; none at all where the scan was resampled."""


def place(files: Sequence[Path]) -> Path:
    """The one file, or the folder that holds them all."""
    folders = {file.parent for file in files}
    if len(files) == 1:
        return files[0]
    return folders.pop() if len(folders) == 1 else Path(os.path.commonpath(folders))


def read_headers(files: Iterable[Path], max_volume: int) -> tuple[list[Header], list[tuple[Path, TomogenError]]]:
    """Headers of the files that have one, and the errors of those that do not."""
    headers: list[Header] = []
    failed: list[tuple[Path, TomogenError]] = []
    for file in files:
        try:
            headers.append(read_header(file, max_volume))
        except (DataInvalid, InputMissing) as error:
            failed.append((file, error))
    return headers, failed


def group(headers: Iterable[Header], options: ReadOptions) -> list[Series]:
    """Series in the order in which their first files come: the files of one UID in one folder.

    A series that a disc or an archive spread over several folders is one again, as long as no two of its slices
    lie in one place: copies, and scans of several times under one UID, stay apart.
    """
    found: dict[tuple[Path, str], list[Header]] = {}
    for header in headers:
        found.setdefault((header.path.parent, header.series), []).append(header)
    spread: dict[str, list[Series]] = {}
    for (_, uid), members in found.items():
        spread.setdefault(uid, []).append(_sorted_out(members, options))
    return [one for uid, parts in spread.items() for one in (_joined(parts) if uid else parts)]


def _joined(parts: list[Series]) -> list[Series]:
    """Parts of one series as one, where they fit together."""
    scans = [part for part in parts if part.headers]
    headers = [header for part in scans for header in part.headers]
    planes = {(header.rows, header.columns, header.orientation, header.spacing) for header in headers}
    places = {header.position for header in headers}
    if len(scans) < 2 or len(planes) > 1 or len(places) < len(headers) or () in places:
        return parts
    return [Series(tuple(headers), tuple(refused for part in parts for refused in part.refused))]


def chosen(series: Series, options: ReadOptions) -> bool:
    """Whether `--series` means this one: its UID, or the last part of it, as the table of series shows it."""
    wanted = options.series or ""
    return series.uid == wanted or series.uid.endswith(f".{wanted}")


def plan(series: Series, options: ReadOptions) -> Plan:
    """The grid of a series, judged by its headers alone.

    Raises:
        DataInvalid: it is no CT volume; the reason says why.
        DependencyMissing: its compression needs a decoder that is not installed.
    """
    warnings = _left_out(series, options)
    patients = {header.patient for header in series.headers} - {""}
    if len(patients) > 1:
        raise DataInvalid(f"slices of {len(patients)} patients in one series", reason=Reason.MIXED, at=series.path)
    if patients and any(not header.patient for header in series.headers):
        warnings.append("some slices name no patient")
    if not series.uid:
        warnings.append("no SeriesInstanceUID: all slices of the folder are taken together")
    frames = _rescaled([frame for header in series.headers for frame in frames_of(header)], options)
    try:
        planned = _arranged(frames, series, options, warnings)
    except DataInvalid as error:
        lost = [refused.error for refused in series.refused if refused.error.reason in DAMAGE]
        if not lost:
            raise
        note = f"{len(lost)} slices left out, the first {Path(lost[0].at or '').name}: {lost[0].what}"
        raise DataInvalid(f"{error.what} ({note})", reason=error.reason, at=error.at, fix=error.fix) from None
    for header in {header.syntax: header for header in series.headers}.values():
        codecs.require(header)
    return planned


def load(series: Series, options: ReadOptions) -> Loaded:
    """The volume of a series. Damaged slices are left out, unless `strict`.

    Raises:
        DataInvalid: it is no CT volume; the reason says why.
        DependencyMissing: its compression needs a decoder that is not installed.
    """
    planned = plan(series, options)
    hu, damaged = pixels.fill(planned.grid, options.max_volume)
    if damaged:
        if options.strict:
            raise damaged[0].error
        lost = {id(one.frame) for one in damaged}
        frames = [slot for slot in planned.grid.slots if slot is not None and id(slot) not in lost]
        if not frames:
            raise damaged[0].error
        note = f"{len(damaged)} slices left out: {damaged[0].error.what}"
        try:
            planned = _arranged(frames, series, options, [*planned.warnings, note])
        except DataInvalid as error:
            raise DataInvalid(f"{error.what} ({note})", reason=error.reason, at=error.at, fix=error.fix) from None
        hu, _ = pixels.fill(planned.grid, options.max_volume)
    grid = planned.grid
    for slot in range(len(grid.slots)):
        if grid.slots[slot] is None:
            hu[slot] = 0  # unset memory must not decide whether values are HU
    repair.fill_gaps(hu, grid)
    made = series.headers[0].synthetic
    hu = hounsfield.check(hu, at=series.path, assume_hu=options.assume_hu, synthetic=made)
    volume = Volume(hu, grid.affine, acquisition(series.headers[0].path))
    if grid.tilt:
        volume = repair.untilted(volume)
    return Loaded(volume, planned.warnings, tuple(damaged), () if grid.tilt else grid.slots)


def fault(header: Header, options: ReadOptions) -> DataInvalid | None:
    """Why one file cannot be part of a scan; None where it can."""
    for check in (_kind, _shape, _coding, _bytes):
        error = check(header, options)
        if error is not None:
            return error
    return None


def _sorted_out(members: Sequence[Header], options: ReadOptions) -> Series:
    usable: list[Header] = []
    aside: dict[tuple[Reason, Path | None], tuple[DataInvalid, list[Header]]] = {}
    for header in members:
        error = fault(header, options)
        if error is None:
            usable.append(header)
        else:
            alone = header.path if error.reason in DAMAGE or not header.series else None
            aside.setdefault((error.reason, alone), (error, []))[1].append(header)
    return Series(tuple(usable), tuple(Refused(tuple(headers), error) for error, headers in aside.values()))


def _left_out(series: Series, options: ReadOptions) -> list[str]:
    """Warnings for what lay among the slices.

    Raises:
        DataInvalid: a damaged slice, where that is to stop.
    """
    warnings = []
    for refused in series.refused:
        if options.strict and refused.error.reason in DAMAGE:
            raise refused.error
        if series.uid or refused.error.reason in DAMAGE:
            warnings.append(f"{len(refused.headers)} left out: {refused.error.what}")
    return warnings


def _kind(header: Header, options: ReadOptions) -> DataInvalid | None:
    """Whether it is a CT image at all."""
    at = header.path
    if header.sop_class in _MASKS or header.modality == "SEG":
        return DataInvalid("a segmentation, not a scan", reason=Reason.MASK, at=at)
    if not header.pixels:
        what = f"{header.modality} without pixels" if header.modality else "DICOM without pixels"
        return DataInvalid(what, reason=Reason.NOT_IMAGE, at=at)
    if header.sop_class == _CAPTURE or header.sop_class.startswith(_CAPTURE + "."):
        return DataInvalid("a secondary capture: a picture, not the scan", reason=Reason.DERIVED, at=at)
    if header.sop_class in _DERIVED or header.pixels != "pixels":
        what = _DERIVED.get(header.sop_class, "pixels in floating point: a map")
        return DataInvalid(f"{what}, not a scan", reason=Reason.DERIVED, at=at)
    if header.modality in _RADIOGRAPHS and options.modality == "CT":
        what = f"a radiograph ({header.modality}) where a CT belongs"
        return DataInvalid(what, reason=Reason.MODALITY, at=at, fix="tomogen reconstruct takes radiographs")
    if header.modality and options.modality != "any" and header.modality != options.modality:
        return DataInvalid(
            f"modality {header.modality}, {options.modality} expected",
            reason=Reason.MODALITY,
            at=at,
            fix="--modality any",
        )
    if "LOCALIZER" in header.image_type:
        return DataInvalid("a localizer, not a scan", reason=Reason.LOCALIZER, at=at)
    words = {word.replace(" ", "_") for word in header.image_type} & _NOT_HU
    if words:
        return DataInvalid(f"image type {min(words)}: not the scan itself", reason=Reason.DERIVED, at=at)
    return None


def _shape(header: Header, options: ReadOptions) -> DataInvalid | None:
    """Whether its pixels are described at all."""
    at = header.path
    if header.samples != 1 or header.photometric in _COLOURS:
        return DataInvalid("colour, one value a pixel expected", reason=Reason.DIMENSIONS, at=at)
    if header.rows < 1 or header.columns < 1:
        return DataInvalid("Rows or Columns are absent", reason=Reason.CORRUPT, at=at)
    if header.allocated not in (8, 16, 32):
        return DataInvalid(f"{header.allocated} bits allocated, 8, 16 or 32 expected", reason=Reason.CORRUPT, at=at)
    if not 0 < header.stored <= header.high + 1 <= header.allocated:
        return DataInvalid(
            f"{header.stored} bits stored up to bit {header.high} of {header.allocated}", reason=Reason.CORRUPT, at=at
        )
    if not header.modality and options.modality != "any":
        return DataInvalid(f"no modality, {options.modality} expected", reason=Reason.MODALITY, at=at)
    return None


def _coding(header: Header, options: ReadOptions) -> DataInvalid | None:
    """Whether its transfer syntax is known, and kept to."""
    native = header.syntax in NATIVE
    if not native and header.syntax not in codecs.BY_SYNTAX:
        return DataInvalid(
            "a transfer syntax that no decoder here reads", reason=Reason.CODEC, at=header.path,
            fix="re-encode it, with dcmdjpeg or gdcmconv --raw",
        )  # fmt: skip
    if native == header.encapsulated:
        what = "compressed pixels under a plain transfer syntax" if native else "plain pixels under a compressed one"
        return DataInvalid(what, reason=Reason.CORRUPT, at=header.path)
    return None


def _bytes(header: Header, options: ReadOptions) -> DataInvalid | None:
    """Whether the file can hold what it declares."""
    at, declared = header.path, header.declared
    many = f"{header.frames:,} x " if header.frames > 1 else ""
    if declared > options.max_volume:
        return DataInvalid(
            f"declares {many}{header.matrix} pixels, {declared / 1e9:.1f} GB; cap {options.max_volume / 1e9:.1f}",
            reason=Reason.TOO_LARGE,
            at=at,
            fix="--max-volume",
        )
    if header.encapsulated:
        if declared > max(_BELIEVED, _RATIO * header.available):
            return DataInvalid(
                f"declares {many}{header.matrix} pixels in {header.available:,} bytes", reason=Reason.TOO_LARGE, at=at
            )
        return None
    if declared > header.length:
        return DataInvalid(
            f"declares {many}{header.matrix} pixels, {declared:,} bytes; its pixel element holds {header.length:,}",
            reason=Reason.TOO_LARGE,
            at=at,
        )
    if header.length > header.available:
        return DataInvalid(f"{header.available:,} of {header.length:,} bytes of pixels", reason=Reason.TRUNCATED, at=at)
    return None


def _rescaled(frames: Sequence[Frame], options: ReadOptions) -> list[Frame]:
    """Frames that all have a rescale to HU.

    Raises:
        DataInvalid: one has none.
    """
    return [frame if _has_rescale(frame) else _assumed(frame, options) for frame in frames]


def _has_rescale(frame: Frame) -> bool:
    slope, intercept = frame.slope, frame.intercept
    return (
        slope is not None
        and intercept is not None
        and math.isfinite(slope)
        and math.isfinite(intercept)
        and slope != 0
        and not (frame.rescale_type not in ("", "HU") and (slope, intercept) == (1, 0))
        and frame.header.photometric != "MONOCHROME1"
    )


def _assumed(frame: Frame, options: ReadOptions) -> Frame:
    """The frame with its values taken as HU where the options allow it, or where no HU are expected."""
    at = frame.header.path
    numbers = [value for value in (frame.slope, frame.intercept) if value is not None]
    if not all(map(math.isfinite, numbers)) or frame.slope == 0:
        raise DataInvalid("the rescale slope or intercept is no usable number", reason=Reason.NO_HU, at=at)
    if not options.assume_hu and options.modality == "CT":
        if frame.header.photometric == "MONOCHROME1":
            what = "MONOCHROME1: whether the values are HU or inverted cannot be told"
        elif len(numbers) < 2:
            what = "no rescale slope and intercept: values are not HU"
        else:
            what = "a rescale to unspecified units, slope 1 and intercept 0: values are not HU"
        raise DataInvalid(what, reason=Reason.NO_HU, at=at, fix="--assume-hu")
    slope = 1.0 if frame.slope is None else frame.slope
    intercept = 0.0 if frame.intercept is None else frame.intercept
    return frame.with_rescale(slope, intercept)


def _arranged(frames: Sequence[Frame], series: Series, options: ReadOptions, warnings: Sequence[str]) -> Plan:
    """The plan for these frames.

    Raises:
        DataInvalid: they form no volume.
    """
    once, doubles = _once(frames, options)
    notes = [*warnings, *([f"{doubles} slices were there twice, equal: counted once"] if doubles else [])]
    try:
        grid = arrange(once, fill_gaps=options.fill_gaps)
    except DataInvalid as error:
        stacks = {(frame.header.path, frame.stack) for frame in once}
        if len({path for path, _ in stacks}) == 1 < len(stacks):
            raise DataInvalid(
                f"{len(stacks)} stacks in one file, one expected", reason=Reason.SEVERAL, at=series.path
            ) from None
        error.at = error.at or str(series.path)
        raise
    _fits(grid, series, options)
    missing = sum(slot is None for slot in grid.slots)
    if missing:
        notes.append(f"{missing} missing slices interpolated")
    if grid.tilt > MAX_TILT:
        raise DataInvalid(
            f"slices sheared by {grid.tilt:.0f} degrees, more than a gantry tilts", reason=Reason.BAD_GEOMETRY,
            at=series.path,
        )  # fmt: skip
    if grid.tilt and not options.untilt:
        raise DataInvalid(f"gantry tilt of {grid.tilt:.1f} degrees", reason=Reason.TILT, at=series.path, fix="--untilt")
    if grid.tilt:
        notes.append(f"gantry tilt of {grid.tilt:.1f} degrees resampled away")
    return Plan(grid, tuple(notes))


def _fits(grid: Grid, series: Series, options: ReadOptions) -> None:
    """Raise DataInvalid where the volume exceeds the cap, or pixels are left over (a wrong size, then)."""
    needed = pixels.needed(grid)
    if needed > options.max_volume:
        raise DataInvalid(
            f"declares {needed / 1e9:.1f} GB; the cap is {options.max_volume / 1e9:.1f}",
            reason=Reason.TOO_LARGE,
            at=series.path,
            fix="--max-volume",
        )
    for header in series.headers:
        row = header.columns * header.allocated // 8
        if not header.encapsulated and header.length - header.declared >= max(row, 2):
            raise DataInvalid(
                f"{header.length:,} bytes of pixels for {header.matrix}, {header.declared:,} expected",
                reason=Reason.CORRUPT,
                at=header.path,
            )


def _once(frames: Sequence[Frame], options: ReadOptions) -> tuple[list[Frame], int]:
    """Frames without those that repeat another, pixel for pixel, in the same place; and how many were dropped."""
    kept: dict[tuple[int, ...], Frame] = {}
    out: list[Frame] = []
    for frame in frames:
        if not frame.position or not all(map(math.isfinite, frame.position)):
            out.append(frame)
            continue
        place = tuple(int(np.rint(mm / SAME)) for mm in (*frame.position, *frame.orientation) if math.isfinite(mm))
        first = kept.setdefault(place, frame)
        if first is frame or not pixels.equal(first, frame, options.max_volume):
            out.append(frame)
    return out, len(frames) - len(out)
