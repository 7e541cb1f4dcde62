"""Compressed pixels: each transfer syntax by the fastest decoder that the licences of the house permit."""

import importlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DependencyMissing
from tomogen.formats.dicom.header import Header

RLE = "1.2.840.10008.1.2.5"


@dataclass(frozen=True)
class Codec:
    """A decoder: the modules it needs and the line that installs them."""

    name: str
    modules: tuple[str, ...]
    install: str
    decode: Callable[[bytes, Header], NDArray[Any]]

    def available(self) -> bool:
        """Whether its modules import."""
        try:
            for module in self.modules:
                importlib.import_module(module)
        except ImportError:
            return False
        return True


def require(header: Header) -> None:
    """Raise DependencyMissing where the decoder of a file is not installed."""
    codec = BY_SYNTAX.get(header.syntax)
    if codec is not None and not codec.available():
        raise DependencyMissing(
            f"{codec.name} pixels need {' and '.join(codec.modules)}", at=header.path, fix=codec.install
        )


def decode(stream: bytes, header: Header) -> NDArray[Any]:
    """One compressed frame as stored values (rows, columns), of the pixels' own integer type.

    Raises:
        DependencyMissing: the decoder is not installed.
        ValueError: the stream cannot be decoded, or holds another size than the header says.
    """
    require(header)
    size = _stream_size(stream)
    if size is not None and size != (header.rows, header.columns):
        raise ValueError(f"the stream holds {size[0]} x {size[1]} pixels")
    pixels = BY_SYNTAX[header.syntax].decode(stream, header)
    if pixels.shape != (header.rows, header.columns):
        raise ValueError(f"decoded to {pixels.shape}")
    dtype = dtype_of(header)
    if pixels.dtype.itemsize > dtype.itemsize and not np.array_equal(pixels, pixels.astype(dtype)):
        raise ValueError(f"decoded to values beyond {header.allocated} bits")
    return pixels.astype(dtype, copy=False)


def dtype_of(header: Header) -> np.dtype[Any]:
    """The integer type of stored values, in the machine's byte order."""
    return np.dtype(f"{'i' if header.signed else 'u'}{header.allocated // 8}")


def _stream_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream declares: read before a decoder believes them."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, 512)
    if start >= 0 and len(stream) >= start + 24:
        width, height, left, top = struct.unpack(">4I", stream[start + 8 : start + 24])
        return height - top, width - left
    at = 2 if stream[:2] == b"\xff\xd8" else len(stream)
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            rows, columns = struct.unpack(">HH", stream[at + 5 : at + 9])
            return rows, columns
        at += 2 + struct.unpack(">H", stream[at + 2 : at + 4])[0]
    return None


def _by_pydicom(plugin: str) -> Callable[[bytes, Header], NDArray[Any]]:
    """A decoder that pydicom already speaks to, given one bare frame."""

    def decode_frame(stream: bytes, header: Header) -> NDArray[Any]:
        from pydicom.pixels import get_decoder

        decoder = get_decoder(header.syntax)
        pixels: NDArray[Any] = decoder.as_array(
            _encapsulated(stream),
            index=0,
            raw=True,
            decoding_plugin=plugin,
            rows=header.rows,
            columns=header.columns,
            number_of_frames=1,
            samples_per_pixel=1,
            bits_allocated=header.allocated,
            bits_stored=header.stored,
            pixel_representation=int(header.signed),
            photometric_interpretation="MONOCHROME2",
            pixel_keyword="PixelData",
        )[0]
        return pixels

    return decode_frame


def _encapsulated(stream: bytes) -> bytes:
    from pydicom.encaps import encapsulate

    data: bytes = encapsulate([stream])
    return data


# For JPEG lossless SimpleITK is no faster: 4.6 ms of processor time a slice of 512 x 512, the binding of gdcm 3.7.
_JPEG = Codec("JPEG", ("gdcm",), "pip install python-gdcm", _by_pydicom("gdcm"))
_JPEG_LS = Codec("JPEG-LS", ("jpeg_ls",), "pip install pyjpegls", _by_pydicom("pyjpegls"))
_JPEG_2000 = Codec(
    "JPEG 2000", ("pylibjpeg", "openjpeg"), "pip install pylibjpeg pylibjpeg-openjpeg", _by_pydicom("pylibjpeg")
)
_RLE = Codec("RLE", ("pylibjpeg", "rle"), "pip install pylibjpeg pylibjpeg-rle", _by_pydicom("pylibjpeg"))

BY_SYNTAX = {
    "1.2.840.10008.1.2.4.50": _JPEG,
    "1.2.840.10008.1.2.4.51": _JPEG,
    "1.2.840.10008.1.2.4.57": _JPEG,
    "1.2.840.10008.1.2.4.70": _JPEG,
    "1.2.840.10008.1.2.4.80": _JPEG_LS,
    "1.2.840.10008.1.2.4.81": _JPEG_LS,
    "1.2.840.10008.1.2.4.90": _JPEG_2000,
    "1.2.840.10008.1.2.4.91": _JPEG_2000,
    "1.2.840.10008.1.2.4.201": _JPEG_2000,
    "1.2.840.10008.1.2.4.202": _JPEG_2000,
    "1.2.840.10008.1.2.4.203": _JPEG_2000,
    RLE: _RLE,
}
"""Decoders by transfer syntax."""
