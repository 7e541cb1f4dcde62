"""What one DICOM file says of itself, read without its pixels and without trusting it."""

import contextlib
import functools
import io
import math
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tomogen.errors import DataInvalid, InputMissing, Reason
from tomogen.volume import Acquisition

if TYPE_CHECKING:
    from pydicom import Dataset

DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", BIG_ENDIAN, DEFLATED)
"""Transfer syntaxes whose pixels are plain numbers."""

_INFLATED = b"1.2.840.10008.1.2.1".ljust(len(DEFLATED), b"\0")
_PIXELS = {0x7FE00010: "pixels", 0x7FE00008: "float", 0x7FE00009: "double"}
_INFLATED_BEYOND_PIXELS = 64 * 2**20
"""Bytes a deflated header may take besides its pixels; more is a bomb."""
_HEAD = 32768
"""Bytes read first: most headers are shorter, and need no second read."""
_META = 4096
_PER_FRAME = 0x52009230
_SYNTHETIC = 0x0008001C
_MODALITIES = (
    "ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT"
    " IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG"
    " RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA"
    " XA XAPROTOCOL XC"
)
"""Defined terms of Modality (PS3.3 C.7.3.1.1.1): any other text may be anything, and is not repeated."""
_MAKERS = (
    "ACCURAY", "ANKE", "ARINETA", "CANON", "CARESTREAM", "ELEKTA", "ELSCINT", "GE", "HITACHI", "IMATRON", "MARCONI",
    "MINFOUND", "NEUROLOGICA", "NEUSOFT", "PHILIPS", "PICKER", "PLANMECA", "SAMSUNG", "SHIMADZU", "SIEMENS",
    "SINOVISION", "TOSHIBA", "UIH", "VARIAN",
)  # fmt: skip
"""Makers of CT scanners, by the first word of their names. Of Manufacturer, a free text, nothing else is kept."""
_KERNEL = re.compile(
    r"[A-Z][A-Za-z]?\d\d[a-z]{0,2}(\\\d)?"  # Siemens and Canon: B31f, Br40d\3, FC08
    r"|[A-FL]|[EUY][A-D]"  # Philips
    r"|STANDARD|SOFT|LUNG|CHEST|DETAIL|BONE|BONEPLUS|EDGE|ULTRA"  # GE
    r"|[BHCL]_(VSOFT|SOFT|SMOOTH|MEDIUM|SHARP|BONE|LUNG)_[A-D]{1,2}"  # United Imaging
)
"""Names of kernels as makers form them. Any other text of ConvolutionKernel may be anything, and is not kept."""
_MOST_KVP, _MOST_MM = 500.0, 100.0
"""Numbers beyond these are no voltage and no thickness."""
_FIRST_GROUPS = (0x0002, 0x0004, 0x0008)
"""Groups that open a file: meta, directory, identification."""


@dataclass(slots=True)
class Header:
    """One file. Numbers that are there but cannot be read are NaN; what is absent is None or empty."""

    path: Path
    syntax: str
    little_endian: bool
    sop_class: str
    modality: str
    image_type: tuple[str, ...]
    series: str = field(repr=False)
    patient: str = field(repr=False)
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    high: int
    signed: bool
    slope: float | None
    intercept: float | None
    rescale_type: str
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float | None
    """mm from slice to slice or, where that is not said, of one slice; what the depth of a single slice is."""
    synthetic: bool
    """Whether it says that it is synthetic."""
    padding: tuple[int, ...]
    """Pixel Padding Value and, where given, its range limit; stored values."""
    pixels: str
    """`pixels`, `float`, `double`, or empty where there are none."""
    offset: int
    """Where the pixel bytes begin (in the inflated file, where it is deflated)."""
    length: int
    """Bytes the pixel element declares; -1 where it is encapsulated."""
    available: int
    """Bytes that are there from `offset` on."""
    dataset: "Dataset | None" = field(repr=False)
    """The parsed header of a multi-frame file; none of the others: a scan of many files keeps their numbers only."""

    @property
    def declared(self) -> int:
        """Bytes of plain pixels that rows, columns, frames and bits add up to."""
        return (self.rows * self.columns * self.samples * self.frames * self.allocated + 7) // 8

    @property
    def matrix(self) -> str:
        """Rows x columns, as a message says it."""
        return f"{self.rows} x {self.columns}"

    @property
    def encapsulated(self) -> bool:
        """Whether the pixels are a compressed stream."""
        return self.length == -1


def recognises(path: Path) -> bool:
    """Whether the first bytes look like DICOM, with or without the 128-byte preamble."""
    try:
        with path.open("rb") as file:
            return _is_dicom(file.read(132))
    except OSError:
        return False


def read_header(path: Path, max_volume: int) -> Header:
    """The header of one file.

    Raises:
        InputMissing: the file cannot be opened.
        DataInvalid: it is no DICOM, or its header is damaged.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return _read(file, path, max_volume)
    except OSError as error:
        raise InputMissing(f"cannot be read: {error.strerror or type(error).__name__}", at=path) from None
    except DataInvalid:
        raise
    except EOFError:
        raise DataInvalid("ends within its header", reason=Reason.TRUNCATED, at=path) from None
    except Exception as error:  # whatever a damaged header makes the parser raise; its text may hold header values
        raise DataInvalid(
            f"the DICOM header is damaged ({type(error).__name__})", reason=Reason.CORRUPT, at=path
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the parser's own warnings: they are many, and may quote identifying values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def acquisition(path: Path) -> Acquisition:
    """How the scan in a file was made; nothing that identifies anybody."""
    from pydicom import dcmread

    try:
        dataset: Any = dcmread(path, stop_before_pixels=True, force=True)
        groups = [_raw(dataset)]
        for item in dataset.get("SharedFunctionalGroupsSequence") or ():
            groups += [_raw(inner) for name in _GROUPS for inner in item.get(name) or ()]
        medium = _find(groups, 0x00180010)
        return Acquisition(
            modality=_term(_find(groups, 0x00080060)) or "CT",
            kernel=_kernel(_find(groups, 0x00181210)),
            manufacturer=_maker(_find(groups, 0x00080070)),
            slice_thickness=_positive(_find(groups, 0x00180050), _MOST_MM),
            kvp=_positive(_find(groups, 0x00180060), _MOST_KVP),
            contrast=None if not medium else medium.strip().lower() not in ("no", "none", "n", "0"),
            synthetic=_find(groups, _SYNTHETIC).upper() == "YES",
        )
    except Exception:  # what these say is of use, never of need
        return Acquisition()


_GROUPS = ("CTReconstructionSequence", "CTXRayDetailsSequence", "PixelMeasuresSequence")
"""Functional groups of an enhanced file that hold what a plain file has at its top."""


def _raw(dataset: Any) -> dict[int, Any]:
    return {int(tag): dataset.get_item(tag) for tag in list(dataset.keys())}


def _find(groups: list[dict[int, Any]], tag: int) -> str:
    return next((text for text in (_text(group, tag) for group in groups) if text), "")


def _maker(text: str) -> str:
    """The maker that a text begins with, if it is one of those known."""
    words = text.upper().split()
    return words[0] if words and words[0] in _MAKERS else ""


def _kernel(text: str) -> str:
    """A kernel as makers name them; nothing for any other text."""
    return text if _KERNEL.fullmatch(text) else ""


def _positive(text: str, most: float) -> float | None:
    value = _number(text.split("\\")[0])
    return value if 0 < value <= most else None


def _term(modality: str) -> str:
    """A modality as DICOM spells it; `unknown` for any other text."""
    return modality if not modality or modality in _MODALITIES.split() else "unknown"


def plain_bytes(header: Header, max_volume: int) -> bytes:
    """The whole file as it is after its deflated part is inflated."""
    with header.path.open("rb") as file:
        head = file.read()
    return _inflate(head, header.path, max_volume)


def _read(file: BinaryIO, path: Path, max_volume: int) -> Header:
    from pydicom import dcmread

    head = file.read(_HEAD)
    if not head:
        raise DataInvalid("the file has no bytes", reason=Reason.EMPTY, at=path)
    if not _is_dicom(head):
        raise DataInvalid("not DICOM (no DICM at byte 128, no DICOM elements)", reason=Reason.NOT_DICOM, at=path)
    size = os.fstat(file.fileno()).st_size
    with contextlib.suppress(Exception):  # a header longer than the first bytes breaks off anywhere
        quick = _elements(head)
        if quick is not None:
            return _header(*quick, path, size, None)
    file.seek(0)
    deflated = DEFLATED.encode() in head[:_META]
    if deflated:
        inflated = _inflate(file.read(), path, max_volume)
        file, size = io.BytesIO(inflated), len(inflated)
    dataset = dcmread(file, stop_before_pixels=True, force=True)
    implicit, little = dataset.original_encoding
    items = _raw(dataset.file_meta) | _raw(dataset)
    _not_cut(items, path)
    start = file.tell()
    enhanced = dataset if _PER_FRAME in items else None
    header = _header(items, file.read(12), start, bool(implicit), bool(little), path, size, enhanced)
    if deflated:
        header.syntax = DEFLATED
    return header


def _elements(head: bytes) -> tuple[dict[int, Any], bytes, int, bool, bool] | None:
    """Elements before the pixels, the first bytes of the pixel element, where it starts, implicit, little endian.

    The parser's generator of raw elements over the first bytes of a file in order: a third of the time of
    `dcmread`. None for what is odd in any way (no meta, deflated, enhanced, long headers): the full parser
    then looks at the file from the start.
    """
    from pydicom.filereader import data_element_generator

    if head[128:132] != b"DICM":
        return None
    file = io.BytesIO(head)
    file.seek(132)
    found: dict[int, Any] = {
        item.tag: item for item in data_element_generator(file, False, True, lambda tag, vr, length: tag >> 16 != 2)
    }
    syntax = _text(found, 0x00020010)
    if not syntax or syntax == DEFLATED:
        return None
    implicit, little = syntax == NATIVE[0], syntax != BIG_ENDIAN
    start = file.tell()
    if (head[start + 4 : start + 6] in _VRS) is implicit:
        return None
    for item in data_element_generator(file, implicit, little, lambda tag, vr, length: tag in _PIXELS):
        found[item.tag] = item
    start = file.tell()
    element = head[start : start + 12]
    if len(element) < 12 or not _pixel_element(element, start, little, implicit)[0] or _PER_FRAME in found:
        return None
    return found, element, start, implicit, little


def _not_cut(items: Mapping[int, Any], path: Path) -> None:
    """Raise DataInvalid where an element is shorter than its length: the file ends there."""
    for item in items.values():
        value, length = item.value, getattr(item, "length", None)
        if isinstance(value, bytes) and length not in (None, 0xFFFFFFFF) and len(value) < length:
            raise DataInvalid("ends within its header", reason=Reason.TRUNCATED, at=path)


def _header(
    items: Mapping[int, Any],
    element: bytes,
    start: int,
    implicit: bool,
    little: bool,
    path: Path,
    size: int,
    dataset: "Dataset | None",
) -> Header:
    pixels, offset, length = _pixel_element(element, start, little, implicit)
    if not pixels and start + len(element) < size and 0x00080016 not in items and 0x00280010 not in items:
        raise DataInvalid("the DICOM header cannot be followed", reason=Reason.CORRUPT, at=path)
    bits = _integer(items, 0x00280100, 0)
    stored = _integer(items, 0x00280101, bits)
    signed = _integer(items, 0x00280103, 0) == 1
    return Header(
        path=path,
        syntax=_text(items, 0x00020010) or _guess(little, implicit),
        little_endian=little,
        sop_class=_text(items, 0x00080016) or _text(items, 0x00020002),
        modality=_term(_text(items, 0x00080060)),
        image_type=_words(_text(items, 0x00080008)),
        series=_text(items, 0x0020000E),
        patient=_text(items, 0x00100020),
        rows=_integer(items, 0x00280010, 0),
        columns=_integer(items, 0x00280011, 0),
        frames=max(1, _integer(items, 0x00280008, 1)),
        samples=_integer(items, 0x00280002, 1),
        photometric=_text(items, 0x00280004),
        allocated=bits,
        stored=stored,
        high=_integer(items, 0x00280102, stored - 1),
        signed=signed,
        slope=_first(items, 0x00281053),
        intercept=_first(items, 0x00281052),
        rescale_type=_text(items, 0x00281054),
        position=_floats(items, 0x00200032),
        orientation=_floats(items, 0x00200037),
        spacing=_floats(items, 0x00280030),
        thickness=_first(items, 0x00180088) or _first(items, 0x00180050),
        synthetic=_text(items, _SYNTHETIC).upper() == "YES",
        padding=_padding(items, bits, signed),
        pixels=pixels,
        offset=offset,
        length=length,
        available=max(0, size - offset) if pixels else 0,
        dataset=dataset,
    )


def _is_dicom(head: bytes) -> bool:
    """DICM at byte 128, or a first element of a low group with a known VR or a short length."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack(order + "HH", head[:4])
        if group not in _FIRST_GROUPS or element > 0x2000:
            continue
        if head[4:6] in _VRS or (order == "<" and struct.unpack("<I", head[4:8])[0] < 512):
            return True
    return False


_VRS = frozenset(b"UL UI CS SH LO OB DA TM AE PN ST DT SQ IS DS US".split())


def _inflate(data: bytes, path: Path, max_volume: int) -> bytes:
    """A deflated file with its dataset inflated, at most as long as its pixels and a generous header.

    It says of itself that it is not deflated: else the parser would inflate it once more, and without a bound.
    """
    start = _after_meta(data)
    meta = data[:start].replace(DEFLATED.encode(), _INFLATED, 1)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    cap = max_volume + _INFLATED_BEYOND_PIXELS
    parts = [meta, inflater.decompress(data[start:], min(cap, 4 * 2**20))]
    if inflater.unconsumed_tail:
        cap = min(cap, _declared_in(b"".join(parts)) + _INFLATED_BEYOND_PIXELS)
        parts.append(inflater.decompress(inflater.unconsumed_tail, max(1, cap - len(parts[1]))))
    if inflater.unconsumed_tail:
        raise DataInvalid(f"inflates to more than the {cap:,} bytes that it declares", reason=Reason.TOO_LARGE, at=path)
    return b"".join(parts)


def _after_meta(data: bytes) -> int:
    """Where the dataset begins: the file meta group says its own length."""
    from pydicom.filereader import _read_file_meta_info, read_preamble

    file = io.BytesIO(data)
    read_preamble(file, force=True)
    _read_file_meta_info(file)
    return file.tell()


def _declared_in(head: bytes) -> int:
    """Pixel bytes that an inflated head declares."""
    from pydicom import dcmread

    dataset = dcmread(io.BytesIO(head), stop_before_pixels=True, force=True)
    items = _raw(dataset)
    rows, columns = _integer(items, 0x00280010, 0), _integer(items, 0x00280011, 0)
    frames, samples = max(1, _integer(items, 0x00280008, 1)), _integer(items, 0x00280002, 1)
    return rows * columns * frames * samples * _integer(items, 0x00280100, 16) // 8


def _pixel_element(element: bytes, start: int, little: bool, implicit: bool) -> tuple[str, int, int]:
    """Kind, offset and length of the pixel element whose first twelve bytes these are."""
    order = "<" if little else ">"
    if len(element) < 8:
        return "", 0, 0
    group, number = struct.unpack(order + "HH", element[:4])
    kind = _PIXELS.get(group << 16 | number, "")
    if not kind:
        return "", 0, 0
    at = 4 if implicit else 8
    if len(element) < at + 4:
        return "", 0, 0
    length = struct.unpack(order + "I", element[at : at + 4])[0]
    return kind, start + at + 4, -1 if length == 0xFFFFFFFF else length


def _guess(little: bool, implicit: bool) -> str:
    return NATIVE[0] if implicit else NATIVE[1] if little else BIG_ENDIAN


def _text(items: Mapping[int, Any], tag: int) -> str:
    """The value as text, several joined by a backslash; empty where it is absent."""
    item = items.get(tag)
    value = None if item is None else item.value
    if value is None:
        return ""
    if isinstance(value, bytes):
        return _decode(value)
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return str(value).strip(" \0")
    return "\\".join(str(part) for part in value)


@functools.lru_cache(4096)
def _decode(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return text.strip(" \0")


def _floats(items: Mapping[int, Any], tag: int) -> tuple[float, ...]:
    return _split(_text(items, tag))


@functools.lru_cache(4096)
def _split(text: str) -> tuple[float, ...]:
    return tuple(_number(part) for part in text.split("\\")) if text else ()


@functools.lru_cache(256)
def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.upper().split("\\"))


def _first(items: Mapping[int, Any], tag: int) -> float | None:
    values = _floats(items, tag)
    return values[0] if values else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _integer(items: Mapping[int, Any], tag: int, default: int) -> int:
    item = items.get(tag)
    if item is None or item.value in (None, b"", ""):
        return default
    value = item.value
    if not isinstance(value, bytes):
        number = _number(str(value))
    elif item.VR in ("IS", "DS") or tag == 0x00280008:  # NumberOfFrames is text; implicit VR does not say so
        number = _number(_decode(value).split("\\")[0])
    else:
        return int.from_bytes(value[:4] if len(value) == 4 else value[:2], "little" if item.is_little_endian else "big")
    return int(number) if math.isfinite(number) else default


def _padding(items: Mapping[int, Any], bits: int, signed: bool) -> tuple[int, ...]:
    """Padding as stored values: read as signed where pixels are, whatever VR a writer chose."""
    found = []
    for tag in (0x00280120, 0x00280121):
        if tag not in items:
            break
        value = _integer(items, tag, 0)
        if signed and 0 < bits <= 16 and value >= 1 << 15:
            value -= 1 << 16
        found.append(value)
    return tuple(found)
