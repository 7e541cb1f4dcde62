"""The slices of a series, one by one: from files of one image, and from enhanced files of many."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tomogen.errors import DataInvalid, Reason
from tomogen.formats.dicom.header import Header


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice: where its pixels are, where it lies in the patient (LPS mm), how stored values become HU."""

    header: Header
    number: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    """Direction cosines of increasing column, then of increasing row."""
    spacing: tuple[float, ...]
    """mm between rows, then between columns."""
    slope: float | None
    intercept: float | None
    rescale_type: str
    thickness: float | None
    """mm from slice to slice, as the file says it."""
    stack: str = ""
    """StackID of an enhanced file."""

    def with_rescale(self, slope: float, intercept: float) -> "Frame":
        """The frame with another rescale."""
        return replace(self, slope=slope, intercept=intercept)


def frames_of(header: Header) -> list[Frame]:
    """The slices in one file.

    Raises:
        DataInvalid: many frames without positions, or with positions for another number; a damaged header.
    """
    alone = Frame(
        header, 0, header.position, header.orientation, header.spacing, header.slope, header.intercept,
        header.rescale_type, header.thickness,
    )  # fmt: skip
    if header.dataset is None:
        if header.frames > 1:
            raise DataInvalid(
                f"{header.frames:,} frames without positions of their own", reason=Reason.NO_GEOMETRY, at=header.path
            )
        return [alone]
    try:
        return list(_enhanced(header, header.dataset, alone))
    except DataInvalid:
        raise
    except Exception as error:  # the parser decodes these elements only now, and raises anything; it may quote them
        raise DataInvalid(
            f"the DICOM header is damaged ({type(error).__name__})", reason=Reason.CORRUPT, at=header.path
        ) from None


def _enhanced(header: Header, dataset: Any, alone: Frame) -> Iterator[Frame]:
    """Frames of a multi-frame file: per-frame functional groups over shared ones over the file's own values."""
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or ()), None)
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    if len(groups) != header.frames:
        raise DataInvalid(
            f"{header.frames} frames, but positions for {len(groups)}", reason=Reason.CORRUPT, at=header.path
        )
    base = replace(alone, position=())
    if shared is not None:
        base = _over(base, shared)
    for number, group in enumerate(groups):
        yield _over(replace(base, number=number), group)


def _over(frame: Frame, group: Any) -> Frame:
    """`frame` with what a functional group says."""
    changes: dict[str, Any] = {}
    for sequence, name, key in _PLACES:
        value = _in(group, sequence, name)
        if value is not None:
            changes[key] = _floats(value) if key in ("position", "orientation", "spacing") else value
    for key in ("slope", "intercept", "thickness"):
        if key in changes:
            changes[key] = next(iter(_floats(changes[key])))
    for key in ("stack", "rescale_type"):
        if key in changes:
            changes[key] = str(changes[key])
    return replace(frame, **changes)


_PLACES = (
    ("PlanePositionSequence", "ImagePositionPatient", "position"),
    ("PlaneOrientationSequence", "ImageOrientationPatient", "orientation"),
    ("PixelMeasuresSequence", "PixelSpacing", "spacing"),
    ("PixelMeasuresSequence", "SliceThickness", "thickness"),
    ("PixelMeasuresSequence", "SpacingBetweenSlices", "thickness"),
    ("PixelValueTransformationSequence", "RescaleSlope", "slope"),
    ("PixelValueTransformationSequence", "RescaleIntercept", "intercept"),
    ("PixelValueTransformationSequence", "RescaleType", "rescale_type"),
    ("FrameContentSequence", "StackID", "stack"),
)


def _in(group: Any, sequence: str, name: str) -> Any:
    items = group.get(sequence)
    return items[0].get(name) if items else None


def _floats(value: Any) -> tuple[float, ...]:
    values = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    found = []
    for part in values:
        try:
            found.append(float(part))
        except (TypeError, ValueError):
            found.append(math.nan)
    return tuple(found) or (math.nan,)
