"""NIfTI (`.nii`, `.nii.gz`), versions 1 and 2: RAS on disk, LPS in a Volume.

Fields as in the NIfTI-1.1 (2005) and NIfTI-2 (2011) headers; nibabel knows their layout and the quaternions.
"""

import gzip
import math
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
    capped,
    chosen,
    origin,
    placed,
    unplaced,
)
from tomogen.volume import Acquisition, Affine, Volume

SUFFIXES = (".nii", ".nii.gz")
OUTPUTS = {"nii": ".nii.gz"}

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
_ORDER = [2, 1, 0, 3]
"""Columns of an affine: (i, j, k) of NIfTI to (k, j, i) of a Volume, and back."""
_UNITS = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
"""xyzt_units & 7: unknown (taken as mm), m, mm, micron."""
_COLOURS = {128: "RGB", 2304: "RGBA", 32: "complex", 1792: "complex", 2048: "complex"}
_BINARY = 1
_CLOSE = 1e-4
"""mm by which a voxel may move in the float32 affine of NIfTI-1; beyond it NIfTI-2 is written."""


def header(path: Path, options: ReadOptions = DEFAULT) -> Header:
    """Shape and affine of the scan, no pixel read.

    Raises:
        DataInvalid: no NIfTI, not one 3D volume of numbers, no or impossible geometry, larger than the cap.
    """
    return _layout(path, options)


def read(path: Path, options: ReadOptions = DEFAULT) -> Volume:
    """The scan in a NIfTI file, its scl_slope and scl_inter applied.

    Raises:
        DataInvalid: as `header` says; truncated or damaged; values that are not HU.
    """
    layout = _layout(path, options)
    size = math.prod(layout.shape) * layout.dtype.itemsize
    if storage.is_gzip(path):
        pixels = storage.stored(path, size, skip=layout.offset, deflated=True)
    else:
        pixels = storage.stored(path, size, offset=layout.offset)
    values = pixels.view(layout.dtype).reshape(layout.shape)
    if (layout.slope, layout.inter) != (1.0, 0.0):
        values = hounsfield.rescaled(values, layout.slope, layout.inter)
    hu = hounsfield.check(values, at=path, assume_hu=options.assume_hu, synthetic=layout.synthetic)
    return Volume(hu, layout.affine, Acquisition(synthetic=layout.synthetic))


def write(volume: Volume, path: Path, provenance: Provenance | None = None) -> None:
    """Write int16 or float32 HU, uncompressed if the name ends in `.nii`; the same volume gives the same bytes.

    sform and qform are both set, code 1 (scanner). NIfTI-1, or NIfTI-2 where a float32 affine is too coarse.
    """
    head = _header_for(volume, provenance)
    body = np.ascontiguousarray(volume.hu).astype(volume.hu.dtype.newbyteorder("<"), copy=False)
    with storage.whole(path) as partial, partial.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # No name and no time in the stream: level 1, since noise gains little from more.
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed:
                packed.write(head)
                packed.write(body.data)
        else:
            file.write(head)
            file.write(body.data)


@dataclass(frozen=True)
class _Layout(Header):
    """Where in the file the voxels lie, and what they are."""

    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    synthetic: bool


def _layout(path: Path, options: ReadOptions) -> _Layout:
    fields = _fields(path)
    shape, skipped = _shape(fields, path, options)
    dtype = _dtype(fields, path)
    declared = capped(shape, dtype, path, options)
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or math.isnan(slope):  # both mean: no scaling
        slope, inter = 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(inter)):
        raise DataInvalid(f"scl_slope {slope}, scl_inter {inter}: not finite", reason=Reason.CORRUPT, at=path)
    offset = float(fields["vox_offset"])
    least = int(fields["sizeof_hdr"]) + 4
    if offset == 0:
        offset = least
    if not least <= offset < 2**53:
        raise DataInvalid(f"vox_offset {offset:g} lies outside the file", reason=Reason.CORRUPT, at=path)
    description = bytes(fields["descrip"]).decode("latin-1")
    return _Layout(
        shape, _affine(fields, path, options, shape), dtype, int(offset) + skipped * declared, slope, inter,
        description.startswith(SYNTHETIC),
    )  # fmt: skip


def _fields(path: Path) -> Any:
    """The header as nibabel lays it out, unchecked and in the byte order of the file."""
    import nibabel as nib

    block = storage.head(path, 544)
    for kind, size, magic in ((nib.Nifti1Header, 348, slice(344, 348)), (nib.Nifti2Header, 540, slice(4, 8))):
        for order in ("<", ">"):
            if block[:4] == np.array(size, order + "i4").tobytes():
                if len(block) < size + 4:
                    raise DataInvalid("ends within the header", reason=Reason.TRUNCATED, at=path)
                if block[magic] not in (b"n+1\0", b"n+2\0"):
                    found = block[magic].split(b"\0")[0].decode("ascii", "replace")
                    raise DataInvalid(f"magic {found!r} is not that of NIfTI", reason=Reason.CORRUPT, at=path)
                return kind(block[:size], order, check=False)
    reason = Reason.TRUNCATED if len(block) < 348 else Reason.CORRUPT
    raise DataInvalid("not NIfTI (a header size of 348 or 540 expected)", reason=reason, at=path)


def _shape(fields: Any, path: Path, options: ReadOptions) -> tuple[tuple[int, int, int], int]:
    """Voxels along (depth, height, width), and how many volumes lie before the one wanted."""
    dims = [int(size) for size in fields["dim"]]
    if not 1 <= dims[0] <= 7 or min(dims[1 : dims[0] + 1]) < 1:
        raise DataInvalid(f"dimensions {dims} cannot be", reason=Reason.CORRUPT, at=path)
    return chosen(dims[1 : dims[0] + 1], path, options)


def _dtype(fields: Any, path: Path) -> "np.dtype[Any]":
    code = int(fields["datatype"])
    if code in _COLOURS:
        raise DataInvalid(f"{_COLOURS[code]} voxels, one real number each expected", reason=Reason.DIMENSIONS, at=path)
    if code == _BINARY:
        raise DataInvalid("binary voxels: a mask, not a scan", reason=Reason.MASK, at=path)
    try:
        dtype: np.dtype[Any] = fields.get_data_dtype()
    except Exception:  # nibabel raises HeaderDataError, KeyError or TypeError by code
        raise DataInvalid(f"unknown datatype {code}", reason=Reason.CORRUPT, at=path) from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DataInvalid(f"unknown datatype {code}", reason=Reason.CORRUPT, at=path)
    return dtype


def _affine(fields: Any, path: Path, options: ReadOptions, shape: tuple[int, int, int]) -> Affine:
    """sform, else qform, in LPS mm and the order (k, j, i).

    A file whose sform and qform have the same code, or voxels of unlike size, contradicts itself; with unlike codes
    the sform is a place in another space (an atlas, another scan), and is taken as nibabel and ITK take it.
    """
    scale = _UNITS.get(int(fields["xyzt_units"]) & 7, 1.0)
    s = _lps(fields.get_sform(), scale) if int(fields["sform_code"]) > 0 else None
    q = None
    if int(fields["qform_code"]) > 0:
        try:
            q = _lps(fields.get_qform(), scale)
        except Exception:  # a quaternion longer than 1, pixdim of NaN: nibabel raises ValueError or HeaderDataError
            if s is None:
                raise DataInvalid("the qform is no rotation", reason=Reason.BAD_GEOMETRY, at=path) from None
    if s is None and q is None:
        return unplaced(path, options, "no orientation (sform_code and qform_code are 0)", _pixdim(fields, scale))
    if s is None or q is None:
        return placed(s if q is None else q, path)  # type: ignore[arg-type]
    found = placed(s, path)
    if not _agree(found, q, shape, same=int(fields["sform_code"]) == int(fields["qform_code"])):
        raise DataInvalid("sform and qform disagree", reason=Reason.BAD_GEOMETRY, at=path, fix="set one of them to 0")
    return found


def _agree(s: Affine, q: Affine, shape: tuple[int, int, int], *, same: bool) -> bool:
    """Whether two forms give voxels the same size within 1 %, and, if `same`, corners the same place within 1 mm."""
    sizes = [np.linalg.norm(form[:3, :3], axis=0) for form in (s, q)]
    if not np.allclose(sizes[0], sizes[1], rtol=0.01):
        return False
    corners = np.array([[*np.multiply(corner, np.array(shape) - 1), 1] for corner in np.ndindex(2, 2, 2)])
    return not same or bool(np.abs(corners @ (s - q).T).max() < 1.0)


def _lps(ras: Any, scale: float) -> Affine:
    with np.errstate(invalid="ignore", over="ignore"):  # `placed` refuses what is not finite
        affine: Affine = (_FLIP @ np.asarray(ras, dtype=np.float64))[:, _ORDER]
        affine[:3] *= scale
    return affine


def _pixdim(fields: Any, scale: float) -> tuple[float, float, float] | None:
    i, j, k = (float(size) * scale for size in fields["pixdim"][1:4])
    return (k, j, i) if min(i, j, k) > 0 else None


def _header_for(volume: Volume, provenance: Provenance | None) -> bytes:
    import nibabel as nib

    ras = _FLIP @ volume.affine[:, _ORDER]
    fields: Any = nib.Nifti1Header()
    fields.set_sform(ras, code=1)
    moved = np.abs(fields.get_sform() - ras) @ np.array([*volume.shape[::-1], 1])
    if moved.max() > _CLOSE / 2 or max(volume.shape) > np.iinfo(np.int16).max:
        fields = nib.Nifti2Header()
        fields.set_sform(ras, code=1)
    fields.set_data_dtype(volume.hu.dtype)
    fields.set_data_shape(volume.shape[::-1])
    fields.set_qform(ras, code=1)
    fields.set_xyzt_units("mm")
    fields["vox_offset"] = int(fields["sizeof_hdr"]) + 4
    fields["scl_slope"], fields["scl_inter"] = 1, 0
    fields["magic"] = fields.single_magic
    fields["descrip"] = origin(volume, provenance).encode("ascii", "replace")[:79]
    return bytes(fields.binaryblock) + bytes(4)
