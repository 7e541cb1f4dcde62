"""Pictures: slices as PNG or JPEG, and views of a whole scan.

A folder `NAME.slices` holds one 16-bit PNG a slice, exact: HU plus an offset, with its place in a text chunk. All
else is lossy (`LOSSY`): 8-bit grey values of a window. A folder with `pictures.csv` tells of itself what its pictures
are, and is read as it stands. Others must be explained: `--window-of` tells which HU the grey values span.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tomogen import storage
from tomogen.errors import DataInvalid, Reason
from tomogen.formats import DEFAULT, Header, Provenance, ReadOptions, origin
from tomogen.formats.pictures.views import contact_sheet, fly_through, grid, single, stacked, strip, three_planes
from tomogen.intensity import FULL, Window
from tomogen.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["contact_sheet", "fly_through", "grid", "single", "stacked", "strip", "three_planes"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".slices", ".jpegs")
OUTPUTS = {"png": ".png", "jpg": ".jpg", "gif": ".gif", "slices": ".slices", "jpegs": ".jpegs"}
LOSSY = frozenset({"png", "jpg", "gif", "jpegs"})
"""Words of `OUTPUTS` whose files do not give the HU back."""

FRAME_MS = 80
"""Time of one slice in a fly-through."""


def recognises(path: Path) -> bool:
    """Whether a folder holds a `pictures.csv`, or nothing but pictures of slices."""
    from tomogen.formats.pictures import table

    if not path.is_dir():
        return False
    if (path / table.NAME).is_file():
        return True
    files = [file for file in path.iterdir() if not file.name.startswith(".")]
    return bool(files) and all(file.name.lower().endswith((".png", ".jpg", ".jpeg")) for file in files)


def header(path: Path, options: ReadOptions = DEFAULT) -> Header:
    """Shape and affine of a picture, or of a folder of pictures, no pixel read.

    Raises:
        DataInvalid: no grey picture, no HU (`--window-of`), no geometry (`--spacing`, `--axes`).
    """
    return _reader(path).header(path, options)


def read(path: Path, options: ReadOptions = DEFAULT) -> Volume:
    """The scan in a folder of slices, in a set with `pictures.csv` (`--series` names one), or in one picture (depth 1).

    Raises:
        DataInvalid: as `header` says; damaged pictures; slices that do not belong together; several scans.
    """
    return _reader(path).read(path, options)


def _reader(path: Path) -> "_Reader":
    """What reads a folder with a CSV, or else slices."""
    from tomogen.formats.pictures import scans, slices, table

    return scans if (path / table.NAME).is_file() else slices


class _Reader(Protocol):
    def header(self, path: Path, options: ReadOptions) -> Header: ...

    def read(self, path: Path, options: ReadOptions) -> Volume: ...


def write(volume: Volume, path: Path, provenance: Provenance | None = None) -> None:
    """Write what the ending names: `.slices` exactly, all else in the full window (see `draw`)."""
    draw(volume, path, None if path.suffix.lower() == ".slices" else FULL, provenance)


def draw(volume: Volume, path: Path, window: Window | None, provenance: Provenance | None = None) -> None:
    """Write slices (`.slices`, `.jpegs`), a fly-through (`.gif`) or a contact sheet in a window.

    A slice (depth 1) is drawn as it is. Without a window `.slices` are 16-bit and exact.
    """
    from tomogen.formats.pictures import slices

    ending = path.suffix.lower()
    if ending in (".slices", ".jpegs"):
        slices.write(volume, path, provenance, window)
        return
    window = window or FULL
    if ending == ".gif":
        frames = fly_through(volume, window)
    else:
        frames = [contact_sheet(volume, window) if volume.shape[0] > 1 else single(volume, window)]
    save(frames, path, origin(volume, provenance))


def save(frames: "Sequence[Image]", path: Path, note: str = "") -> None:
    """Write a picture, or several as an animation, whole or not at all; `note` goes into its text.

    Raises:
        DataInvalid: no picture ends so.
    """
    from tomogen.formats.pictures import slices

    kind = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".gif": "GIF"}.get(path.suffix.lower())
    if kind is None:
        raise DataInvalid(f"no picture ends in {path.suffix!r}", reason=Reason.NOT_CT_FILE, at=path)
    more: dict[str, Any] = {}
    if kind == "GIF":
        # 64 grey levels: noise below 4 of 256 is not seen in motion, and takes half of the bytes.
        frames = [frame.point(lambda value: value & 0xFC) for frame in frames]
        more = {"save_all": True, "append_images": frames[1:], "duration": FRAME_MS, "loop": 0}
    with storage.whole(path) as partial:
        frames[0].save(partial, kind, **more, **slices.comment(kind, note))
