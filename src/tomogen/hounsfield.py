"""Whether numbers are Hounsfield units: the checks that all readers share, in one place.

Air is -1000 HU, fat about -100, water 0, dense bone 2000, metal up to 30 710 on the extended scale (12 bits
scaled to 16). A scan of a body holds air or lung, and something denser than air.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason
from tomogen.intensity import HU_FLOOR

AIR = -200.0
"""A scan reaches at least this low; pictures (0..255), counts, shifted and normalised values do not."""

BODY = -500.0
"""A scan reaches at least this high; values with a wrong intercept do not."""

DENSE = 3071
"""Top of the 12-bit scale; beyond it is metal, a small part of any scan (`METAL` of it at most)."""

METAL = 0.05

HIGHEST = 32767
"""Nothing in a patient is denser, and int16 holds no more."""

LABELS = 64
"""Whole numbers that take at most so many values, none of them air, are labels."""

_BLOCK = 2**22
"""Voxels looked at together: what is made on the way stays below some ten MB."""


def check(
    values: NDArray[Any], *, at: str | Path | None = None, assume_hu: bool = False, synthetic: bool = False
) -> NDArray[np.int16 | np.float32]:
    """The voxels `(depth, height, width)` as HU: int16 where that is exact, float32 otherwise.

    Values below -1024 (padding: -2000, -3024, -32768) become -1024. The array may be changed in place.
    With `assume_hu` neither the range nor the number of values is judged, only what int16 can hold. What a file
    calls `synthetic` may lie anywhere in that range, as what an untrained model makes does; labels are still refused.

    Raises:
        DataInvalid: not finite, one value everywhere, labels, or values that cannot be HU.
    """
    if values.dtype.kind not in "iufb":
        raise DataInvalid(f"voxels are {values.dtype}, one real number each expected", reason=Reason.DIMENSIONS, at=at)
    if values.dtype.kind == "b":
        values = values.view(np.uint8)
    _finite(values, at)
    low, high = values.min().item(), values.max().item()
    if low == high:
        raise DataInvalid(f"every voxel is {low:g}", reason=Reason.CONSTANT, at=at)
    if not assume_hu:
        _no_labels(values, low, high, at)
        if not synthetic:
            _plausible(values, low, high, at)
    if high > HIGHEST:
        raise DataInvalid(f"range {low:g}..{high:g} is not HU", reason=Reason.HU_RANGE, at=at)
    return _typed(values, low)


def rescaled(values: NDArray[Any], slope: float, intercept: float) -> NDArray[np.int16 | np.float32]:
    """`slope * values + intercept`: int16 where both are whole and the result fits, float32 otherwise."""
    ends = np.array([values.min(), values.max()], dtype=np.float64) * slope + intercept
    limits = np.iinfo(np.int16)
    whole = values.dtype.kind != "f" and float(slope).is_integer() and float(intercept).is_integer()
    fits = bool(limits.min <= ends.min() and ends.max() <= limits.max)
    out: NDArray[np.int16 | np.float32] = np.empty(values.shape, np.int16 if whole and fits else np.float32)
    for start, block in _blocks(values):
        # In float64: exact for every stored integer, and rounded once.
        with np.errstate(over="ignore", invalid="ignore"):
            out[start : start + len(block)] = block.astype(np.float64) * slope + intercept
    return out


def _finite(values: NDArray[Any], at: str | Path | None) -> None:
    if values.dtype.kind != "f":
        return
    bad, first = 0, None
    for start, block in _blocks(values):
        finite = np.isfinite(block)
        if not finite.all():
            if first is None:
                k, j, i = np.unravel_index(int(np.argmin(finite)), block.shape)
                first = (start + int(k), int(j), int(i))
            bad += finite.size - int(np.count_nonzero(finite))
    if bad:
        share = "every voxel is" if bad == values.size else f"{bad} of {values.size} voxels are"
        raise DataInvalid(
            f"{share} NaN or infinite, the first at (z, y, x) = {first}",
            reason=Reason.NOT_FINITE,
            at=at,
            fix="write -1024 there",
        )


def _no_labels(values: NDArray[Any], low: float, high: float, at: str | Path | None) -> None:
    few = distinct(values, LABELS)
    if few is not None and (few == 2 or low > AIR):
        raise DataInvalid(
            f"{few} values in all, {low:g}..{high:g}: a mask or label map, not a scan", reason=Reason.MASK, at=at
        )


def _plausible(values: NDArray[Any], low: float, high: float, at: str | Path | None) -> None:
    # Padding says nothing of the scale: -2000 around values of 0..4000 does not make them HU.
    lowest = low if low >= HU_FLOOR else _least(values, HU_FLOOR)
    metal = sum(int(np.count_nonzero(block > DENSE)) for _, block in _blocks(values)) if high > DENSE else 0
    if lowest > AIR or high < BODY or metal > METAL * values.size:
        raise DataInvalid(
            f"range {low:g}..{high:g} is not HU (a scan runs from air, near -1000, to tissue and bone)",
            reason=Reason.HU_RANGE,
            at=at,
            fix="write HU, or give --assume-hu if these are HU",
        )


def distinct(values: NDArray[Any], most: int) -> int | None:
    """How many values there are, if they are whole numbers and at most `most`; otherwise None."""
    seen: set[float] = set()
    # A coarse look first: a scan is told by its first thousands of voxels.
    glance = values.flat[:: max(1, values.size // 4096)]
    for block in chain([glance], (block for _, block in _blocks(values))):
        found = np.unique(block)
        if values.dtype.kind == "f" and (found != np.rint(found)).any():
            return None
        seen.update(found.tolist())
        if len(seen) > most:
            return None
    return len(seen)


def _least(values: NDArray[Any], floor: float) -> float:
    """The least value that is no padding; the highest HU where all is."""
    return min(float(block[block >= floor].min(initial=HIGHEST)) for _, block in _blocks(values))


def _typed(values: NDArray[Any], low: float) -> NDArray[np.int16 | np.float32]:
    if values.dtype == np.int16 and low >= HU_FLOOR:
        return values
    if values.dtype == np.int16 and values.flags.writeable:
        np.maximum(values, np.int16(HU_FLOOR), out=values)
        return values
    whole = values.dtype.kind != "f" or all((block == np.rint(block)).all() for _, block in _blocks(values))
    if values.dtype == np.float32 and not whole and low >= HU_FLOOR:
        return values
    out: NDArray[np.int16 | np.float32] = np.empty(values.shape, np.int16 if whole else np.float32)
    for start, block in _blocks(values):
        out[start : start + len(block)] = np.maximum(block, HU_FLOOR) if low < HU_FLOOR else block
    return out


def _blocks(values: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Runs of whole slices with the index of their first."""
    step = max(1, _BLOCK // max(1, values[0].size))
    for start in range(0, len(values), step):
        yield start, values[start : start + step]
