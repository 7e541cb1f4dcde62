"""Scans as pictures: three planes in named windows, and maps of the difference between two scans.

Patient's right on the left of axial and coronal planes, anterior on the left of sagittal ones; proportions are true.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.evaluation.evidence import Shown
from tomogen.formats.pictures.views import grey
from tomogen.intensity import FULL, HU_FLOOR, MEDIASTINUM, WINDOWS, Window
from tomogen.reporting.parts import Figure, Picture, Scale, png
from tomogen.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE = 256
"""Pixels of a scan's longest side."""
MAP = "RdBu_r"
"""Blue, white, red: apart for every common kind of colour vision, and white on paper where nothing differs."""
_NO_NUMBER = 255
"""Palette entry of what is not finite: grey."""


class View(NamedTuple):
    """A plane, the window it is shown in, and the HU at both ends of its difference map."""

    plane: str
    window: Window
    difference: float


VIEWS = (
    View("axial", FULL, 250),
    View("coronal", FULL, 250),
    View("sagittal", FULL, 250),
    View("axial", MEDIASTINUM, 50),
)
"""The same in every report, so that pages can be laid side by side."""

DIRECTIONS = "Patient's right on the left; in sagittal planes anterior on the left."


def compared(shown: Shown) -> Figure:
    """Truth, what was made, what it was made from, and the difference, plane by plane.

    Raises:
        ValueError: truth and what was made have unlike shapes.
    """
    if shown.truth.shape != shown.made.shape:
        raise ValueError(f"{shown.case}: truth {shown.truth.shape} and made {shown.made.shape} have unlike shapes")
    scans = {"truth": shown.truth.reorient(), "made": shown.made.reorient()}
    if shown.source is not None:
        scans["input"] = shown.source.reorient()
    views = [view for view in VIEWS if view.plane == "axial" or scans["truth"].shape[0] > 1]
    rows = []
    for view in views:
        row = [_grey(scan, view, f"{shown.case}, {name}") for name, scan in scans.items()]
        alt = f"{shown.case}, made minus truth, {view.plane}, blue -{view.difference:g} to red {view.difference:g} HU"
        row.append(png(_difference(scans["truth"], scans["made"], view), alt))
        rows.append(row)
    limits = sorted({view.difference for view in views}, reverse=True)
    return Figure(
        title=f"Case {shown.case}",
        caption=(
            "Middle planes of the truth's grid. "
            + DIRECTIONS
            + " Differences are made minus truth in HU: red where what was made is too dense, white where they agree; "
            "what lies beyond the ends has the colour of the end."
        ),
        pictures=rows,
        columns=[*scans, "made − truth"],
        rows=[f"{_named(view)}; difference ±{view.difference:g} HU" for view in views],
        scales=[_scale(limit) for limit in limits],
    )


def side_by_side(title: str, scans: Sequence[Volume], names: Sequence[str], what: str) -> Figure:
    """Scans as columns, plane by plane; `what` says in the caption what they are."""
    turned = [scan.reorient() for scan in scans]
    views = [view for view in VIEWS if view.plane == "axial" or any(scan.shape[0] > 1 for scan in turned)]
    return Figure(
        title=title,
        caption=f"{what} Middle planes. {DIRECTIONS}",
        pictures=[[_grey(scan, view, name) for scan, name in zip(turned, names, strict=True)] for view in views],
        columns=names,
        rows=[_named(view) for view in views],
    )


def _named(view: View) -> str:
    name = next(name for name, window in WINDOWS.items() if window == view.window)
    return f"{view.plane}, {name} window {_signed(view.window.low)} to {_signed(view.window.high)} HU"


def _signed(hu: float) -> str:
    return f"{hu:g}".replace("-", "−")


def _cut(scan: Volume, plane: str) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """The middle plane (down, across) of a scan in standard orientation, and its pixel size in mm."""
    (depth, height, width), (d, h, w) = scan.shape, scan.spacing
    if plane == "axial":
        return scan.hu[depth // 2].astype(np.float32), (h, w)
    if plane == "coronal":
        return scan.hu[::-1, height // 2].astype(np.float32), (d, w)
    return scan.hu[::-1, :, width // 2].astype(np.float32), (d, h)


def _resized(hu: NDArray[np.float32], pixel: tuple[float, float], scan: Volume) -> NDArray[np.float32]:
    """HU at the size of the page; linear, so that no value arises that was not between its neighbours'."""
    from PIL import Image

    scale = SIZE / max(n * mm for n, mm in zip(scan.shape, scan.spacing, strict=True))
    size = [max(1, round(n * mm * scale)) for n, mm in zip(hu.shape, pixel, strict=True)]
    image = Image.fromarray(np.ascontiguousarray(hu)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    resized: NDArray[np.float32] = np.asarray(image)
    return resized


def _grey(scan: Volume, view: View, name: str) -> Picture | None:
    from PIL import Image

    if scan.shape[0] == 1 and view.plane != "axial":
        return None
    hu, pixel = _cut(scan, view.plane)
    shown = _resized(np.nan_to_num(hu, nan=HU_FLOOR), pixel, scan)
    return png(Image.fromarray(grey(shown, view.window)), f"{name}, {_named(view)}")


def _difference(truth: Volume, made: Volume, view: View) -> "Image":
    """Made minus truth as a picture of 255 colours, zero in the middle; grey where there is no number."""
    from PIL import Image

    (true, pixel), (other, _) = _cut(truth, view.plane), _cut(made, view.plane)
    with np.errstate(invalid="ignore"):
        hu = _resized(other - true, pixel, truth)
    known = np.isfinite(hu)
    parts = np.clip(np.where(known, hu, 0) / view.difference, -1, 1)
    image = Image.fromarray(np.where(known, np.rint((parts + 1) * 127), _NO_NUMBER).astype(np.uint8))
    image.putpalette(_palette())
    return image


def _palette() -> list[int]:
    from matplotlib import colormaps

    colours = np.rint(colormaps[MAP](np.linspace(0, 1, 255))[:, :3] * 255).astype(int)
    return [*colours.ravel().tolist(), 128, 128, 128]


def _scale(limit: float) -> Scale:
    from PIL import Image

    image = Image.fromarray(np.tile(np.arange(255, dtype=np.uint8), (8, 1)))
    image.putpalette(_palette())
    bar = png(image, f"Colour bar from blue at -{limit:g} HU over white at 0 to red at {limit:g} HU")
    return Scale(bar, (f"−{limit:g}", "0", f"+{limit:g} HU"), f"made − truth, ±{limit:g} HU")
