"""`pictures.csv`: which slice of which scan each picture shows, in which window, and where that slice lies.

A line is a picture. Scans and patients go by pseudonyms, and nothing tells what their files were called. With it a
set of pictures is a set of scans again. Columns that we do not know are passed over.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TextIO

import numpy as np

from tomogen.errors import DataInvalid, InputMissing, Reason
from tomogen.formats import placed
from tomogen.formats.pictures.merge import BITS, RINGING, ROUNDING, Scale
from tomogen.intensity import Window
from tomogen.volume import Affine

NAME = "pictures.csv"

COLUMNS = (
    "picture", "patient", "scan", "slice", "slices", "blank", "x_mm", "y_mm", "z_mm", "window", "low_hu", "high_hu",
    "bits", "rows", "columns", "slice_mm", "row_mm", "column_mm", "affine", "synthetic",
)  # fmt: skip
"""picture: path as seen from the CSV; slice: from 1 (the lowest) to `slices`, of which `blank` were left out;
x, y, z_mm: centre of the first pixel, LPS; low_hu, high_hu: what grey 0 and the highest grey stand for; rows, columns:
size in pixels; slice, row, column_mm: spacing; affine: 12 numbers, three rows of the matrix that takes (slice - 1, row,
column, 1) to LPS mm. No path or name of what was converted is among them: those may name a patient."""

_NEEDED = tuple(name for name in COLUMNS if name not in ("patient", "slice_mm", "row_mm", "column_mm"))

NEAR = 0.01
"""mm by which a line's position may differ from what its affine gives."""

MEND = "restore the CSV, or make the pictures again"


@dataclass(frozen=True)
class View:
    """The pictures of a scan in one window, by slice from 0."""

    window: str
    scale: Scale
    files: dict[int, Path] = field(repr=False)


@dataclass(frozen=True)
class Depicted:
    """A scan as its lines describe it."""

    name: str
    patient: str
    shape: tuple[int, int, int]
    """(depth, height, width), slices that were left out among them."""
    affine: Affine
    blank: int
    """Slices without a picture."""
    synthetic: bool
    views: tuple[View, ...]

    @property
    def slices(self) -> list[int]:
        """Which have pictures."""
        return sorted(self.views[0].files)


@dataclass(frozen=True)
class Drawn:
    """A scan whose pictures were drawn: what the CSV says of all of them."""

    name: str
    patient: str
    shape: tuple[int, int, int]
    affine: Affine
    synthetic: bool
    slices: tuple[int, ...]
    """Which were drawn."""


def write(path: Path, scans: Iterable[tuple[Drawn, Sequence[tuple[str, Scale, str]]]]) -> None:
    """Write the CSV: each scan with its windows, as (name, scale, path of a picture with `{}` for its number)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(COLUMNS)
        for drawn, views in scans:
            lines.writerows(_rows(drawn, views))


def _rows(drawn: Drawn, views: Sequence[tuple[str, Scale, str]]) -> Iterator[list[object]]:
    depth, height, width = drawn.shape
    blank, synthetic = depth - len(drawn.slices), "yes" if drawn.synthetic else "no"
    affine = " ".join(repr(float(number)) for number in drawn.affine[:3].ravel())
    spacing = [f"{mm:.6g}" for mm in np.linalg.norm(drawn.affine[:3, :3], axis=0)]
    for k in drawn.slices:
        position = [f"{mm:.4f}" for mm in drawn.affine[:3, 3] + k * drawn.affine[:3, 0]]
        for window, scale, pattern in views:
            low, high = f"{scale.window.low:.12g}", f"{scale.window.high:.12g}"
            size = [BITS[scale.top], height, width]
            yield [
                pattern.format(numbered(k, depth)), drawn.patient, drawn.name, k + 1, depth, blank, *position, window,
                low, high, *size, *spacing, affine, synthetic,
            ]  # fmt: skip


def numbered(k: int, depth: int) -> str:
    """The number of slice `k` in a file's name: from 1, all of one length."""
    return f"{k + 1:0{max(4, len(str(depth)))}d}"


def read(path: Path) -> tuple[Depicted, ...]:
    """The scans of a CSV, in its order.

    Raises:
        InputMissing: it cannot be read.
        DataInvalid: columns are missing, a line is no line of ours, lines contradict each other or are missing.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            scans = _gathered(file, path)
    except OSError as error:
        raise InputMissing(f"cannot read: {(error.strerror or 'unknown fault').lower()}", at=path) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataInvalid(
            f"not a CSV in UTF-8 ({type(error).__name__})", reason=Reason.CORRUPT, at=path, fix=MEND
        ) from None
    if not scans:
        raise DataInvalid("the CSV names no picture", reason=Reason.EMPTY, at=path, fix=MEND)
    return tuple(_checked(name, lines, path) for name, lines in scans.items())


@dataclass(frozen=True)
class _Line:
    """A line of the CSV, its values read."""

    number: int
    file: Path
    slice: int
    window: str
    scale: Scale
    scan: tuple[str, int, int, int, int, str, bool]
    """What all lines of a scan share: patient, slices, blank, rows, columns, affine, synthetic."""
    position: tuple[float, ...]


def _gathered(file: TextIO, path: Path) -> dict[str, list[_Line]]:
    rows = csv.DictReader(file)
    missing = [name for name in _NEEDED if name not in (rows.fieldnames or ())]
    if missing:
        raise DataInvalid(f"the CSV lacks the column {missing[0]}", reason=Reason.CORRUPT, at=path, fix=MEND)
    scans: dict[str, list[_Line]] = defaultdict(list)
    for row in rows:
        try:
            scans[_name(row["scan"])].append(_line({name: row[name] for name in row if name}, rows.line_num, path))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            what = str(error) if isinstance(error, _Wrong) else "is no line of such a CSV"
            raise _edited(f"line {rows.line_num} {what}", path) from None
    return dict(scans)


class _Wrong(ValueError):
    """What a line says wrongly."""


def _name(text: str) -> str:
    """A scan's name, which becomes a file's.

    Raises:
        _Wrong: it is no name of a file.
    """
    if not text or text != Path(text).name or text.startswith(".") or not text.isprintable():
        raise _Wrong("names a scan as no file can be called")
    return text


def _line(row: dict[str, str], number: int, path: Path) -> _Line:
    def real(name: str) -> float:
        try:
            value = float(row[name])
        except (ValueError, TypeError):
            value = math.nan
        if not math.isfinite(value):
            raise _Wrong(f"gives {name} as {str(row[name])[:20]!r}, a number expected")
        return value

    def whole(name: str, least: int) -> int:
        value = real(name)
        if value != int(value) or value < least:
            raise _Wrong(f"gives {name} as {row[name][:20]!r}, a whole number from {least} expected")
        return int(value)

    place = PurePosixPath(row["picture"])
    if not row["picture"] or place.is_absolute() or ".." in place.parts or "\0" in row["picture"]:
        raise _Wrong("names a picture outside the folder")
    low, high, bits = real("low_hu"), real("high_hu"), whole("bits", 1)
    tops = {bits: top for top, bits in BITS.items()}
    if not low < high or bits not in tops:
        raise _Wrong(f"gives a window of {low:g} to {high:g} HU in {bits} bits")
    lossy = place.suffix.lower() in (".jpg", ".jpeg")
    slices = whole("slices", 1)
    index = whole("slice", 1) - 1
    if index >= slices:
        raise _Wrong(f"is slice {index + 1} of {slices}")
    shared = (
        row.get("patient", ""), slices, whole("blank", 0), whole("rows", 1), whole("columns", 1), row["affine"],
        row["synthetic"] == "yes",
    )  # fmt: skip
    return _Line(
        number, path.parent / place, index, row["window"],
        Scale(Window(low, high), tops[bits], RINGING if lossy else ROUNDING), shared,
        (real("x_mm"), real("y_mm"), real("z_mm")),
    )  # fmt: skip


def _checked(name: str, lines: Sequence[_Line], path: Path) -> Depicted:
    """The lines of one scan as one description, once they agree.

    Raises:
        DataInvalid: they do not.
    """
    first = lines[0]
    patient, slices, blank, rows, columns, numbers, synthetic = first.scan
    affine = _affine(numbers, first.number, path)
    views: dict[str, View] = {}
    for line in lines:
        if line.scan != first.scan:
            raise _edited(f"line {line.number} contradicts line {first.number}, of the same scan {name}", path)
        away = float(np.abs(affine[:3, 3] + line.slice * affine[:3, 0] - line.position).max())
        if away > NEAR:
            raise _edited(
                f"line {line.number} lies {away:.4g} mm from where its affine puts slice {line.slice + 1}", path
            )
        view = views.setdefault(line.window, View(line.window, line.scale, {}))
        if view.scale != line.scale:
            raise _edited(f"line {line.number} gives the window {line.window} other HU than lines before it", path)
        if line.slice in view.files:
            raise _edited(f"line {line.number} shows slice {line.slice + 1} of {name} in {line.window} again", path)
        view.files[line.slice] = line.file
    for view in views.values():
        if len(view.files) + blank != slices or view.files.keys() != views[first.window].files.keys():
            what = f"{name} in {view.window}: {len(view.files)} lines for {slices} slices, {blank} of them blank"
            raise DataInvalid(what, reason=Reason.GAP, at=path, fix=MEND)
    return Depicted(name, patient, (slices, rows, columns), affine, blank, synthetic, tuple(views.values()))


def _affine(numbers: str, line: int, path: Path) -> Affine:
    try:
        affine: Affine = np.vstack([np.array(numbers.split(), np.float64).reshape(3, 4), (0, 0, 0, 1)])
    except ValueError:
        raise _edited(f"line {line} has no affine of 12 numbers", path) from None
    return placed(affine, path)


def _edited(what: str, path: Path) -> DataInvalid:
    return DataInvalid(what, reason=Reason.CORRUPT, at=path, fix=MEND)
