"""One scan as files of any formats."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tomogen import formats
from tomogen.errors import UsageFault
from tomogen.intensity import Window
from tomogen.storage import free, replacing
from tomogen.volume import Volume

_DRAWN = (".png", ".jpg", ".jpeg", ".gif", ".slices", ".jpegs")
"""Endings of what a window changes."""


@dataclass(frozen=True)
class Wanted:
    """How scans are to be written."""

    to: str = ""
    """Words of formats; empty where the output's ending tells."""
    windows: Mapping[str, Window] | None = None
    """For pictures."""
    enhanced: bool = False
    """DICOM as one file of many frames."""
    rle: bool = False
    """Compressed DICOM."""
    overwrite: bool = False


Job = tuple[Path, Window | None]
"""A file to write, and the window it is drawn in."""


def jobs(source: Path, out: Path, name: str, wanted: Wanted) -> list[Job]:
    """What is to be written of the scan `source`, called `name` where `out` is a folder.

    Raises:
        UsageFault: something is there already, or no format writes such a file.
    """
    found = list(_in_windows(_targets(out, name, wanted), wanted.windows or {}))
    for path, _ in found:
        free(path, wanted.overwrite, source)
    return found


def write(volume: Volume, todo: list[Job], rle: bool) -> tuple[str, ...]:
    """Write the files of a scan, each whole or not at all; their paths."""
    for path, window in todo:
        with replacing(path):
            _write(volume, path, window, rle)
    return tuple(str(path) for path, _ in todo)


def _targets(out: Path, name: str, wanted: Wanted) -> list[Path]:
    if wanted.to:
        endings = formats.endings(wanted.to)
        return [
            out / f"{name}{'.dcm' if wanted.enhanced and word == 'dicom' else ending}"
            for word, ending in endings.items()
        ]
    if wanted.enhanced and out.suffix.lower() != ".dcm":
        raise UsageFault("--enhanced writes one file", at=out, fix=f"a name such as {out.name}.dcm, or --to dicom")
    formats.writes(out)
    return [out]


def _in_windows(targets: list[Path], shown: Mapping[str, Window]) -> Iterator[Job]:
    """Each file with its window: pictures once in every window, all else once and in none."""
    for target in targets:
        if not shown or target.suffix.lower() not in _DRAWN:
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
