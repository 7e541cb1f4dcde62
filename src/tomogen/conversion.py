"""A scan in another shape: another format, or a picture to look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tomogen import formats
from tomogen.errors import UsageFault
from tomogen.formats import DEFAULT, ReadOptions
from tomogen.intensity import WINDOWS, Window
from tomogen.storage import free, replacing
from tomogen.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

Style = Literal["sheet", "strip", "planes"]

_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".slices", ".jpegs")


@dataclass(frozen=True)
class ConvertResult:
    """What was read and what was written."""

    files: tuple[str, ...]
    """Paths of the files, and of folders of slices."""
    shape: tuple[int, int, int]
    """Voxels along (depth, height, width)."""
    spacing: tuple[float, float, float]
    """mm along (depth, height, width)."""
    orientation: str
    """Patient direction nearest to each axis."""
    hu: tuple[float, float]
    """Lowest and highest value."""


@dataclass(frozen=True)
class ViewResult:
    """What was drawn."""

    out: str
    width: int
    height: int
    frames: int


def convert(
    source: str | Path,
    out: str | Path,
    *,
    to: str = "",
    window: str = "",
    enhanced: bool = False,
    rle: bool = False,
    overwrite: bool = False,
    options: ReadOptions = DEFAULT,
) -> ConvertResult:
    """Write the scan `source` in other formats: HU and the place of every voxel are kept, except in pictures.

    With `to`, words such as `dicom,nii,nrrd,mha,png,slices`, `out` is a folder and each file is named for the
    source; without, the ending of `out` tells the format (none: a DICOM series). `window` (`lung,bone`, or
    `-1000..400`) is for pictures, one for each window; `slices` are exact without it. `enhanced` makes DICOM one
    file of many frames, `rle` compresses DICOM without loss.

    Raises:
        UsageFault: an output is there and `overwrite` is not given; an unknown format or window.
        InputMissing, DataInvalid, DependencyMissing: as `formats.read` says.
    """
    source, out = Path(source), Path(out)
    jobs = list(_jobs(_targets(source, out, to, enhanced), windows(window)))
    for path, _ in jobs:
        free(path, overwrite, source)
    volume = formats.read(source, options)
    for path, one in jobs:
        with replacing(path):
            _write(volume, path, one, rle)
    return ConvertResult(
        files=tuple(str(path) for path, _ in jobs),
        shape=volume.shape,
        spacing=volume.spacing,
        orientation=volume.orientation,
        hu=(float(volume.hu.min()), float(volume.hu.max())),
    )


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


def windows(words: str) -> dict[str, Window]:
    """Windows by name from `lung,bone` or `-1000..400`, in that order.

    Raises:
        UsageFault: no such window; the message lists those that there are.
    """
    found: dict[str, Window] = {}
    for word in (part.strip().lower() for part in words.split(",") if part.strip()):
        low, dots, high = word.partition("..")
        try:
            found[word] = Window(float(low), float(high)) if dots else WINDOWS[word]
        except (LookupError, ValueError):
            known = ", ".join(WINDOWS)
            raise UsageFault(f"no such window {word!r}; windows: {known}, or LOW..HIGH in HU") from None
    return found


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


def _targets(source: Path, out: Path, to: str, enhanced: bool) -> list[Path]:
    if to:
        name, endings = formats.stem(source), formats.endings(to)
        return [out / f"{name}{'.dcm' if enhanced and word == 'dicom' else ending}" for word, ending in endings.items()]
    if enhanced and out.suffix.lower() != ".dcm":
        raise UsageFault("--enhanced writes one file", at=out, fix=f"a name such as {out.name}.dcm, or --to dicom")
    formats.writes(out)
    return [out]


def _jobs(targets: list[Path], shown: dict[str, Window]) -> Iterator[tuple[Path, Window | None]]:
    """Each file with its window: pictures once in every window, all else once and in none."""
    for target in targets:
        if not shown or target.suffix.lower() not in _PICTURES:
            yield target, None
        elif len(shown) == 1:
            yield target, next(iter(shown.values()))
        else:
            for name, window in shown.items():
                yield target.with_name(f"{target.stem}-{name}{target.suffix}"), window


def _write(volume: Volume, path: Path, window: Window | None, rle: bool) -> None:
    from tomogen.formats import pictures
    from tomogen.formats.dicom import writer

    if window is not None:
        pictures.draw(volume, path, window)
    elif path.name.lower().endswith(formats.suffixes()) and path.suffix.lower() not in (".dcm", ".ima"):
        formats.write(volume, path)
    else:
        writer.write(volume, path, rle=rle)
