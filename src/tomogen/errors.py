"""What can go wrong, as a user meets it: what was found, where, and what to do next.

TomogenError (70)             a bug of ours, unless a subclass says otherwise
├── UsageFault (2)            the command was put wrongly: a flag, an occupied output
├── InputMissing (3)          a path that is not there or cannot be read; also a FileNotFoundError
├── DataInvalid (4)           data that cannot be used, with a `Reason`; also a ValueError
├── TrainingDiverged (4)      a loss that is no longer a number
├── RecipeMismatch (5)        a recipe or checkpoint that does not fit
├── OutOfSpace (6)            memory or disk
├── DependencyMissing (7)     a device, codec or library that is not there
├── SomeFailed (8)            the rest was written; the failed items are listed in a file
└── Interrupted (130, 143)    stopped by a signal, after saving

The numbers are the exit codes of the command line.
"""

from enum import StrEnum
from pathlib import Path
from typing import ClassVar


class Reason(StrEnum):
    """Why data is refused: one word each, the same in `doctor`, `prepare`, logs and tests."""

    NOT_CT_FILE = "not_ct_file"
    """No format of ours: text, archives, system files, unknown suffixes."""
    NOT_DICOM = "not_dicom"
    """Named as DICOM, or given as DICOM, and is not."""
    EMPTY = "empty"
    """No bytes, or a folder without files."""
    TRUNCATED = "truncated"
    """Ends before its header or its pixels do."""
    CORRUPT = "corrupt"
    """Bytes that contradict the format: damaged headers, undecodable pixels."""
    NOT_IMAGE = "not_image"
    """DICOM without pixels: reports, plans, structure sets, presentation states, directories."""
    MODALITY = "modality"
    """MR, PET, CR and the like where CT is expected; CT where a radiograph is."""
    NOT_CHEST = "not_chest"
    """A radiograph of an animal, or of another part of the body than the chest."""
    MASK = "mask"
    """Segmentations, label maps, binary masks."""
    LOCALIZER = "localizer"
    """A scout or topogram."""
    DERIVED = "derived"
    """Secondary captures, screenshots, dose and parametric maps: pixels that are not the scan."""
    TOO_FEW = "too_few"
    """Fewer slices than make a volume."""
    NO_GEOMETRY = "no_geometry"
    """Position, orientation or spacing are absent."""
    BAD_GEOMETRY = "bad_geometry"
    """Spacing zero, negative, absurd; axes not at right angles; NaN in an affine."""
    GAP = "gap"
    """Slices are missing."""
    UNEVEN = "uneven"
    """Slice positions are not evenly spaced."""
    DUPLICATE = "duplicate"
    """Two slices, or two scans, where one is expected."""
    TILT = "tilt"
    """Gantry tilt: slices sheared against their normal."""
    MIXED = "mixed"
    """Unlike things where like ones belong: slices of one series, scans of one set, scores of one row."""
    SEVERAL = "several"
    """Several series where one is to be read."""
    NO_HU = "no_hu"
    """Values without a rescale to Hounsfield units."""
    HU_RANGE = "hu_range"
    """Values that cannot be Hounsfield units."""
    CONSTANT = "constant"
    """One value everywhere."""
    NOT_FINITE = "not_finite"
    """NaN or infinity."""
    DIMENSIONS = "dimensions"
    """2D, 4D, colour or vectors where one 3D scalar volume is expected."""
    TOO_LARGE = "too_large"
    """Declares more than the cap, or than its bytes can hold."""
    CODEC = "codec"
    """A transfer syntax that no installed decoder reads."""
    LEAK = "leak"
    """One patient on both sides of a split."""
    TOO_SMALL = "too_small"
    """Fewer cases, or fewer voxels, than the work needs."""
    UNPAIRED = "unpaired"
    """A pair that lacks a half, or whose halves lie on unlike grids."""


class TomogenError(Exception):
    """Base of all errors: `what` was found and expected, `at` which place, the `fix` to try next."""

    exit_code: ClassVar[int] = 70

    def __init__(self, what: str, *, at: str | Path | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.at = None if at is None else str(at)
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.at:
            lines.append(f"  at: {self.at}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes whole: workers raise what the parent prints."""
        return _rebuild, (type(self), self.__dict__ | {"args": self.args})


def _rebuild(kind: type[TomogenError], state: dict[str, object]) -> TomogenError:
    error = kind.__new__(kind)
    error.args = state.pop("args")  # type: ignore[assignment]
    error.__dict__.update(state)
    return error


class UsageFault(TomogenError):
    """The command was put wrongly."""

    exit_code = 2


class InputMissing(TomogenError, FileNotFoundError):
    """An input that is not there or cannot be read."""

    exit_code = 3


class DataInvalid(TomogenError, ValueError):
    """Data that cannot be used as it is."""

    exit_code = 4

    def __init__(self, what: str, *, reason: Reason, at: str | Path | None = None, fix: str | None = None) -> None:
        super().__init__(what, at=at, fix=fix)
        self.reason = reason


class TrainingDiverged(TomogenError):
    """A loss or a weight that is no longer a finite number."""

    exit_code = 4


class RecipeMismatch(TomogenError, ValueError):
    """A recipe, a checkpoint or weights that do not fit."""

    exit_code = 5


class OutOfSpace(TomogenError):
    """Memory or disk ran out, or would."""

    exit_code = 6


class DependencyMissing(TomogenError):
    """A device, a codec or an optional library that is not there."""

    exit_code = 7


class SomeFailed(TomogenError):
    """Some items failed; the rest was written."""

    exit_code = 8


class Interrupted(TomogenError):
    """Stopped by SIGINT or SIGTERM; what was reached is saved."""

    exit_code = 130

    def __init__(self, what: str, *, signal: int, at: str | Path | None = None, fix: str | None = None) -> None:
        super().__init__(what, at=at, fix=fix)
        self.exit_code = 128 + signal  # type: ignore[misc]
