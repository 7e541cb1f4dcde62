"""Views of a scan as a radiologist expects them: patient's right on the left, anterior or superior up.

Proportions are true. Functions of a Volume (or of slices `(n, height, width)` in HU) and a Window, which give 8-bit
grey Pillow images.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tomogen.intensity import FULL, WINDOWS, Window
from tomogen.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

GAP = 2
"""Black pixels between tiles."""

STRIP = 32
"""Slices of a strip, as 3D GAN papers show them."""


def single(volume: Volume, window: Window = FULL) -> "Image":
    """The middle axial slice, a pixel for a pixel."""
    shown = volume.reorient()
    return _image(shown.hu[shown.shape[0] // 2], window)


def contact_sheet(
    volume: Volume, window: Window = FULL, *, columns: int | None = None, count: int = 36, tile: int = 128
) -> "Image":
    """At most `count` axial slices evenly over the scan, from superior to inferior, each `tile` pixels wide."""
    shown = volume.reorient()
    tiles = [_scaled(shown, plane, window, tile) for plane in _axial(shown, min(count, shown.shape[0]))]
    return _legended(_tiled(tiles, columns), _legend(window, volume))


def strip(volume: Volume, window: Window = FULL, *, count: int = STRIP, tile: int = 96) -> "Image":
    """`count` axial slices in two rows, from superior to inferior; few slices are shown more than once."""
    shown = volume.reorient()
    tiles = [_scaled(shown, plane, window, tile) for plane in _axial(shown, count)]
    return _legended(_tiled(tiles, (count + 1) // 2), _legend(window, volume))


def three_planes(
    volume: Volume, window: Window = FULL, *, size: int = 256, at: Sequence[float] = (0.5, 0.5, 0.5)
) -> "Image":
    """Axial, coronal and sagittal plane side by side on one scale; the longest side of the scan is `size` pixels.

    `at` is where the planes cut, as a part of each axis (superior, posterior, left).
    """
    shown = volume.reorient()
    d, h, w = shown.spacing
    k, j, i = (min(int(part * n), n - 1) for part, n in zip(at, shown.shape, strict=True))
    scale = size / max(n * s for n, s in zip(shown.shape, shown.spacing, strict=True))
    planes = [
        (shown.hu[k], (h, w), "R"),
        (shown.hu[::-1, j], (d, w), "R"),
        (shown.hu[::-1, :, i], (d, h), "A"),
    ]
    tiles = []
    for plane, (down, across), letter in planes:
        image = _resized(_image(plane, window), plane.shape[1] * across * scale, plane.shape[0] * down * scale)
        tiles.append(_marked(image, letter))
    return _legended(_tiled(tiles, 3), _legend(window, volume))


def fly_through(volume: Volume, window: Window = FULL, *, size: int = 256) -> "list[Image]":
    """Frames of a flight through all axial slices, from superior to inferior."""
    shown, legend = volume.reorient(), _legend(window, volume)
    return [_legended(_scaled(shown, plane, window, size), legend) for plane in shown.hu[::-1]]


def grid(hu: NDArray[Any], window: Window = FULL, *, columns: int | None = None, tile: int | None = None) -> "Image":
    """Slices `(n, height, width)` in HU as tiles, a pixel for a pixel or `tile` pixels wide."""
    images = [_image(plane, window) for plane in hu]
    if tile is not None:
        images = [_resized(image, tile, tile * image.height / image.width) for image in images]
    return _tiled(images, columns)


def stacked(images: "Sequence[Image]") -> "Image":
    """Images one above the other."""
    return _tiled(images, 1)


def beside(images: "Sequence[Image]") -> "Image":
    """Images side by side."""
    return _tiled(images, len(images))


def grey(hu: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """HU as grey values: the window's low end 0, its high end 255, clipped."""
    found: NDArray[np.uint8] = np.rint((window.to_unit(hu) + 1) * 127.5).astype(np.uint8)
    return found


def _axial(shown: Volume, count: int) -> list[NDArray[Any]]:
    """The middles of `count` equal parts of the scan, the uppermost first."""
    depth = shown.shape[0]
    return [shown.hu[depth - 1 - int((n + 0.5) * depth / count)] for n in range(count)]


def _image(plane: NDArray[Any], window: Window) -> "Image":
    from PIL import Image

    return Image.fromarray(grey(plane, window))


def _scaled(shown: Volume, plane: NDArray[Any], window: Window, width: int) -> "Image":
    """An axial plane of a scan, `width` pixels wide (or high, if it is higher), in true proportions."""
    _, down, across = shown.spacing
    extent = plane.shape[0] * down, plane.shape[1] * across
    scale = width / max(extent)
    return _resized(_image(plane, window), extent[1] * scale, extent[0] * scale)


def _resized(image: "Image", width: float, height: float) -> "Image":
    from PIL import Image

    size = max(1, round(width)), max(1, round(height))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def _tiled(images: "Sequence[Image]", columns: int | None = None) -> "Image":
    """Images in rows, each cell as large as the largest, centred in it."""
    from PIL import Image

    width, height = max(image.width for image in images), max(image.height for image in images)
    if columns is None:
        # About 4 : 3.
        columns = max(1, round((len(images) * 4 / 3 * height / width) ** 0.5))
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("L", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP))
    for n, image in enumerate(images):
        left = (n % columns) * (width + GAP) + (width - image.width) // 2
        top = (n // columns) * (height + GAP) + (height - image.height) // 2
        sheet.paste(image, (left, top))
    return sheet


def _legend(window: Window, volume: Volume) -> str:
    """The window by its name, or by its ends."""
    named = [name for name, known in WINDOWS.items() if known == window]
    text = named[0] if named else "window"
    text += f" {window.low:g} to {window.high:g} HU"
    return f"{text}, synthetic" if volume.acquisition.synthetic else text


def _legended(image: "Image", text: str) -> "Image":
    """The image with a line of small text below."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=10)
    _, _, right, bottom = font.getbbox(text)
    sheet = Image.new("L", (max(image.width, int(right) + 6), image.height + int(bottom) + 4))
    sheet.paste(image, (0, 0))
    ImageDraw.Draw(sheet).text((3, image.height + 1), text, fill=170, font=font)
    return sheet


def _marked(image: "Image", letter: str) -> "Image":
    """A small letter at the middle of the left edge: which side of the patient that is."""
    from PIL import ImageDraw, ImageFont

    if min(image.size) >= 48:
        ImageDraw.Draw(image).text((3, image.height // 2 - 6), letter, fill=200, font=ImageFont.load_default(size=10))
    return image
