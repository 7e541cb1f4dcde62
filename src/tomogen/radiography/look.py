"""How line integrals become a picture: each step a pure function of arrays, float64 or float32.

Bone is white, as radiographs are shown, in both forms: `log` shows the line integral p itself, as digital detectors do
after their logarithm; `intensity` what film does, 1 - exp(-p), in which thick parts saturate.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import UsageFault

Form = Literal["log", "intensity"]
Grey = NDArray[np.uint8 | np.uint16]

AIR = 0.02
"""Line integrals below (1 mm of water) are air; percentiles are taken of the rest."""

SHOWN = (1.0, 99.5)
"""Percentiles of the patient's pixels that become black and white."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a picture shows of line integrals."""

    form: Form = "log"
    range: tuple[float, float] | None = None
    """Values of the form that become black and white. None: those at `percentiles`."""
    percentiles: tuple[float, float] = SHOWN
    """Of the patient's pixels in one picture."""
    invert: bool = False
    """Bone black."""
    bits: Literal[8, 16] = 8

    def __post_init__(self) -> None:
        """Refuse what makes no picture.

        Raises:
            UsageFault: a word or number out of range.
        """
        if self.form not in ("log", "intensity"):
            raise UsageFault(f"--form is log or intensity, not {self.form!r}")
        if self.bits not in (8, 16):
            raise UsageFault(f"--bits is 8 or 16, not {self.bits}")
        if self.range is not None and not (np.isfinite(self.range).all() and self.range[0] < self.range[1]):
            raise UsageFault(f"--range takes a low and a higher high, not {self.range[0]:g},{self.range[1]:g}")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise UsageFault(
                f"--percentiles takes two of 0 to 100, not {self.percentiles[0]:g},{self.percentiles[1]:g}"
            )


def transmitted(integrals: NDArray[Any]) -> NDArray[Any]:
    """Beer-Lambert: the part of the photons that arrives, I / I0 = exp(-p)."""
    found: NDArray[Any] = np.exp(-integrals)
    return found


def integrals_of(intensity: NDArray[Any]) -> NDArray[Any]:
    """The inverse, p = -log(I / I0); an intensity of nothing counts as the least number above it."""
    found: NDArray[Any] = -np.log(np.maximum(intensity, np.finfo(intensity.dtype).tiny))
    return found


def formed(integrals: NDArray[Any], form: Form) -> NDArray[Any]:
    """Line integrals in a form that grows with what lies in the ray."""
    return integrals if form == "log" else 1 - transmitted(integrals)


def spread(values: NDArray[Any], patient: NDArray[np.bool_], percentiles: tuple[float, float]) -> tuple[float, float]:
    """The values at two percentiles of the patient's pixels; of all, where there are no such pixels."""
    chosen = values[patient] if patient.any() else values
    low, high = (float(value) for value in np.percentile(chosen, percentiles))
    return (low, high) if low < high else (low, low + 1.0)


def stretched(values: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """`low..high` on 0..1, clipped."""
    found: NDArray[Any] = ((values - low) / (high - low)).clip(0, 1)
    return found


def inverted(unit: NDArray[Any]) -> NDArray[Any]:
    """Black for white."""
    return 1 - unit


def quantised(unit: NDArray[Any], bits: int) -> Grey:
    """0..1 as whole grey values, uint8 or uint16."""
    found: Grey = np.rint(unit * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    return found


def pictured(integrals: NDArray[Any], look: Look) -> tuple[Grey, tuple[float, float]]:
    """A picture `(rows, columns)` of line integrals in this look, and the values that are its ends."""
    values = formed(integrals, look.form)
    low, high = look.range or spread(values, integrals > AIR, look.percentiles)
    unit = stretched(values, low, high)
    return quantised(inverted(unit) if look.invert else unit, look.bits), (low, high)
