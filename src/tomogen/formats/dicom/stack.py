"""Slices in space: their order along the normal, the grid they form, and what keeps them from forming one."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason
from tomogen.formats.dicom.frames import Frame
from tomogen.volume import Affine

MIN_SLICES = 3
"""Two slices have one distance and nothing to check it against; ours need no check, and may be fewer."""
MAX_SPACING = 100.0
"""mm; larger pixels or steps are no scan."""
MIN_SPACING = 0.01
_EVEN = 0.03
"""Part of a step that a slice may lie off its place."""
_ROUNDED = 0.101
"""mm that it may lie off in any case, if that is below a quarter of a step: some scanners round to 0.1 mm."""
_TILT = 0.1
"""Degrees of shear from which a scan counts as tilted."""
SAME = 0.01
"""mm within which two slices lie at one position."""


@dataclass(frozen=True)
class Grid:
    """Slices in order, `None` where one is missing, and the affine of the whole."""

    slots: tuple[Frame | None, ...]
    affine: Affine
    tilt: float
    """Degrees by which successive slices are sheared against their normal."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (depth, height, width)."""
        first = next(slot for slot in self.slots if slot is not None).header
        return len(self.slots), first.rows, first.columns

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of voxel centres in mm along (depth, height, width)."""
        d, h, w = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(d), float(h), float(w)


def plane(frame: Frame) -> NDArray[np.float64]:
    """Unit vectors (3, 3) as rows: along a row, along a column, the normal.

    Raises:
        DataInvalid: absent, not numbers, not at right angles, or pixels of impossible size.
    """
    at = frame.header.path
    missing = [
        name
        for name, values in (
            ("ImagePositionPatient", frame.position),
            ("ImageOrientationPatient", frame.orientation),
            ("PixelSpacing", frame.spacing),
        )
        if not values
    ]
    if missing:
        raise DataInvalid(f"no {' and no '.join(missing)}", reason=Reason.NO_GEOMETRY, at=at)
    for name, values, count in (
        ("ImagePositionPatient", frame.position, 3),
        ("ImageOrientationPatient", frame.orientation, 6),
        ("PixelSpacing", frame.spacing, 2),
    ):
        if len(values) != count or not all(map(math.isfinite, values)):
            raise DataInvalid(f"{name} is not {count} numbers", reason=Reason.BAD_GEOMETRY, at=at)
    if not all(MIN_SPACING <= mm <= MAX_SPACING for mm in frame.spacing):
        raise DataInvalid(
            f"pixels of {frame.spacing[0]:g} x {frame.spacing[1]:g} mm", reason=Reason.BAD_GEOMETRY, at=at
        )
    if max(map(abs, frame.position)) > 1e5:
        raise DataInvalid("a slice position more than 100 m away", reason=Reason.BAD_GEOMETRY, at=at)
    row, column = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not all(abs(length - 1) < 0.01 for length in lengths):
        raise DataInvalid("direction cosines are not of length 1", reason=Reason.BAD_GEOMETRY, at=at)
    row, column = row / lengths[0], column / lengths[1]
    if abs(row @ column) > 1e-3:
        raise DataInvalid("row and column are not at right angles", reason=Reason.BAD_GEOMETRY, at=at)
    normal = np.cross(row, column)
    return np.array([row, column, normal / np.linalg.norm(normal)])


def arrange(frames: Sequence[Frame], *, fill_gaps: bool = False) -> Grid:
    """The grid of the slices of one series, sorted by position along their normal.

    Raises:
        DataInvalid: too few, mixed, doubled, missing or unevenly spaced slices, or no geometry.
    """
    ours = all(frame.header.synthetic for frame in frames)
    if len(frames) < (1 if ours else MIN_SLICES) and len({frame.position for frame in frames}) == len(frames):
        raise DataInvalid(
            f"{len(frames)} slice{'s' * (len(frames) != 1)}; a volume needs {MIN_SLICES}",
            reason=Reason.TOO_FEW,
            at=frames[0].header.path if frames else None,
        )
    axes = plane(frames[0])
    _uniform(frames)
    positions = np.array([frame.position for frame in frames])
    if len(frames) == 1:
        return _alone(frames[0], axes)
    along = positions @ axes[2]
    order = np.argsort(along, kind="stable")
    along, positions = along[order], positions[order]
    ordered = [frames[i] for i in order]
    _no_doubles(ordered, along)
    slots = _places(ordered, along, fill_gaps)
    count = slots[-1] + 1
    # least squares over all slices: rounding of single positions averages out
    step, start = np.polyfit(slots, positions, 1) if count != len(ordered) else _line(positions)
    sideways = step - (step @ axes[2]) * axes[2]
    tilt = math.degrees(math.atan2(float(np.linalg.norm(sideways)), float(step @ axes[2])))
    off = np.abs(positions - (start + np.outer(slots, step))).max()
    if off > _tolerance(float(step @ axes[2])):
        raise DataInvalid(
            f"slices lie up to {off:.2f} mm beside their line", reason=Reason.UNEVEN, at=frames[0].header.path.parent
        )
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = axes[1] * frames[0].spacing[0]
    affine[:3, 2] = axes[0] * frames[0].spacing[1]
    affine[:3, 3] = start
    filled: list[Frame | None] = [None] * count
    for slot, frame in zip(slots, ordered, strict=True):
        filled[slot] = frame
    return Grid(tuple(filled), affine, tilt if tilt > _TILT else 0.0)


def _alone(frame: Frame, axes: NDArray[np.float64]) -> Grid:
    """The grid of a single slice, as deep as the file says.

    Raises:
        DataInvalid: it does not say.
    """
    step = frame.thickness or 0.0
    if not MIN_SPACING <= step <= MAX_SPACING:
        raise DataInvalid(
            "a single slice that does not say how thick it is", reason=Reason.NO_GEOMETRY, at=frame.header.path
        )
    affine = np.eye(4)
    affine[:3, :3] = np.transpose(axes[::-1] * [[step], [frame.spacing[0]], [frame.spacing[1]]])
    affine[:3, 3] = frame.position
    return Grid((frame,), affine, 0.0)


def _tolerance(step: float) -> float:
    """How many mm a slice may lie off its place."""
    return max(_EVEN * step, min(_ROUNDED, step / 4))


def _line(positions: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Step and start of evenly spaced positions (n, 3), by the two ends: exact where the positions are."""
    return (positions[-1] - positions[0]) / (len(positions) - 1), positions[0]


def _uniform(frames: Sequence[Frame]) -> None:
    """All slices of one size, orientation and pixel spacing."""
    at = frames[0].header.path.parent
    sizes = Counter((frame.header.rows, frame.header.columns) for frame in frames)
    if len(sizes) > 1:
        listed = ", ".join(f"{n} of {rows} x {columns}" for (rows, columns), n in sizes.most_common(3))
        raise DataInvalid(f"slices of unlike size: {listed}", reason=Reason.MIXED, at=at)
    for frame in frames:
        if frame.orientation != frames[0].orientation or frame.spacing != frames[0].spacing:
            plane(frame)
    turned = _unlike([frame.orientation for frame in frames], 1e-3)
    if turned:
        raise DataInvalid(f"{turned} of {len(frames)} slices have another orientation", reason=Reason.MIXED, at=at)
    scaled = _unlike([frame.spacing for frame in frames], 1e-3)
    if scaled:
        raise DataInvalid(f"{scaled} of {len(frames)} slices have another pixel spacing", reason=Reason.MIXED, at=at)
    for frame in frames:
        if len(frame.position) != 3 or not all(map(math.isfinite, frame.position)):
            plane(frame)


def _unlike(values: Sequence[tuple[float, ...]], tolerance: float) -> int:
    """How many differ from the commonest."""
    counts = Counter(values)
    if len(counts) == 1:
        return 0
    common = counts.most_common(1)[0][0]
    return sum(
        n
        for value, n in counts.items()
        if len(value) != len(common) or max(abs(a - b) for a, b in zip(value, common, strict=True)) > tolerance
    )


def _no_doubles(ordered: Sequence[Frame], along: NDArray[np.float64]) -> None:
    same = np.flatnonzero(np.diff(along) < SAME)
    if len(same):
        raise DataInvalid(
            f"{len(same) + 1 if len(same) == 1 else len(same)} slices at positions that are taken, "
            f"the first at {along[same[0]]:.2f} mm",
            reason=Reason.DUPLICATE,
            at=ordered[int(same[0])].header.path,
            fix="keep one of each, in a folder of its own",
        )


def _places(ordered: Sequence[Frame], along: NDArray[np.float64], fill_gaps: bool) -> list[int]:
    """The slot of each slice, counted in steps from the first."""
    gaps = np.diff(along)
    step = float(along[-1] - along[0]) / (len(along) - 1)
    line = along[0] + step * np.arange(len(along))
    if np.abs(along - line).max() <= _tolerance(step) and step * 0.5 < gaps.min():
        if step > MAX_SPACING or step < MIN_SPACING:
            raise DataInvalid(f"slices {step:g} mm apart", reason=Reason.BAD_GEOMETRY, at=ordered[0].header.path.parent)
        return list(range(len(along)))
    step = float(np.median(gaps))
    at = ordered[0].header.path.parent
    steps = np.rint(gaps / step).astype(int)
    if (steps < 1).any() or np.abs(gaps - steps * step).max() > _tolerance(step):
        raise DataInvalid(f"slices are {gaps.min():.2f} to {gaps.max():.2f} mm apart", reason=Reason.UNEVEN, at=at)
    missing = int((steps - 1).sum())
    holes = np.flatnonzero(steps > 1)
    if not fill_gaps or missing > len(ordered):
        first = int(holes[0])
        place = ", ".join(f"{along[i]:.1f}" for i in holes[:5]) + (", ..." if len(holes) > 5 else "")
        raise DataInvalid(
            f"gap {gaps[first]:.1f} mm after {place} mm along the normal (step {step:.2f}); {missing} missing",
            reason=Reason.GAP,
            at=at,
            fix="--fill-gaps" if missing <= len(ordered) else None,
        )
    return [0, *np.cumsum(steps).tolist()]
