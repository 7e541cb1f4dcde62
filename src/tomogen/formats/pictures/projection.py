"""A radiograph as PNG or JPEG, as a Radiograph: grey values, and where we computed it the view."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason
from tomogen.formats.pictures.slices import GREY, KEY, opened
from tomogen.radiography import geometry as stand
from tomogen.radiography import taken
from tomogen.radiography.radiograph import Radiograph

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 2**26
"""Of one picture: detectors have at most some 30 million."""

_RANGE = {"1": 1} | GREY
"""Pillow's modes of one grey value a pixel, and the highest value."""
_COLOURED = 4
"""Of 255: how far colours may lie apart in a grey picture that was stored in colour. JPEG rounds by as much."""
_VIEW = re.compile(r"; DRR, view ([\w.+-]+)")


def read(path: Path, view: str | None = None) -> Radiograph:
    """The radiograph in a PNG or JPEG, taken to be bone-white and hung as on a viewing box.

    8 or 16 bits, on 0..1 of these, turned as EXIF says. Colour is taken where all colours are equal. What is
    transparent becomes black. A picture of `xray` tells its view, its scale and what its greys are: inverted ones are
    turned back, and intensities become line integrals.

    Raises:
        InputMissing: the file cannot be opened.
        DataInvalid: no picture, damaged, animated, in colour, too large, or one value everywhere; computed from no
            straight view, or in greys too coarse.
    """
    with opened(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise DataInvalid(
                "an animated picture, one radiograph expected",
                reason=Reason.DIMENSIONS,
                at=path,
                fix="one of its frames as PNG",
            )
        if image.width * image.height > MAX_PIXELS:
            raise DataInvalid(
                f"{image.height} x {image.width} pixels, more than a detector has", reason=Reason.TOO_LARGE, at=path
            )
        text = str(image.info.get(KEY, ""))
        from PIL import ImageOps

        unit = _unit(ImageOps.exif_transpose(image), path)
    if unit.min() == unit.max():
        raise DataInvalid("one value everywhere", reason=Reason.CONSTANT, at=path, fix="a picture that shows a chest")
    if text.startswith("{"):
        raise DataInvalid(
            "a slice of a CT given where a radiograph belongs",
            reason=Reason.MODALITY,
            at=path,
            fix="tomogen xray makes radiographs",
        )
    match = _VIEW.search(text)
    if match is None:
        return Radiograph(unit, view=view)
    room, shown = taken.room_of(text, unit.shape), taken.shown_of(text)
    shot = stand.of_name(match[1]) if room is None else room.views[0]
    drawn = None if shot is None else stand.straight(shot)
    if view is None and shot is not None and drawn is None:
        raise stand.oblique(match[1], shot, path)
    return Radiograph(
        unit if shown is None else taken.restored(unit, shown, path),
        spacing=None if room is None else room.pixel,
        view=view or drawn,
        synthetic=True,
        magnification=None if room is None else room.magnification(room.views[0]),
        room=room,
        shown=shown,
    )


def _unit(image: "Image", path: Path) -> NDArray[np.float32]:
    """The grey values of a picture on 0..1.

    Raises:
        DataInvalid: it is in colour.
    """
    mode = image.mode
    clear = "A" in image.getbands() or "transparency" in image.info
    if mode in _RANGE and not clear:
        return np.asarray(image).astype(np.float32) / np.float32(_RANGE[mode])
    if mode in ("CMYK", "YCbCr", "LAB", "HSV", "F"):
        raise DataInvalid(
            f"a {mode} picture, grey expected", reason=Reason.DIMENSIONS, at=path, fix="save it as a grey PNG"
        )
    values = np.asarray(image.convert("RGBA"))
    colours, opaque = values[..., :3], values[..., 3]
    apart = (colours.max(axis=-1) - colours.min(axis=-1))[opaque > 0]
    if len(apart) and float(np.percentile(apart, 99.9)) > _COLOURED:
        raise DataInvalid(
            "a picture in colour, a grey radiograph expected",
            reason=Reason.DIMENSIONS,
            at=path,
            fix="save it as a grey PNG",
        )
    # Green is the middle one of the three in what JPEG rounded.
    found: NDArray[np.float32] = colours[..., 1].astype(np.float32) * opaque / np.float32(255**2)
    return found
