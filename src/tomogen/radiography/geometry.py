"""Where source and detector stand around the patient, in mm of DICOM's patient system (LPS); saved as JSON.

Angles turn the source about the patient's long axis: 0 is PA (source at the back, detector at the chest), 90 a left
lateral (source at the right, left side against the detector), 180 from the front, 270 a right lateral; tilt raises the
source towards the head.

Pictures hang as on a viewing box. Row 0 is at the head. Frontal views, PA and AP alike, have the patient's right on
the left of the picture, so the heart's apex points to the right; a left lateral has the front of the chest on the
left, a right lateral on the right. All views but AP are thereby seen from the detector's side, and so is every
`--angle`: the named view `ap` is angle 180 mirrored, as radiologists hang it.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from tomogen import storage
from tomogen.errors import DataInvalid, Reason, UsageFault

Point = tuple[float, float, float]
Beam = Literal["cone", "parallel"]

SCHEMA = 1
KIND = "radiograph geometry"

LARGEST = 8192
"""Pixels along a side of a detector."""

NEAR = 15.0
"""Degrees from a straight view within which another counts as that one."""

_CLOSE = 1e-6
"""How far the two axes of a detector may be from unit length and a right angle."""


@dataclass(frozen=True)
class View:
    """One shot. Points in mm LPS, counted from the isocentre; `right` and `down` are unit vectors of the picture."""

    name: str
    source: Point
    """Focal spot; of a parallel beam only the direction from here to the detector's centre matters."""
    detector: Point
    """Centre of the detector."""
    right: Point
    """Where the column index grows to."""
    down: Point
    """Where the row index grows to."""

    def __post_init__(self) -> None:
        if not self.name or not all(letter.isalnum() or letter in "+-._" for letter in self.name):
            raise ValueError(f"a view's name is of letters, digits and + - . _, not {self.name!r}")
        for field in ("source", "detector", "right", "down"):
            found = getattr(self, field)
            if len(found) != 3 or not all(math.isfinite(x) for x in found):
                raise ValueError(f"{field} of view {self.name!r} has three finite numbers, not {found}")
        across, down = np.array(self.right), np.array(self.down)
        if max(abs(across @ across - 1), abs(down @ down - 1), abs(across @ down)) > _CLOSE:
            raise ValueError(f"right and down of view {self.name!r} are unit vectors at a right angle")
        central = np.array(self.detector) - np.array(self.source)
        length = float(np.linalg.norm(central))
        if length == 0 or abs(float(central @ np.cross(across, down))) < 0.1 * length:
            raise ValueError(f"the source of view {self.name!r} lies in the plane of its detector")


@dataclass(frozen=True)
class Geometry:
    """A beam, a detector and the views that are shot with them."""

    views: tuple[View, ...]
    size: tuple[int, int]
    """Pixels (rows, columns)."""
    pixel: tuple[float, float]
    """Pitch in mm (row, column), on the detector."""
    beam: Beam = "cone"
    isocentre: Point | None = None
    """LPS mm. None: the middle of whatever scan is shot."""

    def __post_init__(self) -> None:
        if not self.views:
            raise ValueError("a geometry has at least one view")
        names = [view.name for view in self.views]
        if len(set(names)) < len(names):
            raise ValueError(f"views have names of their own, not {', '.join(names)}")
        if self.beam not in ("cone", "parallel"):
            raise ValueError(f"a beam is cone or parallel, not {self.beam!r}")
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"a detector has rows and columns, at least 1, not {self.size}")
        if len(self.pixel) != 2 or not all(math.isfinite(mm) and mm > 0 for mm in self.pixel):
            raise ValueError(f"pixels have a height and a width above 0 mm, not {self.pixel}")
        if self.isocentre is not None and (len(self.isocentre) != 3 or not all(map(math.isfinite, self.isocentre))):
            raise ValueError(f"an isocentre is three finite numbers, not {self.isocentre}")

    def magnification(self, view: View) -> float:
        """How much larger than life the isocentre's plane is shown: SID / SAD; 1 in a parallel beam."""
        if self.beam == "parallel":
            return 1.0
        normal = np.cross(view.right, view.down)
        reach = float(normal @ np.subtract(view.detector, view.source))
        return abs(reach / float(normal @ np.array(view.source)))

    def field_of_view(self, view: View) -> tuple[float, float]:
        """Height and width in mm of the isocentre's plane that the detector sees; nearer the source it is less."""
        factor = self.magnification(view)
        (rows, columns), (height, width) = self.size, self.pixel
        return rows * height / factor, columns * width / factor

    def pixels(self, view: View) -> NDArray[np.float64]:
        """Centres of all pixels in mm from the isocentre, `(rows, columns, 3)`."""
        rows, columns = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(self.size, self.pixel, strict=True))
        plane: NDArray[np.float64] = (
            np.array(view.detector)
            + rows[:, None, None] * np.array(view.down)
            + columns[None, :, None] * np.array(view.right)
        )
        return plane

    def landing(self, view: View, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Where points `(..., 3)`, in mm from the isocentre, throw their shadow.

        Returns fractional (row, column) `(..., 2)`, and whether a point lies in the beam, between source and detector
        and not beside it.
        """
        across, down = np.array(view.right), np.array(view.down)
        normal = np.cross(across, down)
        source, detector = np.array(view.source), np.array(view.detector)
        central = detector - source
        if self.beam == "cone":
            depth = (points - source) @ normal / (central @ normal)
            with np.errstate(divide="ignore", invalid="ignore"):
                shadow = source + (points - source) / depth[..., None] - detector
            between = (depth > 0) & (depth <= 1)
        else:
            shadow = points - detector
            shadow = shadow - (shadow @ normal / (central @ normal))[..., None] * central
            between = np.ones(points.shape[:-1], dtype=bool)
        where = np.stack([shadow @ down / self.pixel[0], shadow @ across / self.pixel[1]], axis=-1)
        size = np.array(self.size)
        place = where + (size - 1) / 2
        with np.errstate(invalid="ignore"):
            inside = between & (place >= -0.5).all(axis=-1) & (place <= size - 0.5).all(axis=-1)
        return place, inside

    def resized(self, pixels: int) -> "Geometry":
        """The same detector in mm with so many pixels across; pixels keep their shape as nearly as whole rows let."""
        if pixels < 1:
            raise UsageFault(f"--size is at least 1 pixel, not {pixels}")
        (rows, columns), (height, width) = self.size, self.pixel
        down = max(1, round(rows * pixels / columns))
        return replace(self, size=(down, pixels), pixel=(height * rows / down, width * columns / pixels))

    def seeing(self, height: float, width: float) -> "Geometry":
        """A detector of as many pixels, made larger or smaller so that it sees so many mm of the isocentre's plane."""
        factor = self.magnification(self.views[0])
        return replace(self, pixel=(height * factor / self.size[0], width * factor / self.size[1]))


def shot(
    name: str,
    *,
    angle: float,
    tilt: float = 0.0,
    sad: float,
    sid: float,
    hung: Literal["detector", "source"] = "detector",
) -> View:
    """A view from `angle` and `tilt` in degrees, `sad` and `sid` in mm from the source to isocentre and detector.

    `hung` tells from whose side the picture is seen.
    """
    if not (abs(angle) <= 360 and abs(tilt) < 90):
        raise UsageFault(
            f"an angle is a number of degrees from -360 to 360, a tilt one between -90 and 90, not {angle:g}, {tilt:g}"
        )
    a, t = math.radians(angle), math.radians(tilt)
    # Multiples of 90 degrees are exact: their views then lie along the patient's axes and are the quicker ones.
    sin, cos, up, level = (_clean(x) for x in (math.sin(a), math.cos(a), math.sin(t), math.cos(t)))
    towards = np.array([-sin * level, cos * level, up])
    right = np.array([cos, sin, 0.0])
    down = -np.cross(right, towards)
    if hung == "source":
        right = -right
    return View(name, _point(towards * sad), _point(towards * (sad - sid)), _point(right), _point(down))


ANGLES: dict[str, tuple[float, Literal["detector", "source"]]] = {
    "pa": (0.0, "detector"),
    "ap": (180.0, "source"),
    "lateral": (90.0, "detector"),
    "left": (90.0, "detector"),
    "right": (270.0, "detector"),
}
"""Views by name: the angle, and from whose side they are seen. `lateral` is a left lateral."""


@dataclass(frozen=True)
class Stand:
    """Distances and detector of a room, without views."""

    beam: Beam
    sad: float
    """mm from the source to the isocentre."""
    sid: float
    """mm from the source to the detector."""
    detector: float
    """mm along each side."""
    pixels: int
    """Along each side."""
    says: str


PRESETS = {
    "chest": Stand("cone", 1500.0, 1800.0, 600.0, 512, "holds a whole chest: 500 mm at the isocentre"),
    "x2ct": Stand("cone", 541.0, 949.0, 500.0, 320, "X2CT-GAN's, which sees only 285 mm at the isocentre"),
    "parallel": Stand("parallel", 1500.0, 1800.0, 512.0, 512, "parallel rays, 512 mm, no magnification"),
}
"""Geometries by name.

`chest`: the film distance of chest radiography, 1.8 m; magnification 1.2; at the isocentre it sees the 500 mm that
scanners reconstruct at most. 300 mm from isocentre to detector keep
the detector out of wide patients seen from the side.
`x2ct`: as published with X2CT-GAN (Ying et al., CVPR 2019). Its 500 mm detector sees 500 x 541 / 949 = 285 mm at the
isocentre and less nearer to the source: most adult chests are wider, and their sides are cut.
"""


def preset(name: str, views: Sequence[View | str | float] = ("pa", "lateral"), tilt: float = 0.0) -> Geometry:
    """A geometry of `PRESETS` with these views: names of `ANGLES`, or angles in degrees.

    Raises:
        UsageFault: no such preset or view.
    """
    if name not in PRESETS:
        raise UsageFault(f"no such geometry {name!r}; geometries: {', '.join(PRESETS)}, or a .json file")
    stand = PRESETS[name]
    made = tuple(view if isinstance(view, View) else _named(view, stand, tilt) for view in views)
    mm = stand.detector / stand.pixels
    try:
        return Geometry(made, (stand.pixels, stand.pixels), (mm, mm), stand.beam)
    except ValueError as error:
        raise UsageFault(str(error)) from None


def save(geometry: Geometry, path: Path, taken: dict[str, Any] | None = None) -> None:
    """Write a geometry as JSON; `taken` is a record of what was shot with it, which reading passes over."""
    with storage.whole(path) as partial:
        partial.write_text(json.dumps(record(geometry) | ({"taken": taken} if taken else {}), indent=1) + "\n")


def record(geometry: Geometry) -> dict[str, Any]:
    """A geometry as plain values for JSON."""
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "beam": geometry.beam,
        "isocentre_mm": None if geometry.isocentre is None else list(geometry.isocentre),
        "detector_px": list(geometry.size),
        "pixel_mm": list(geometry.pixel),
        "views": [
            {
                "name": view.name,
                "source_mm": list(view.source),
                "detector_mm": list(view.detector),
                "right": list(view.right),
                "down": list(view.down),
            }
            for view in geometry.views
        ],
    }


def digest(geometry: Geometry) -> str:
    """Eight letters and digits that tell one geometry from another."""
    return hashlib.sha256(json.dumps(record(geometry)).encode()).hexdigest()[:8]


def load(path: Path) -> Geometry:
    """The geometry in a JSON file.

    Raises:
        InputMissing: it cannot be read.
        DataInvalid: no JSON, no geometry, another schema, keys or numbers that make none.
    """
    with storage.opened(path) as file:
        data = file.read()
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise _refused(f"damaged JSON{where}", path) from None
    return understood(found, path)


def understood(found: Any, path: Path) -> Geometry:
    """The geometry in the values of a JSON file.

    Raises:
        DataInvalid: they make none; said of `path`.
    """
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise _refused(f'JSON, but no geometry ("kind": "{KIND}" expected)', path)
    if found.get("schema") != SCHEMA:
        raise _refused(f"schema {found.get('schema')!r}, this version reads {SCHEMA}", path)
    found = {key: value for key, value in found.items() if key != "taken"}
    _keys(found, {"schema", "kind", "beam", "isocentre_mm", "detector_px", "pixel_mm", "views"}, "geometry", path)
    listed = found["views"]
    if not isinstance(listed, list) or not all(isinstance(view, dict) for view in listed):
        raise _refused("views are a list of objects", path)
    for view in listed:
        _keys(view, {"name", "source_mm", "detector_mm", "right", "down"}, f"view {view.get('name')!r}", path)
    size = _numbers(found["detector_px"], 2, "detector_px", path)
    if any(n != int(n) for n in size):
        raise _refused("detector_px are whole numbers", path)
    if max(size) > LARGEST:
        raise DataInvalid(
            f"a detector of {size[0]:.0f} x {size[1]:.0f} pixels, {LARGEST} along a side at most",
            reason=Reason.TOO_LARGE,
            at=path,
            fix="a smaller detector_px with a larger pixel_mm",
        )
    isocentre = found["isocentre_mm"]
    try:
        return Geometry(
            views=tuple(
                View(
                    str(view["name"]),
                    *(
                        cast(Point, _numbers(view[key], 3, key, path))
                        for key in ("source_mm", "detector_mm", "right", "down")
                    ),
                )
                for view in listed
            ),
            size=(int(size[0]), int(size[1])),
            pixel=cast(tuple[float, float], _numbers(found["pixel_mm"], 2, "pixel_mm", path)),
            beam=found["beam"],
            isocentre=None if isocentre is None else cast(Point, _numbers(isocentre, 3, "isocentre_mm", path)),
        )
    except ValueError as error:
        raise error if isinstance(error, DataInvalid) else _refused(str(error), path) from None


def angles(view: View) -> tuple[float, float]:
    """Angle, 0 to 360, and tilt of a view, in degrees."""
    x, y, z = _towards(view)
    return math.degrees(math.atan2(-x, y)) % 360, math.degrees(math.asin(max(-1.0, min(1.0, z))))


def apart(one: View, other: View) -> float:
    """Degrees, 0 to 90, between the central rays of two views; from which side they are shot does not count."""
    return math.degrees(math.acos(min(1.0, abs(float(_towards(one) @ _towards(other))))))


def straight(view: View) -> str | None:
    """Which of pa, ap, lateral and right a view is, within `NEAR` degrees, hung as that is; None if none."""
    least = math.cos(math.radians(NEAR))
    for name in ("pa", "ap", "lateral", "right"):
        known = _named(name, PRESETS["parallel"], 0.0)
        if _towards(view) @ _towards(known) >= least and float(np.dot(view.right, known.right)) >= least:
            return name
    return None


def of_name(name: str) -> View | None:
    """The direction of a view by the name that `preset` gave it, its distances unknown; None for another name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        return _named(match[1] or float(match[2]), PRESETS["parallel"], float(match[3] or 0))
    except (ValueError, UsageFault):
        return None


_NUMBER = r"[+-](?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_NAME = re.compile(rf"(?:(pa|ap|lateral|left|right)|angle({_NUMBER}))(?:tilt({_NUMBER}))?")


def oblique(name: str, view: View, path: Path) -> DataInvalid:
    """What refuses a picture of a view that is none of the straight ones."""
    angle, tilt = angles(view)
    raised = f", tilt {tilt:.0f}" if abs(tilt) > 1 else ""
    return DataInvalid(
        f"view {name} was shot at {angle:.0f} degrees{raised}; PA (0), AP, a left (90) or right lateral (270) expected",
        reason=Reason.BAD_GEOMETRY,
        at=path,
        fix="tomogen xray --views pa,lateral",
    )


def _towards(view: View) -> NDArray[np.float64]:
    """The unit vector from the detector to the source."""
    central = np.subtract(view.source, view.detector)
    found: NDArray[np.float64] = central / np.linalg.norm(central)
    return found


def _named(view: str | float, stand: Stand, tilt: float) -> View:
    if isinstance(view, str):
        if view not in ANGLES:
            raise UsageFault(f"no such view {view!r}; views: {', '.join(ANGLES)}; any other by --angle DEGREES")
        angle, hung = ANGLES[view]
        name = view
    else:
        angle, hung, name = float(view), "detector", f"angle{view:+g}"
    return shot(
        f"{name}tilt{tilt:+g}" if tilt else name, angle=angle, tilt=tilt, sad=stand.sad, sid=stand.sid, hung=hung
    )


def _keys(found: dict[str, Any], wanted: set[str], what: str, path: Path) -> None:
    if missing := sorted(wanted - set(found)):
        raise _refused(f"the {what} lacks {', '.join(missing)}", path)
    if unknown := sorted(set(found) - wanted):
        raise _refused(f"the {what} has unknown keys: {', '.join(unknown)}", path)


def _numbers(found: Any, count: int, key: str, path: Path) -> tuple[float, ...]:
    numbers = found if isinstance(found, list) else []
    if len(numbers) != count or not all(type(x) in (int, float) and math.isfinite(x) for x in numbers):
        raise _refused(f"{key} is a list of {count} finite numbers", path)
    return tuple(float(x) for x in numbers)


def _refused(what: str, path: Path) -> DataInvalid:
    return DataInvalid(
        what, reason=Reason.BAD_GEOMETRY, at=path, fix="a geometry.json that `tomogen xray` wrote, or a preset's name"
    )


def _clean(x: float) -> float:
    return round(x) + 0.0 if abs(x - round(x)) < 1e-15 else x


def _point(vector: NDArray[np.float64]) -> Point:
    x, y, z = (float(v) + 0.0 for v in vector)
    return x, y, z
