"""NRRD (`.nrrd`, and `.nhdr` with a file of pixels beside it): any anatomical space on disk, LPS in a Volume.

Read by ourselves, for the reasons of `meta.py`. Fields as in teem's definition of NRRD0001 to NRRD0005,
http://teem.sourceforge.net/nrrd/format.html.
"""

import gzip
import math
import re
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

SUFFIXES = (".nrrd", ".nhdr")
OUTPUTS = {"nrrd": ".nrrd"}

_LONGEST = 2**20
"""Bytes that a header may take."""
_MAGIC = re.compile(rb"NRRD(\d{4})")
_NEWEST = 5
_INTEGERS = {
    "i1": "signed char,int8,int8_t",
    "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t",
    "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
}
_TYPES = {name: kind for kind, names in _INTEGERS.items() for name in names.split(",")} | {
    "float": "f4",
    "double": "f8",
}
_NAMES = {"int16": "short", "float32": "float"}
_ENCODINGS = {
    "raw": "raw", "gzip": "gzip", "gz": "gzip", "ascii": "text", "txt": "text", "text": "text",
}  # fmt: skip
_SIGNS = {"left": (0, 1), "right": (0, -1), "posterior": (1, 1), "anterior": (1, -1), "superior": (2, 1)}
"""Words of a space: which axis of LPS, and its sign there."""
_SPACES = {"lps": "left-posterior-superior", "ras": "right-anterior-superior", "las": "left-anterior-superior"}
_UNITS = {"mm": 1.0, "cm": 10.0, "m": 1e3, "um": 1e-3, "micron": 1e-3}


def header(path: Path, options: ReadOptions = DEFAULT) -> Header:
    """Shape and affine of the scan, no pixel read.

    Raises:
        DataInvalid: no NRRD, not one 3D volume of numbers, no or impossible geometry, larger than the cap.
    """
    return _layout(path, options)


def read(path: Path, options: ReadOptions = DEFAULT) -> Volume:
    """The scan in a NRRD file.

    Raises:
        DataInvalid: as `header` says; truncated or damaged; values that are not HU.
    """
    layout = _layout(path, options)
    count = math.prod(layout.shape)
    if layout.encoding == "text":
        values = storage.numbers(layout.file, layout.offset, layout.dtype, count, layout.skip)
    else:
        size, skip = count * layout.dtype.itemsize, layout.skip * layout.dtype.itemsize + layout.byte_skip
        deflated = layout.encoding == "gzip"
        pixels = storage.stored(layout.file, size, offset=layout.offset, skip=skip, deflated=deflated)
        values = pixels.view(layout.dtype)
    hu = hounsfield.check(
        values.reshape(layout.shape), at=path, assume_hu=options.assume_hu, synthetic=layout.synthetic
    )
    return Volume(hu, layout.affine, Acquisition(synthetic=layout.synthetic))


def write(volume: Volume, path: Path, provenance: Provenance | None = None) -> None:
    """Write int16 or float32 HU, gzip-encoded; under a name that ends in `.nhdr` the pixels go to a `.raw.gz`."""
    pixels = np.ascontiguousarray(volume.hu).astype(volume.hu.dtype.newbyteorder("<"), copy=False)
    packed = gzip.compress(pixels.data, compresslevel=1, mtime=0)
    if path.suffix.lower() == ".nhdr":
        data = path.with_suffix(".raw.gz")
        with storage.whole(data) as partial:
            partial.write_bytes(packed)
        with storage.whole(path) as partial:
            partial.write_bytes(_header_for(volume, provenance, data.name))
        return
    with storage.whole(path) as partial, partial.open("wb") as file:
        file.write(_header_for(volume, provenance, None))
        file.write(packed)


@dataclass(frozen=True)
class _Layout(Header):
    """Where in which file the voxels lie, and what they are."""

    file: Path
    offset: int
    encoding: str
    byte_skip: int
    """Bytes of the decoded data before the first voxel."""
    skip: int
    """Voxels before those wanted."""
    dtype: np.dtype[Any]
    synthetic: bool


def _layout(path: Path, options: ReadOptions) -> _Layout:
    fields, end = _fields(path)
    dtype, encoding = _dtype(fields, path), _ENCODINGS.get(fields.get("encoding", "").lower())
    if encoding is None:
        raise DataInvalid("an encoding that is not read (raw, gzip, ascii are)", reason=Reason.CORRUPT, at=path)
    sizes = _sizes(fields, path)
    spatial = _spatial(fields, sizes, path)
    shape, number = chosen(spatial, path, options)
    capped(shape, dtype, path, options)
    affine = _affine(fields, path, options)
    file, offset, byte_skip = _data(fields, path, end, encoding, math.prod(sizes) * dtype.itemsize)
    synthetic = fields.get("content", "").startswith(SYNTHETIC)
    return _Layout(shape, affine, file, offset, encoding, byte_skip, number * math.prod(shape), dtype, synthetic)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Fields by name in small letters, and where the data begin: after an empty line."""
    with storage.opened(path) as file:
        text = file.read(_LONGEST)
    if not text:
        raise DataInvalid("no bytes", reason=Reason.EMPTY, at=path)
    magic = _MAGIC.match(text)
    if magic is None:
        raise DataInvalid("not NRRD (no NRRD000x at its start)", reason=Reason.CORRUPT, at=path)
    if not 1 <= int(magic[1]) <= _NEWEST:
        raise DataInvalid(f"NRRD version {int(magic[1])}, 1 to {_NEWEST} are known", reason=Reason.CORRUPT, at=path)
    fields: dict[str, str] = {}
    at = text.find(b"\n") + 1
    while at:
        end = text.find(b"\n", at) + 1 or len(text)
        line = text[at:end].decode("latin-1").strip()
        at = end
        if not line:
            break
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[{"datafile": "data file"}.get(name.strip().lower(), name.strip().lower())] = value.strip()
        if at == len(text):
            break
    if not fields.keys() >= {"type", "dimension", "sizes", "encoding"}:
        lacking = ", ".join(sorted({"type", "dimension", "sizes", "encoding"} - fields.keys()))
        raise DataInvalid(f"ends within the header (no {lacking})", reason=Reason.TRUNCATED, at=path)
    return fields, at


def _dtype(fields: dict[str, str], path: Path) -> "np.dtype[Any]":
    name = fields["type"].lower()
    if name == "block":
        raise DataInvalid("blocks of bytes, one number a voxel expected", reason=Reason.DIMENSIONS, at=path)
    if name not in _TYPES:
        raise DataInvalid("type is unknown", reason=Reason.CORRUPT, at=path)
    return np.dtype((">" if fields.get("endian", "").lower() == "big" else "<") + _TYPES[name])


def _sizes(fields: dict[str, str], path: Path) -> list[int]:
    found = fields["sizes"].split()
    if not all(re.fullmatch(r"[1-9]\d{0,17}", size) for size in found) or fields["dimension"] != str(len(found)):
        raise DataInvalid("sizes and dimension cannot be", reason=Reason.CORRUPT, at=path)
    return [int(size) for size in found]


def _spatial(fields: dict[str, str], sizes: list[int], path: Path) -> list[int]:
    """Sizes of the three axes in space, then of the others; an axis before them holds colours or vectors."""
    vectors = _vectors(fields, path)
    if vectors is None:
        return sizes
    if len(vectors) != len(sizes):
        raise DataInvalid("space directions and sizes differ in number", reason=Reason.CORRUPT, at=path)
    first = next((n for n, vector in enumerate(vectors) if vector is not None), len(sizes))
    components = math.prod(sizes[:first])
    if components > 1:
        raise DataInvalid(f"{components} numbers a voxel, one expected", reason=Reason.DIMENSIONS, at=path)
    if None in vectors[first : first + 3]:
        raise DataInvalid("an axis of no space between those of space", reason=Reason.DIMENSIONS, at=path)
    inside = [size for size, vector in zip(sizes, vectors, strict=True) if vector is not None]
    return inside + [size for size, vector in zip(sizes, vectors, strict=True) if vector is None]


def _vectors(fields: dict[str, str], path: Path) -> list[list[float] | None] | None:
    """The step of each axis in space; None for an axis that lies in none."""
    text = fields.get("space directions")
    if text is None:
        return None
    words = re.findall(r"none|\([^)]*\)", text)
    return [None if word == "none" else _vector(word, path) for word in words]


def _vector(text: str, path: Path) -> list[float]:
    try:
        return [float(word) for word in text.strip("() ").split(",")]
    except ValueError:
        raise DataInvalid("a vector of the header is not numbers", reason=Reason.CORRUPT, at=path) from None


def _affine(fields: dict[str, str], path: Path, options: ReadOptions) -> Affine:
    axes = [vector for vector in _vectors(fields, path) or () if vector is not None]
    space = fields.get("space", "").lower()
    signs = [_SIGNS.get(word) for word in _SPACES.get(space, space).split("-")[:3]]
    if not axes or None in signs or sorted(sign[0] for sign in signs if sign) != [0, 1, 2]:
        lacking = "space directions" if not axes else "anatomical space" if not space else "known space"
        return unplaced(path, options, f"no {lacking}", _spacings(fields))
    origin = _vector(fields["space origin"], path) if "space origin" in fields else [0.0, 0.0, 0.0]
    if len(axes) != 3 or any(len(vector) != 3 for vector in [*axes, origin]):
        raise DataInvalid(f"{len(axes)} axes in space, 3 expected", reason=Reason.DIMENSIONS, at=path)
    affine = np.eye(4)
    units = re.findall(r'"([^"]*)"', fields.get("space units", "")) or ["mm"] * 3
    for row, sign in enumerate(signs):
        assert sign is not None
        scale = sign[1] * _UNITS.get(units[row % len(units)].lower(), 1.0)
        affine[sign[0], :3] = [scale * vector[row] for vector in reversed(axes)]
        affine[sign[0], 3] = scale * origin[row]
    return placed(affine, path)


def _spacings(fields: dict[str, str]) -> tuple[float, float, float] | None:
    try:
        across, down, step = (float(word) for word in fields.get("spacings", "").split())
    except ValueError:
        return None
    return step, down, across


def _data(fields: dict[str, str], path: Path, end: int, encoding: str, size: int) -> tuple[Path, int, int]:
    """The file of the data, where in it they begin, and how many decoded bytes come before the voxels."""
    name = fields.get("data file")
    if name is None:
        if path.suffix.lower() == ".nhdr":
            raise DataInvalid("names no file of pixels", reason=Reason.TRUNCATED, at=path)
        file, offset = path, end
    else:
        if name.split()[:1] == ["LIST"] or "%" in name:
            raise DataInvalid("pixels spread over many files are not read", reason=Reason.CORRUPT, at=path)
        file, offset = beside(path, name), 0
    lines, skip = (_count(fields, key, path) for key in ("line skip", "byte skip"))
    if lines < 0 or skip < -1 or (skip == -1 and encoding != "raw"):
        raise DataInvalid("line skip or byte skip cannot be", reason=Reason.CORRUPT, at=path)
    if lines:
        offset = _after_lines(file, offset, lines)
    if skip == -1:
        return file, max(offset, file.stat().st_size - size), 0
    return (file, offset + skip, 0) if encoding != "gzip" else (file, offset, skip)


def _count(fields: dict[str, str], name: str, path: Path) -> int:
    text = fields.get(name, fields.get(name.replace(" ", ""), "0"))
    if not re.fullmatch(r"-?\d{1,15}", text):
        raise DataInvalid(f"{name} is no number", reason=Reason.CORRUPT, at=path)
    return int(text)


def _after_lines(file: Path, offset: int, lines: int) -> int:
    with storage.opened(file) as stream:
        stream.seek(offset)
        for _ in range(min(lines, _LONGEST)):
            if not stream.readline(_LONGEST):
                break
        return stream.tell()


def _header_for(volume: Volume, provenance: Provenance | None, data: str | None) -> bytes:
    steps = " ".join(_words(volume.affine[:3, axis]) for axis in (2, 1, 0))
    fields = {
        "content": origin(volume, provenance),
        "type": _NAMES[volume.hu.dtype.name],
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, volume.shape[::-1])),
        "space directions": steps,
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "gzip",
        "space origin": _words(volume.affine[:3, 3]),
        "data file": data or "",
    }
    lines = [f"{key}: {value}\n" for key, value in fields.items() if value]
    return "".join(["NRRD0005\n", *lines, "" if data else "\n"]).encode("ascii", "replace")


def _words(vector: Iterable[float]) -> str:
    """Numbers that read back exactly."""
    return f"({','.join(repr(float(value)) for value in vector)})"
