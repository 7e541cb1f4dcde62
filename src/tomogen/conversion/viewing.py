"""A scan as one picture to look at: the verb `view`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tomogen import formats
from tomogen.errors import UsageFault
from tomogen.formats import DEFAULT, ReadOptions
from tomogen.intensity import Window, windows
from tomogen.storage import free
from tomogen.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

Style = Literal["sheet", "strip", "planes"]


@dataclass(frozen=True)
class ViewResult:
    """What was drawn."""

    out: str
    width: int
    height: int
    frames: int


def view(
    source: str | Path,
    out: str | Path,
    *,
    style: Style = "sheet",
    window: str = "full",
    overwrite: bool = False,
    options: ReadOptions = DEFAULT,
) -> ViewResult:
    """Draw the scan `source` as the picture `out`: `.png` or `.jpg` in a style, `.gif` a flight through its slices.

    A name that ends in `.dcm` gives a DICOM Secondary Capture. Several windows lie one above the other.

    Raises:
        UsageFault: `out` is there and `overwrite` is not given; no picture ends so; an unknown window or style.
        InputMissing, DataInvalid, DependencyMissing: as `formats.read` says.
    """
    from tomogen.formats import pictures

    source, out = Path(source), Path(out)
    ending = out.suffix.lower()
    if ending not in (".png", ".jpg", ".jpeg", ".gif", ".dcm"):
        raise UsageFault(f"no picture ends in {ending or 'nothing'!r}; endings: .png, .jpg, .gif, .dcm", at=out)
    shown = windows(window) or windows("full")
    free(out, overwrite, source)
    volume = formats.read(source, options)
    if ending == ".gif":
        flights = [pictures.fly_through(volume, one) for one in shown.values()]
        frames = [pictures.stacked(images) for images in zip(*flights, strict=True)]
    else:
        frames = [pictures.stacked([_draw(volume, style, one) for one in shown.values()])]
    if ending == ".dcm":
        from tomogen.formats.dicom import capture

        capture.write(frames[0], out, volume)
    else:
        pictures.save(frames, out, note=formats.origin(volume, None))
    return ViewResult(out=str(out), width=frames[0].width, height=frames[0].height, frames=len(frames))


def _draw(volume: Volume, style: str, window: Window) -> "Image":
    from tomogen.formats import pictures

    if volume.shape[0] == 1:
        return pictures.single(volume, window)
    if style == "sheet":
        return pictures.contact_sheet(volume, window)
    if style == "strip":
        return pictures.strip(volume, window)
    if style == "planes":
        return pictures.three_planes(volume, window)
    raise UsageFault(f"no such style {style!r}; styles: sheet, strip, planes")
