"""What networks see of a radiograph, computed or taken: one size, one range, one framing.

Grey runs from 0 to 1 between two percentiles of the patient's pixels, as in the pictures that `xray` writes. Pictures
that are not square are padded with black, which is what a computed radiograph holds where its scan ends: of the 289
radiographs that this was looked at with, those 1.22 times as wide as high (bedside pictures) have lungs up to their
edges, and would lose some to a crop; nothing is stretched.
"""

import numpy as np
from numpy.typing import NDArray

from tomogen.radiography.look import Look, spread, stretched
from tomogen.radiography.radiograph import Radiograph

PERCENTILES = Look().percentiles
"""Of the patient's pixels; they become black and white."""

THIN = 0.002
"""Part of the range that is air. `look.AIR` of a chest's longest rays, whose line integral is about 10."""

CUT = 0.8 * min(PERCENTILES[0], 100 - PERCENTILES[1]) / 100
"""Part of the patient's pixels that lie at an end where a picture was cut off there before."""

_UNIFORM = 0.05
"""Part of the range within which the pixels of a border lie, from black or white."""
_MARKERS = (3.0, 97.0)
"""Percentiles of a line between which it has to be uniform: letters may stand in a border."""
_LOOKED = 256
"""Pixels of a line that are looked at."""


def normalised(pixels: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """A picture `(rows, columns)` that grows with attenuation, or line integrals, as float32 `(size, size)` on 0..1.

    The whole picture is kept. Applied to the 8-bit picture of line integrals it gives what it gives of these
    themselves, within 0.02.
    """
    return _resized(_square(levelled(pixels)), size)


def seen(radiograph: Radiograph, size: int, field: tuple[float, float] | None = None) -> NDArray[np.float32]:
    """A radiograph as `(size, size)` on 0..1: on the detector of `field` mm where that and its spacing are known.

    Elsewhere uniform borders are cut off, since the frame of a picture without a scale says nothing; a computed one
    whose scale is known keeps its own, the whole detector.
    """
    if field is not None and radiograph.spacing is not None:
        return placed(radiograph, field, size)
    whole = radiograph.synthetic and radiograph.spacing is not None
    return normalised(radiograph.pixels if whole else uncollimated(radiograph.pixels), size)


def placed(radiograph: Radiograph, field: tuple[float, float], size: int) -> NDArray[np.float32]:
    """A radiograph on a detector of `field` mm (height, width), `(size, size)` on 0..1; black where it does not reach.

    The middle of the picture comes to the middle of the detector. `field` is in the plane that the spacing is of.

    Raises:
        ValueError: its spacing is not known.
    """
    if radiograph.spacing is None:
        raise ValueError("a radiograph without spacing has no place on a detector")
    unit = levelled(radiograph.pixels)
    wanted = [mm / step for mm, step in zip(field, radiograph.spacing, strict=True)]
    # Black around it, so that the detector lies within.
    margins = [max(0, int(np.ceil((want - have) / 2))) for want, have in zip(wanted, unit.shape, strict=True)]
    wide = np.pad(unit, [(margin, margin) for margin in margins])
    rows, columns = ((have - want) / 2 for want, have in zip(wanted, wide.shape, strict=True))
    return _resized(wide, size, (columns, rows, columns + wanted[1], rows + wanted[0]))


def levelled(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grey on 0..1 between the percentiles of the patient's pixels; white borders count for nothing and become 0.

    Black ones are no pixels of a patient, and are 0 as it is.
    """
    inside = framed(pixels, black=False)
    kept = pixels[inside]
    found = np.zeros(pixels.shape, np.float32)
    found[inside] = stretched(kept, *_ends(kept))
    return found


def _ends(pixels: NDArray[np.float32]) -> tuple[float, float]:
    """What becomes black and white.

    A picture whose lowest and highest values are both held by many of its pixels was cut off at them once, and they
    are its ends: a second cut at percentiles would take another part of the patient away.
    """
    low, high = float(pixels.min()), float(pixels.max())
    near = THIN * (float(np.percentile(pixels, PERCENTILES[1])) - low)
    patient = pixels > low + near
    many = CUT * int(patient.sum())
    if low < high and min(int((pixels <= low).sum()), int((pixels >= high).sum())) >= many:
        return low, high
    return spread(pixels, patient, PERCENTILES)


def uncollimated(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """A picture without its uniform black or white borders."""
    return pixels[framed(pixels)]


def framed(pixels: NDArray[np.float32], *, black: bool = True) -> tuple[slice, slice]:
    """Rows and columns of a picture within its uniform white (and black) borders; all where nothing would be left."""
    low, high = float(pixels.min()), float(pixels.max())
    near = _UNIFORM * (high - low)
    box = [0, pixels.shape[0], 0, pixels.shape[1]]
    before: list[int] = []
    while near and box != before:
        before = list(box)
        for axis in (0, 1):
            inner = pixels[box[0] : box[1], box[2] : box[3]]
            least, most = _span(inner if axis == 0 else inner.T)
            border = (high - least <= near) | (black & (most - low <= near))
            # The first line from either end that is none.
            kept = np.flatnonzero(~border)
            if not len(kept):
                return slice(0, pixels.shape[0]), slice(0, pixels.shape[1])
            start = box[2 * axis]
            box[2 * axis : 2 * axis + 2] = [start + int(kept[0]), start + int(kept[-1]) + 1]
    return slice(box[0], box[1]), slice(box[2], box[3])


def _span(lines: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest value of each of the lines `(n, pixels)`, but for a letter."""
    some = lines[:, :: max(1, lines.shape[1] // _LOOKED)]
    least, most = np.percentile(some, _MARKERS, axis=1).astype(np.float32)
    return least, most


def _square(unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Padded with black to a square, the picture in its middle."""
    side = max(unit.shape)
    return np.pad(unit, [((side - n) // 2, side - n - (side - n) // 2) for n in unit.shape])


def _resized(
    unit: NDArray[np.float32], size: int, box: tuple[float, float, float, float] | None = None
) -> NDArray[np.float32]:
    """`box` (left, upper, right, lower, in pixels) of a picture as `(size, size)`, by a triangle as wide as a pixel."""
    from PIL import Image

    found = Image.fromarray(unit).resize((size, size), Image.Resampling.BILINEAR, box)
    return np.asarray(found, dtype=np.float32).clip(0, 1)
