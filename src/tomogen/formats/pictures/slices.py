"""Slices as pictures and back: 16-bit PNG exactly, 8-bit PNG and JPEG in a window."""

import contextlib
import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tomogen import hounsfield, storage
from tomogen.errors import DataInvalid, InputMissing, Reason
from tomogen.formats import DEFAULT, SYNTHETIC, Header, Provenance, ReadOptions, origin, placed, unplaced
from tomogen.formats.pictures import table
from tomogen.formats.pictures.merge import BITS
from tomogen.formats.pictures.views import grey
from tomogen.intensity import HU_FLOOR, Window
from tomogen.volume import Acquisition, Affine, Volume

if TYPE_CHECKING:
    from PIL.Image import Image

GREY = {"L": 255, "I;16": 65535, "I;16B": 65535, "I": 65535}
"""Pillow's modes of one grey value a pixel, and the highest value."""
KEY = "tomogen"
"""Name of the text of ours in a PNG."""
QUALITY = 95
"""Of JPEG, on Pillow's scale of 0 to 95 (and beyond, which it advises against)."""


@dataclass(frozen=True)
class Picture:
    """What a picture says before its pixels are decoded."""

    path: Path
    width: int
    height: int
    mode: str
    note: dict[str, Any]
    """What we wrote into it, if we did: affine, slice, offset or window."""


def write(volume: Volume, path: Path, provenance: Provenance | None, window: Window | None) -> None:
    """A folder of slices: 16-bit PNG of HU plus an offset, or, in a window, 8-bit PNG (`.jpegs`: JPEG)."""
    text = told(volume, window, provenance, at=path)
    ending = ".jpg" if path.suffix.lower() == ".jpegs" else ".png"
    digits = max(4, len(str(volume.shape[0])))
    with storage.whole(path) as partial:
        partial.mkdir()
        for k, plane in enumerate(volume.hu):
            save(plane, partial / f"{k + 1:0{digits}d}{ending}", window, text | {"slice": k})


def told(volume: Volume, window: Window | None, provenance: Provenance | None, *, at: Path) -> dict[str, Any]:
    """What each picture of a scan says of itself, but for its number: place, origin, and what its greys are.

    Raises:
        DataInvalid: NaN or infinity, or, without a window, HU beyond 16 bits.
    """
    low, high = float(volume.hu.min()), float(volume.hu.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataInvalid("NaN or infinity cannot be drawn", reason=Reason.NOT_FINITE, at=at)
    offset = min(HU_FLOOR, math.floor(low))
    if window is None and high - offset > 65535:
        raise DataInvalid(f"HU {low:g}..{high:g} exceed 16 bits", reason=Reason.HU_RANGE, at=at)
    text: dict[str, Any] = {"affine": volume.affine.tolist(), "slices": volume.shape[0]}
    text |= {"offset": offset} if window is None else {"lossy_window": [window.low, window.high]}
    return text | {"origin": origin(volume, provenance)}


def save(plane: NDArray[Any], path: Path, window: Window | None, text: dict[str, Any]) -> None:
    """Write a slice `(height, width)` in HU as `.png` or `.jpg`: 8-bit in a window, without one 16-bit PNG."""
    from PIL import Image

    if window is None:
        image = Image.fromarray((np.rint(plane).astype(np.int32) - int(text["offset"])).astype(np.uint16))
    else:
        image = Image.fromarray(grey(plane, window))
    kind = "JPEG" if path.suffix == ".jpg" else "PNG"
    # PNG at level 1: four times as fast as at 6 and 7 % larger, since most of a scan is noise.
    quality = {"quality": QUALITY} if kind == "JPEG" else {"compress_level": 1}
    image.save(path, kind, **quality, **comment(kind, json.dumps(text)))


def comment(kind: str, text: str) -> dict[str, Any]:
    """Pillow's arguments that put a text into a picture of this kind."""
    if not text:
        return {}
    if kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text(KEY, text)
        return {"pnginfo": info}
    return {"comment": text.encode()}


def header(path: Path, options: ReadOptions = DEFAULT) -> Header:
    """As `pictures.header` says."""
    return _arranged(_pictures(path), path, options)[1]


def read(path: Path, options: ReadOptions = DEFAULT) -> Volume:
    """As `pictures.read` says."""
    pictures, declared = _arranged(_pictures(path), path, options)
    exact = options.window_of is None
    hu: NDArray[np.int16 | np.float32] = np.empty(declared.shape, np.float32)
    for plane, picture in zip(hu, pictures, strict=True):
        values = pixels(picture)
        if exact:
            plane[:] = values.astype(np.int32) + int(picture.note["offset"])
        else:
            assert options.window_of is not None
            top = GREY[picture.mode]
            plane[:] = values * (options.window_of.width / top) + options.window_of.low
    synthetic = str(pictures[0].note.get("origin", "")).startswith(SYNTHETIC)
    hu = hounsfield.check(hu, at=path, assume_hu=not exact or options.assume_hu, synthetic=synthetic)
    return Volume(hu, declared.affine, Acquisition(synthetic=synthetic))


def _pictures(path: Path) -> list[Picture]:
    """The picture, or those of a folder in the order of the numbers in their names."""
    if not path.is_dir():
        return [look(path)]
    files = [file for file in path.iterdir() if not file.name.startswith(".")]
    files = [file for file in files if file.suffix.lower() in (".png", ".jpg", ".jpeg")]
    if not files:
        raise DataInvalid("a folder without pictures", reason=Reason.EMPTY, at=path)
    return [look(file) for file in sorted(files, key=_natural)]


def _arranged(pictures: list[Picture], path: Path, options: ReadOptions) -> tuple[list[Picture], Header]:
    """The pictures in the order of the scan, and what they declare together."""
    first = pictures[0]
    _alike(pictures, path)
    if options.window_of is None and not all(isinstance(picture.note.get("offset"), int) for picture in pictures):
        raise _no_hu(first)
    shape = (len(pictures), first.height, first.width)
    # Read into float32.
    if (declared := 4 * math.prod(shape)) > options.max_volume:
        raise DataInvalid(
            f"declares {declared / 2**30:.1f} GiB, cap {options.max_volume / 2**30:.3g}",
            reason=Reason.TOO_LARGE,
            at=path,
            fix="--max-volume, if that is right",
        )
    if not all("affine" in picture.note for picture in pictures):
        return pictures, Header(shape, unplaced(path, options, "pictures carry no spacing and no orientation"))
    return _ours(pictures, path, shape)


def _alike(pictures: list[Picture], path: Path) -> None:
    """Raise if pictures differ in size or in bits, and name those that differ from most."""
    kinds = Counter((picture.width, picture.height, GREY[picture.mode]) for picture in pictures)
    if len(kinds) == 1:
        return
    deep = len({top for _, _, top in kinds}) > 1
    ranked = kinds.most_common()
    names = [f"{width} x {height}" + f" of {BITS[top]} bits" * deep for (width, height, top), _ in ranked]
    counted = [f"{n} of {name}" for name, (_, n) in zip(names, ranked, strict=True)]
    rest = len(pictures) - sum(n for _, n in ranked[:4])
    listed = ", ".join(counted[:4]) + f" and {rest} of other sizes" * (rest > 0)
    odd = [one.path for one in pictures if (one.width, one.height, GREY[one.mode]) != ranked[0][0]]
    shown = ", ".join(file.name for file in odd[:3]) + f" and {len(odd) - 3} more" * (len(odd) > 3)
    what = f"pictures of unlike {'size or depth' if deep else 'size'}: {listed}: {shown}"
    fix = f"replace {shown} by {names[0]} pixels, or take out what is no slice of this scan"
    raise DataInvalid(what, reason=Reason.MIXED, at=odd[0], fix=_set_above(path) or fix)


def _ours(pictures: list[Picture], path: Path, shape: tuple[int, int, int]) -> tuple[list[Picture], Header]:
    """Pictures that we wrote: in the order that they say, all of one scan, none missing."""
    try:
        affine: Affine = np.array(pictures[0].note["affine"], dtype=np.float64).reshape(4, 4)
        pictures = sorted(pictures, key=lambda picture: int(picture.note["slice"]))
        numbers = [int(picture.note["slice"]) for picture in pictures]
        count = int(pictures[0].note["slices"])
        if (affine[3] != (0, 0, 0, 1)).any():
            raise ValueError("no affine")
    except (ValueError, TypeError, KeyError):
        raise DataInvalid("what the pictures say of their place is damaged", reason=Reason.CORRUPT, at=path) from None
    fix = _set_above(path)
    if any(picture.note["affine"] != pictures[0].note["affine"] for picture in pictures):
        raise DataInvalid("pictures of several scans", reason=Reason.SEVERAL, at=path, fix=fix)
    if len(set(numbers)) < len(numbers):
        raise DataInvalid("two pictures of one slice", reason=Reason.DUPLICATE, at=path, fix=fix)
    if path.is_dir() and numbers != list(range(count)):
        raise DataInvalid(f"{len(numbers)} of {count} slices", reason=Reason.GAP, at=path)
    affine = affine.copy()
    affine[:3, 3] += numbers[0] * affine[:3, 0]
    return pictures, Header(shape, placed(affine, path))


def look(path: Path) -> Picture:
    """What a picture says before its pixels are decoded.

    Raises:
        InputMissing: it is not there.
        DataInvalid: no picture, damaged, animated, or in colour.
    """
    with opened(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise DataInvalid("an animated picture, one slice expected", reason=Reason.DIMENSIONS, at=path)
        if image.mode not in GREY:
            raise DataInvalid(
                f"a {image.mode} picture, grey expected",
                reason=Reason.DIMENSIONS,
                at=path,
                fix="save it as a grey PNG, or take it out if it is no slice",
            )
        text = image.info.get(KEY) or image.info.get("comment") or "{}"
        note: Any = {}
        with contextlib.suppress(ValueError, RecursionError):
            note = json.loads(text if isinstance(text, (str, bytes)) else "{}")
        return Picture(path, image.width, image.height, image.mode, note if isinstance(note, dict) else {})


def pixels(picture: Picture) -> NDArray[Any]:
    """Grey values `(height, width)`; raises as `look`."""
    with opened(picture.path) as image:
        values = np.asarray(image)
    if values.shape != (picture.height, picture.width):
        raise DataInvalid("the picture changed while it was read", reason=Reason.CORRUPT, at=picture.path)
    return values


@contextlib.contextmanager
def opened(path: Path) -> "Iterator[Image]":
    """A picture; what Pillow finds wrong with it, in the block too, in our words."""
    from PIL import Image, UnidentifiedImageError

    if not path.exists():
        raise InputMissing("no such picture", at=path)
    if path.stat().st_size == 0:
        raise DataInvalid("no bytes", reason=Reason.EMPTY, at=path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large picture: the cap decides
            with Image.open(path, formats=("PNG", "JPEG", "GIF")) as image:
                yield image
    except DataInvalid:
        raise
    except PermissionError:
        raise InputMissing("cannot read: permission denied", at=path) from None
    except Image.DecompressionBombError:
        raise DataInvalid("declares more pixels than a slice has", reason=Reason.TOO_LARGE, at=path) from None
    except UnidentifiedImageError:
        raise DataInvalid("not a PNG, JPEG or GIF picture", reason=Reason.CORRUPT, at=path) from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, EOFError, struct.error by format
        reason = Reason.TRUNCATED if "truncated" in str(error) else Reason.CORRUPT
        raise DataInvalid("a damaged picture", reason=reason, at=path) from None


def _no_hu(picture: Picture) -> DataInvalid:
    top = GREY[picture.mode]
    fix = "--window-of -1000,400" if top == 255 else "--window-of -1024,64511, if they are HU + 1024"
    if isinstance(ends := picture.note.get("lossy_window"), list) and len(ends) == 2:
        fix = f"--window-of {ends[0]},{ends[1]}, as the picture says of itself; lossy"
    fix = _set_above(picture.path.parent) or fix
    return DataInvalid(f"a picture: range 0..{top} is not HU", reason=Reason.HU_RANGE, at=picture.path, fix=fix)


def _set_above(folder: Path) -> str | None:
    """What to do with a folder of pictures that is a part of a set."""
    return (
        f"name the folder {folder.parent}, which holds {table.NAME}" if (folder.parent / table.NAME).is_file() else None
    )


def _natural(path: Path) -> list[tuple[int, str]]:
    """Names in the order of the numbers in them: 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name.lower())]
