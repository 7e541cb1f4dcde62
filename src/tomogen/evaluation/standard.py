"""What the standard metrics share: the range of HU they clip to, and the voxels that count."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason
from tomogen.evaluation.local import Floats
from tomogen.evaluation.pair import HU, Pair

LOW, HIGH = -1024.0, 3000.0
"""HU of nothing at all, and of the densest bone: what lies above is metal, what lies below is padding. SynthRAD 2023
and 2025 clip to the same."""

RANGE = (LOW, HIGH)
PEAK = HIGH - LOW

_SLAB = 2**21
"""Voxels looked at together: some 16 MB an array."""


def above_low(hu: NDArray[Any]) -> Floats:
    """HU clipped to the range, its low end at zero: what SSIM asks for, whose luminance knows no negative values."""
    values: Floats = np.clip(hu.astype(np.float64), LOW, HIGH) - LOW
    return values


def check(pair: Pair) -> None:
    """See that a pair can be scored.

    Raises:
        DataInvalid: not of three axes, empty, of unlike shapes, or with NaN or infinities.
    """
    at = pair.case or None
    if pair.truth.ndim != 3 or pair.truth.size == 0:
        raise DataInvalid(
            f"scans have 3 axes (depth, height, width), none empty, not {_spelled(pair.truth)}",
            reason=Reason.DIMENSIONS,
            at=at,
        )
    for what, image in (("made scan", pair.made), ("mask", pair.mask)):
        if image is not None and image.shape != pair.truth.shape:
            raise DataInvalid(
                f"the truth has {_spelled(pair.truth)} voxels, the {what} {_spelled(image)}",
                reason=Reason.UNPAIRED,
                at=at,
                fix="bring both onto one grid",
            )
    for what, scan in (("truth", pair.truth), ("made scan", pair.made)):
        if scan.dtype.kind != "f":
            continue
        bad = sum(scan[span].size - int(np.isfinite(scan[span]).sum()) for span in _spans(scan))
        if bad:
            raise DataInvalid(
                f"{bad} of {scan.size} voxels of the {what} are NaN or infinite", reason=Reason.NOT_FINITE, at=at
            )


def counted(pair: Pair) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """HU `(n,)` of the truth and of what was made at the voxels that count, a few slices at a time.

    Raises:
        DataInvalid: as `check`.
    """
    check(pair)
    for span in _spans(pair.truth):
        where = slice(None) if pair.mask is None else pair.mask[span]
        truth, made = (scan[span][where].astype(np.float64).ravel() for scan in (pair.truth, pair.made))
        if truth.size:
            yield truth, made


def _spans(scan: HU) -> Iterator[slice]:
    depth = max(1, _SLAB // max(1, scan[0].size))
    for start in range(0, len(scan), depth):
        yield slice(start, start + depth)


def _spelled(image: NDArray[Any]) -> str:
    return " x ".join(map(str, image.shape)) or "no"
