"""The one map between Hounsfield units and the range in which networks work."""

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import UsageFault

if TYPE_CHECKING:
    from torch import Tensor

Values = TypeVar("Values", "NDArray[Any]", "Tensor")
"""Arrays or tensors; nothing here imports torch."""

HU_FLOOR = -1024
"""What padding becomes: the value of nothing at all, a little below air."""


@dataclass(frozen=True)
class Window:
    """HU `low..high` on -1..1; values outside are clipped, values inside return exactly.

    Integers survive the round trip: `round(to_hu(to_unit(hu))) == hu` for windows up to 65 536 HU wide.
    """

    low: float = -1000.0
    high: float = 400.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a window runs from a finite low to a higher high, not {self.low} to {self.high}")

    @property
    def width(self) -> float:
        """Width in HU."""
        return self.high - self.low

    @property
    def centre(self) -> float:
        """Centre (level) in HU."""
        return (self.low + self.high) / 2

    def to_unit(self, hu: Values) -> Values:
        """HU, clipped to the window, on -1..1; float32 or wider."""
        return cast(Values, (_floating(hu).clip(self.low, self.high) - self.centre) * (2 / self.width))

    def to_hu(self, unit: Values) -> Values:
        """-1..1, clipped, back to HU."""
        return cast(Values, _floating(unit).clip(-1, 1) * (self.width / 2) + self.centre)


def _floating(values: Any) -> Any:
    """Integers as float32 (which holds every 16-bit integer exactly); floats as they are."""
    if isinstance(values, np.ndarray):
        return values if values.dtype.kind == "f" else values.astype(np.float32)
    return values if values.is_floating_point() else values.float()


LUNG = Window(-1350, 150)
"""Level -600, width 1500: the lung preset of the OHIF viewer."""
MEDIASTINUM = Window(-160, 240)
"""Level 40, width 400: soft tissue in the OHIF viewer, chest in Orthanc's Stone viewer."""
BONE = Window(-500, 1500)
"""Level 500, width 2000: bone in ctviewer; OHIF has 480 and 2500, Stone 300 and 1500."""
FULL = Window(-1000, 400)
"""Level -300, width 1400: air to contrasted vessels; the range of our recipes."""

WINDOWS = {"lung": LUNG, "mediastinum": MEDIASTINUM, "bone": BONE, "full": FULL}
"""Windows by the name that `--window` takes."""


def windows(words: str) -> dict[str, Window]:
    """Windows by name from `lung,bone`, `-1000..400` or `-1000,400`, or any of these together, in that order.

    Raises:
        UsageFault: no such window; the message names the nearest, or all that there are.
    """
    found: dict[str, Window] = {}
    rest = [word.strip().lower() for word in words.split(",") if word.strip()]
    while rest:
        word = rest.pop(0)
        if _number(word) is not None and rest and _number(rest[0]) is not None:
            word = f"{word}..{rest.pop(0)}"
        found[word] = _window(word)
    return found


def _window(word: str) -> Window:
    low, dots, high = word.partition("..")
    try:
        return Window(float(low), float(high)) if dots else WINDOWS[word]
    except (LookupError, ValueError):
        near = difflib.get_close_matches(word, WINDOWS, n=1)
        mean = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(WINDOWS)
        raise UsageFault(f"no such window {word!r}; {mean}windows: {known}, or LOW,HIGH in HU") from None


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
