"""Stored values to Hounsfield units, each slice straight into its place."""

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason, TomogenError
from tomogen.formats.dicom import codecs
from tomogen.formats.dicom.frames import Frame
from tomogen.formats.dicom.header import DEFLATED, NATIVE, Header, plain_bytes
from tomogen.formats.dicom.stack import Grid
from tomogen.intensity import HU_FLOOR

PADDED = HU_FLOOR - 1
"""Marks padding: below the floor, to which the check of the values lifts it."""
_TISSUE = (-900, 3071)
"""HU among which a padding value is not believed: it would punch holes into the patient."""


class Damaged(Exception):
    """A slice whose pixels cannot be had; carries the frame and the error it would be."""

    def __init__(self, frame: Frame, error: DataInvalid) -> None:
        super().__init__(str(error))
        self.frame = frame
        self.error = error


def fill(grid: Grid, max_volume: int) -> tuple[NDArray[np.int16 | np.float32], list[Damaged]]:
    """The HU of a grid: int16 where every slope and intercept is whole, otherwise float32.

    Slices that are damaged are listed and their places left unset.

    Raises:
        DataInvalid: values beyond 16 bits.
        DependencyMissing: a decoder is not installed.
    """
    out: NDArray[np.int16 | np.float32] = np.empty(grid.shape, _dtype(grid))
    damaged = []
    cache = PixelBytes(max_volume)
    for place, frame in zip(out, grid.slots, strict=True):
        if frame is None:
            continue
        try:
            stored = stored_values(frame, place, cache)
        except Damaged as error:
            damaged.append(error)
        else:
            _to_hu(stored, frame, place)
    return out, damaged


def needed(grid: Grid) -> int:
    """Bytes of the volume in memory."""
    return math.prod(grid.shape) * _dtype(grid).itemsize


def equal(one: Frame, other: Frame, max_volume: int) -> bool:
    """Whether two frames hold the same HU, whatever their files look like; False where that cannot be told."""
    a, b = one.header, other.header
    if (a.rows, a.columns) != (b.rows, b.columns):
        return False
    found = np.empty((2, a.rows, a.columns), np.float32)
    try:
        for frame, place in zip((one, other), found, strict=True):
            _to_hu(stored_values(frame, place, PixelBytes(max_volume)), frame, place)
    except (Damaged, DataInvalid):
        return False
    return bool((found[0] == found[1]).all())


def _dtype(grid: Grid) -> np.dtype[Any]:
    """int16 where every slope and intercept is whole, otherwise float32."""
    whole = all(slot is None or (_is_whole(slot.slope) and _is_whole(slot.intercept)) for slot in grid.slots)
    return np.dtype(np.int16 if whole else np.float32)


def stored_values(frame: Frame, place: NDArray[Any], cache: "PixelBytes") -> NDArray[Any]:
    """Stored values (rows, columns), in `place` itself where they are 16 bits wide; unused bits cleared."""
    header = frame.header
    dtype = codecs.dtype_of(header)
    try:
        if header.syntax in NATIVE:
            stored = place.view(dtype) if place.dtype.itemsize == dtype.itemsize == 2 else np.empty(place.shape, dtype)
            _native(frame, stored, cache)
        else:
            stored = codecs.decode(cache.frame(frame), header)
    except TomogenError as error:
        if isinstance(error, DataInvalid):
            raise Damaged(frame, error) from None
        raise
    except Exception as error:  # decoders raise anything on damaged streams
        raise Damaged(
            frame,
            DataInvalid(f"pixels cannot be decoded ({type(error).__name__})", reason=Reason.CORRUPT, at=header.path),
        ) from None
    return _clean(stored, header)


def _native(frame: Frame, stored: NDArray[Any], cache: "PixelBytes") -> None:
    header = frame.header
    start = frame.number * stored.nbytes
    if header.available < start + stored.nbytes:
        raise DataInvalid(
            f"{max(0, header.available - start)} of {stored.nbytes} bytes of pixels",
            reason=Reason.TRUNCATED,
            at=header.path,
        )
    if header.syntax == DEFLATED:
        data = cache.inflated(header)
        stored[...] = np.frombuffer(data, stored.dtype, stored.size, header.offset + start).reshape(stored.shape)
    else:
        with io.FileIO(header.path) as file:
            file.seek(header.offset + start)
            if file.readinto(stored.data) != stored.nbytes:
                raise DataInvalid("pixels end early", reason=Reason.TRUNCATED, at=header.path)
    if not header.little_endian:
        stored.byteswap(inplace=True)


def _clean(stored: NDArray[Any], header: Header) -> NDArray[Any]:
    """Only the stored bits, moved down where they do not begin at bit 0, with the sign they have.

    A compressed stream has a precision of its own and no other bits: its unsigned values stand as they are.
    """
    unused = header.allocated - header.stored
    above = header.allocated - 1 - header.high
    if not unused or (not header.signed and not _has_other_bits(header)):
        return stored
    if not header.signed and above == unused and _below(stored, header.stored):
        return stored
    stored = np.left_shift(stored, above, out=stored if stored.flags.writeable else None)
    shifted: NDArray[Any] = np.right_shift(stored, unused, out=stored)
    return shifted


def _has_other_bits(header: Header) -> bool:
    """Whether bits beside the stored ones may hold anything: in plain pixels, and in RLE, which packs those."""
    return header.syntax in NATIVE or header.syntax == codecs.RLE


def _below(stored: NDArray[Any], bits: int) -> bool:
    """Whether no value needs more than `bits` bits: then the others are clean, as they nearly always are."""
    return int(stored.max()) < 1 << bits


def _to_hu(stored: NDArray[Any], frame: Frame, place: NDArray[Any]) -> None:
    slope, intercept = frame.slope, frame.intercept
    assert slope is not None
    assert intercept is not None
    padding = _padding(frame, slope, intercept)
    padded = None if padding is None else (stored >= padding[0]) & (stored <= padding[1])
    if place.dtype == np.float32:
        with np.errstate(over="ignore"):
            place[...] = stored * slope + intercept
    elif slope == 1 and stored.dtype.itemsize == 2 and _in_range(stored, frame.header, int(intercept)):
        # modulo 2^16 the sum is right, since it fits
        np.add(stored.view(np.int16), np.int16(intercept), out=place)
    else:
        values = stored.astype(np.int64) * int(slope) + int(intercept)
        if values.max() > 32767:
            raise DataInvalid(f"values up to {values.max()} are not HU", reason=Reason.HU_RANGE, at=frame.header.path)
        place[...] = np.maximum(values, -32768)
    if padded is not None:
        place[padded] = PADDED


def _in_range(stored: NDArray[Any], header: Header, intercept: int) -> bool:
    """Whether the sums with `intercept` fit 16 bits, as far as can be by the number of stored bits alone."""
    low, high = (-1 << header.stored - 1, 1 << header.stored - 1) if header.signed else (0, 1 << header.stored)
    if low + intercept >= -32768 and high - 1 + intercept <= 32767:
        return True
    return int(stored.min()) + intercept >= -32768 and int(stored.max()) + intercept <= 32767


def _padding(frame: Frame, slope: float, intercept: float) -> tuple[int, int] | None:
    """Stored values that are padding, both ends in; None where there are none, or they lie among tissue."""
    if not frame.header.padding:
        return None
    low, high = min(frame.header.padding), max(frame.header.padding)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    if ends[1] >= _TISSUE[0] and ends[0] <= _TISSUE[1]:
        return None
    return low, high


def _is_whole(value: float | None) -> bool:
    return value is not None and value == int(value) and abs(value) < 2**15


class PixelBytes:
    """Pixel bytes of the file that was read last: frames of one file come one after the other."""

    def __init__(self, max_volume: int) -> None:
        self.max_volume = max_volume
        self.header: Header | None = None
        self.data = b""
        self.frames: list[bytes] = []

    def inflated(self, header: Header) -> bytes:
        """The inflated file."""
        if self.header is not header:
            self.data, self.header = plain_bytes(header, self.max_volume), header
        return self.data

    def frame(self, frame: Frame) -> bytes:
        """The compressed stream of one frame."""
        from pydicom.encaps import generate_frames

        header = frame.header
        if self.header is not header:
            with header.path.open("rb") as file:
                file.seek(header.offset)
                data = file.read()
            self.frames = list(generate_frames(data, number_of_frames=header.frames))
            self.header = header
        return self.frames[frame.number]
