"""What a computed radiograph tells of itself wherever it is moved: what its greys are, and the room it was shot in.

In words and JSON, in the text of a PNG and beside pictures in `geometry.json`; DICOM holds the words alone.
"""

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason
from tomogen.radiography import geometry as stand
from tomogen.radiography.geometry import Geometry
from tomogen.radiography.look import Form, integrals_of, inverted

GEOMETRY = "geometry.json"
"""Lies beside the pictures of one shooting."""

COARSE = 0.02
"""Part of the range of line integrals that one grey level may span at the white end, where they are taken back."""

_SHOWN = re.compile(r"; (log|intensity) (-?[\d.e+-]+) to (-?[\d.e+-]+), (8|16) bits(, inverted)?")
_ROOM = re.compile(r"; (\{.*\})$", re.DOTALL)


@dataclass(frozen=True)
class Shown:
    """What the greys of a picture are."""

    form: Form
    black: float
    """Value of the form that is black (white, where inverted)."""
    white: float
    bits: int
    inverted: bool

    def __str__(self) -> str:
        turned = ", inverted" if self.inverted else ""
        return f"{self.form} {self.black:.7g} to {self.white:.7g}, {self.bits} bits{turned}"


def note(shown: Shown, room: Geometry) -> str:
    """What stands at the end of a picture's text; `room` has one view, and its isocentre is where that lay."""
    return f"; {shown}; {json.dumps(stand.record(room))}"


def shown_of(text: str) -> Shown | None:
    """What a text says of the greys; None where it says nothing that can be."""
    match = _SHOWN.search(text)
    if match is None:
        return None
    try:
        return _shown(match[1], float(match[2]), float(match[3]), int(match[4]), match[5] is not None)
    except ValueError:
        return None


def room_of(text: str, size: tuple[int, ...]) -> Geometry | None:
    """The room with the one view of a picture of `size` pixels, by its text; None where that has none of that size."""
    match = _ROOM.search(text)
    if match is None:
        return None
    try:
        found = stand.understood(json.loads(match[1]), Path())
    except (ValueError, RecursionError):
        return None
    return found if len(found.views) == 1 and found.size == tuple(size) else None


def beside(path: Path, size: tuple[int, ...]) -> tuple[Geometry, Shown | None] | None:
    """The room and the greys of a picture by the `geometry.json` in its folder; None where that is not of this one.

    Raises:
        InputMissing, DataInvalid: the file cannot be read, or is damaged.
    """
    file = path.with_name(GEOMETRY)
    if not file.is_file():
        return None
    room = stand.load(file)
    views = [view for view in room.views if view.name == path.stem]
    if not views or room.size != tuple(size):
        return None
    taken = json.loads(file.read_bytes()).get("taken")
    taken = taken if isinstance(taken, dict) else {}
    where, ends = taken.get("isocentre_mm"), taken.get("black_and_white")
    if isinstance(where, list) and len(where) == 3 and all(_finite(mm) for mm in where):
        room = replace(room, isocentre=(float(where[0]), float(where[1]), float(where[2])))
    shown = None
    try:
        black, white = ends[path.stem]  # type: ignore[index]
        shown = _shown(taken["form"], float(black), float(white), int(taken["bits"]), taken["inverted"] is True)
    except (TypeError, KeyError, ValueError):
        pass
    return replace(room, views=tuple(views)), shown


def restored(unit: NDArray[np.float32], shown: Shown, at: Path) -> NDArray[np.float32]:
    """Greys on 0..1 as the line integrals that they were made of, from 0; bone is bright.

    Raises:
        DataInvalid: intensities whose greys are too coarse to be turned back.
    """
    unit = inverted(unit) if shown.inverted else unit
    if shown.form == "log":
        return unit
    span = shown.white - shown.black
    values = (shown.black + unit.astype(np.float64) * span).clip(0, 1)
    brightest = float(values.max())
    step = span / (2**shown.bits - 1)
    # One level at the white end spans step / (1 - v) of the line integral, -log(1 - v).
    if brightest >= 1 or step > COARSE * (1 - brightest) * -math.log(1 - brightest):
        raise DataInvalid(
            f"a picture of intensities in {shown.bits} bits, too coarse to be line integrals again",
            reason=Reason.DERIVED,
            at=at,
            fix="tomogen xray with --form log, or with --form intensity --bits 16",
        )
    found = integrals_of(1 - values)
    least, most = (-math.log(1 - float(v)) for v in (values.min(), values.max()))
    taken_back: NDArray[np.float32] = ((found - least) / max(most - least, 1e-9)).astype(np.float32)
    return taken_back


def _shown(form: Any, black: float, white: float, bits: int, turned: bool) -> Shown:
    if form not in ("log", "intensity") or bits not in (8, 16) or not -math.inf < black < white < math.inf:
        raise ValueError("no look that a picture can have")
    return Shown(form, black, white, bits, turned)


def _finite(mm: Any) -> bool:
    return type(mm) in (int, float) and math.isfinite(mm)
