"""HU from the grey values of one slice in several windows: each tells where the value lies, all together most closely.

A grey value g of 0..L in a window says that the HU lie within `slack` grey steps of `low + g * step`; at 0 it says
only that they lie no higher, at L no lower. The HU are the middle of what all windows leave. Inside any window the
error is thus at most half a grey step of the finest window there; beyond all of them values are clipped. JPEG may
contradict each other all the same: then the widest window is believed, for it shows the gross of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tomogen.intensity import Window

ROUNDING = 0.5
"""Grey steps by which PNG may be off: it was rounded."""

RINGING = 10.5
"""Grey steps by which JPEG of our quality may be off: on chests of LIDC, Lung-Dx and CMB-CRC 10 is the most, one pixel
in 50 000 is beyond 8, one in 1000 beyond 6."""

BITS = {255: 8, 65535: 16}
"""Highest grey value: bits of a pixel."""


@dataclass(frozen=True)
class Scale:
    """What the grey values of a picture are."""

    window: Window
    top: int
    """The grey value of the window's high end: 255 or 65535."""
    slack: float = ROUNDING
    """Grey steps by which a value may be off."""

    @property
    def step(self) -> float:
        """HU from one grey value to the next."""
        return self.window.width / self.top


@dataclass(frozen=True)
class Accuracy:
    """How far HU that come back from pictures may be off, in a range of HU."""

    low: float
    high: float
    error: float
    """HU, at most; infinite between windows that do not meet; 0 where whole HU return exactly."""
    lossy: bool = False
    """Whether the pictures are JPEG, which keeps to no bound: then `error` is the most that was seen."""


def accuracy(scales: Sequence[Scale]) -> tuple[Accuracy, ...]:
    """The error in each range of HU, from the lowest window's low end to the highest's high end."""
    lowest, highest = _ends(scales)
    spans = []
    for scale in scales:
        # The outermost grey values may as well be clipped: of an inner window they say less.
        reach = scale.slack * scale.step
        edge = (2 * scale.slack - ROUNDING) * scale.step
        low = scale.window.low + (edge if scale.window.low > lowest else 0)
        high = scale.window.high - (edge if scale.window.high < highest else 0)
        exact = len(scales) == 1 and _whole(scale)
        spans.append((low, high, 0.0 if exact else reach, scale.slack > ROUNDING))
    found: list[Accuracy] = []
    for low, high in pairwise(sorted({end for span in spans for end in span[:2]})):
        within = [span[2:] for span in spans if span[0] <= low and high <= span[1]]
        error, lossy = min(within, default=(float("inf"), False))
        start = found.pop().low if found and found[-1].error == error else low
        found.append(Accuracy(start, high, error, lossy))
    return tuple(found)


def merged(greys: Sequence[NDArray[np.generic]], scales: Sequence[Scale]) -> NDArray[np.float32]:
    """HU of a slice from its grey values `(height, width)` in each window; clipped beyond all windows."""
    if len(scales) == 1:
        scale = scales[0]
        alone: NDArray[np.float64] = greys[0].astype(np.float64) * scale.step + scale.window.low
        return alone.astype(np.float32)
    lowest, highest = (np.full(greys[0].shape, end) for end in (-np.inf, np.inf))
    for grey, scale in zip(greys, scales, strict=True):
        levels = grey.astype(np.float64)
        middle, reach = levels * scale.step + scale.window.low, scale.slack * scale.step
        # A value that may as well have been clipped bounds on one side only.
        clipped_low, clipped_high = levels < scale.slack, levels > scale.top - scale.slack
        np.maximum(lowest, np.where(clipped_low, -np.inf, middle - reach), out=lowest)
        np.minimum(highest, np.where(clipped_high, np.inf, middle + reach), out=highest)
    below, above = np.isinf(lowest), np.isinf(highest)
    lowest[below], highest[above] = 0, 0
    hu: NDArray[np.float64] = (lowest + highest) / 2
    hu[below], hu[above] = _ends(scales)
    widest = max(range(len(scales)), key=lambda n: scales[n].step)
    at_odds = ~below & ~above & (lowest > highest + scales[widest].step / 100)
    hu[at_odds] = greys[widest][at_odds].astype(np.float64) * scales[widest].step + scales[widest].window.low
    return hu.astype(np.float32)


def _ends(scales: Sequence[Scale]) -> tuple[float, float]:
    """The lowest and the highest HU that any window shows."""
    return min(scale.window.low for scale in scales), max(scale.window.high for scale in scales)


def _whole(scale: Scale) -> bool:
    """Whether whole HU return exactly: one grey value for each."""
    return scale.slack <= ROUNDING and scale.step == 1.0 and float(scale.window.low).is_integer()
