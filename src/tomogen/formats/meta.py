"""MetaImage (`.mha`, and `.mhd` with a file of pixels beside it): LPS, as in a Volume.

Read by ourselves: the header is a page of text, and MetaIO prints to the terminal, follows paths out of the folder
and takes what memory a header asks for. Keys and types as in MetaIO's `metaTypes.h` and `metaImage.cxx`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tomogen import hounsfield, storage
from tomogen.errors import DataInvalid, Reason
from tomogen.formats import (
    DEFAULT,
    SYNTHETIC,
    Header,
    Provenance,
    ReadOptions,
    beside,
    capped,
    chosen,
    origin,
    placed,
    unplaced,
)
from tomogen.volume import Acquisition, Affine, Volume

SUFFIXES = (".mha", ".mhd")
OUTPUTS = {"mha": ".mha"}

_LONGEST = 2**16
"""Bytes that a header may take."""
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_NAMES = {"int16": "MET_SHORT", "float32": "MET_FLOAT"}


def header(path: Path, options: ReadOptions = DEFAULT) -> Header:
    """Shape and affine of the scan, no pixel read.

    Raises:
        DataInvalid: no MetaImage, not one 3D volume of numbers, no or impossible geometry, larger than the cap.
    """
    return _layout(path, options)


def read(path: Path, options: ReadOptions = DEFAULT) -> Volume:
    """The scan in a MetaImage file.

    Raises:
        DataInvalid: as `header` says; truncated or damaged; values that are not HU.
    """
    layout = _layout(path, options)
    if layout.encoding == "ascii":
        values = storage.numbers(layout.file, layout.offset, layout.dtype, math.prod(layout.shape), layout.skip)
    else:
        size = math.prod(layout.shape) * layout.dtype.itemsize
        skip = layout.skip * layout.dtype.itemsize
        deflated = layout.encoding == "zlib"
        pixels = storage.stored(layout.file, size, offset=layout.offset, skip=skip, deflated=deflated)
        values = pixels.view(layout.dtype)
    hu = hounsfield.check(
        values.reshape(layout.shape), at=path, assume_hu=options.assume_hu, synthetic=layout.synthetic
    )
    return Volume(hu, layout.affine, Acquisition(synthetic=layout.synthetic))


def write(volume: Volume, path: Path, provenance: Provenance | None = None) -> None:
    """Write int16 or float32 HU; under a name that ends in `.mhd` the pixels go to a `.raw` beside it."""
    pixels = np.ascontiguousarray(volume.hu).astype(volume.hu.dtype.newbyteorder("<"), copy=False)
    if path.suffix.lower() == ".mhd":
        raw = path.with_suffix(".raw")
        with storage.whole(raw) as partial:
            partial.write_bytes(pixels.data)
        with storage.whole(path) as partial:
            partial.write_bytes(_header_for(volume, provenance, raw.name))
        return
    with storage.whole(path) as partial, partial.open("wb") as file:
        file.write(_header_for(volume, provenance, "LOCAL"))
        file.write(pixels.data)


@dataclass(frozen=True)
class _Layout(Header):
    """Where in which file the voxels lie, and what they are."""

    file: Path
    offset: int
    encoding: str
    skip: int
    """Voxels before those wanted."""
    dtype: np.dtype[Any]
    synthetic: bool


def _layout(path: Path, options: ReadOptions) -> _Layout:
    fields, end = _fields(path)
    channels = fields.get("ElementNumberOfChannels", "1")
    if channels != "1" or fields.get("ElementType", "").endswith("_ARRAY"):
        raise DataInvalid("several channels a voxel, one expected", reason=Reason.DIMENSIONS, at=path)
    sizes = _sizes(fields, path)
    shape, number = chosen(sizes, path, options)
    dtype = _dtype(fields, path)
    capped(shape, dtype, path, options)
    encoding = "raw"
    if not _true(fields.get("BinaryData", "True")):
        encoding = "ascii"
    elif _true(fields.get("CompressedData", "False")):
        encoding = "zlib"
    file, offset = _data(fields, path, end, math.prod(sizes) * dtype.itemsize)
    return _Layout(
        shape, _affine(fields, path, options, len(sizes)), file, offset, encoding, number * math.prod(shape), dtype,
        fields.get("Comment", "").startswith(SYNTHETIC),
    )  # fmt: skip


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Keys and values, and where the pixels of a LOCAL file begin: `ElementDataFile` is the last key."""
    with storage.opened(path) as file:
        text = file.read(_LONGEST)
    if not text:
        raise DataInvalid("no bytes", reason=Reason.EMPTY, at=path)
    fields: dict[str, str] = {}
    at = 0
    while at < len(text):
        end = text.find(b"\n", at) + 1 or len(text)
        key, equals, value = text[at:end].decode("latin-1").partition("=")
        if equals:
            if not key.isascii():
                raise DataInvalid("a key of the header is no text", reason=Reason.CORRUPT, at=path)
            fields[key.strip()] = value.strip()
        at = end
        if "ElementDataFile" in fields:
            return fields, at
    if fields.keys() & {"NDims", "DimSize", "ObjectType"}:
        raise DataInvalid("ends within the header (no ElementDataFile)", reason=Reason.TRUNCATED, at=path)
    raise DataInvalid("not a MetaImage (no key of its header)", reason=Reason.CORRUPT, at=path)


def _sizes(fields: dict[str, str], path: Path) -> list[int]:
    """DimSize: width, height, depth, ..."""
    found = _numbers(fields, ("DimSize",), path)
    if found is None:
        raise DataInvalid("DimSize is absent", reason=Reason.CORRUPT, at=path)
    if fields.get("NDims", str(len(found))) != str(len(found)) or not all(n >= 1 and n.is_integer() for n in found):
        raise DataInvalid("DimSize and NDims cannot be", reason=Reason.CORRUPT, at=path)
    return [int(size) for size in found]


def _dtype(fields: dict[str, str], path: Path) -> "np.dtype[Any]":
    name = fields.get("ElementType", "")
    if name not in _TYPES:
        raise DataInvalid("ElementType is unknown", reason=Reason.CORRUPT, at=path)
    big = _true(fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")))
    return np.dtype((">" if big else "<") + _TYPES[name])


def _data(fields: dict[str, str], path: Path, end: int, size: int) -> tuple[Path, int]:
    """The file of the pixels and where in it they begin; `size` is what all of them take."""
    name = fields["ElementDataFile"]
    skipped = _numbers(fields, ("HeaderSize",), path) or [0.0]
    if name.upper() == "LOCAL":
        return path, end
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise DataInvalid("pixels spread over many files are not read", reason=Reason.CORRUPT, at=path)
    file = beside(path, name)
    if skipped[0] == -1:
        return file, max(0, file.stat().st_size - size)
    if skipped[0] < 0 or not skipped[0].is_integer():
        raise DataInvalid(f"HeaderSize {skipped[0]:g} cannot be", reason=Reason.CORRUPT, at=path)
    return file, int(skipped[0])


def _affine(fields: dict[str, str], path: Path, options: ReadOptions, dims: int) -> Affine:
    """Each row of TransformMatrix is the direction of one axis (width, height, depth), in LPS."""
    spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), path)
    matrix = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), path)
    origin = _numbers(fields, ("Offset", "Position", "Origin"), path) or [0.0] * dims
    known = None if spacing is None or len(spacing) < 3 else (spacing[2], spacing[1], spacing[0])
    if spacing is None or matrix is None:
        missing = "ElementSpacing" if spacing is None else "TransformMatrix"
        return unplaced(path, options, f"no geometry ({missing} is absent)", known)
    if len(spacing) != dims or len(matrix) != dims**2 or len(origin) != dims:
        raise DataInvalid("spacing, matrix and offset are not of one dimension", reason=Reason.CORRUPT, at=path)
    if not all(math.isnan(size) or size > 0 for size in spacing[:3]):
        raise DataInvalid(f"spacing {spacing[:3]} mm", reason=Reason.BAD_GEOMETRY, at=path)
    affine = np.eye(4)
    axes = np.array(matrix).reshape(dims, dims)[:3, :3] * np.array(spacing[:3])[:, None]
    affine[:3, :3] = axes[::-1].T
    affine[:3, 3] = origin[:3]
    return placed(affine, path)


def _numbers(fields: dict[str, str], names: tuple[str, ...], path: Path) -> list[float] | None:
    """The numbers of the first key of `names` that is there."""
    for name in names:
        if name in fields:
            try:
                return [float(word) for word in fields[name].split()]
            except ValueError:
                raise DataInvalid(f"{name} is not numbers", reason=Reason.CORRUPT, at=path) from None
    return None


def _true(word: str) -> bool:
    return word[:1] in ("T", "t", "1")


def _header_for(volume: Volume, provenance: Provenance | None, data: str) -> bytes:
    step, down, across = volume.spacing
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "Comment": origin(volume, provenance),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": _words(volume.directions[:, ::-1].T.ravel()),
        "Offset": _words(volume.origin),
        "ElementSpacing": _words((across, down, step)),
        "DimSize": " ".join(map(str, volume.shape[::-1])),
        "ElementType": _NAMES[volume.hu.dtype.name],
        "ElementDataFile": data,
    }
    return "".join(f"{key} = {value}\n" for key, value in fields.items() if value).encode("ascii", "replace")


def _words(values: Iterable[float]) -> str:
    """Numbers that read back exactly."""
    return " ".join(repr(float(value)) for value in values)
