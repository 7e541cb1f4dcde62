"""Radiographs as files: DICOM, known by its content, PNG and JPEG, known by their endings."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tomogen import formats
from tomogen.errors import DataInvalid, InputMissing, Reason, TomogenError, UsageFault
from tomogen.formats.dicom import projection as of_dicom
from tomogen.formats.dicom import recognises
from tomogen.formats.pictures import projection as of_picture
from tomogen.radiography.radiograph import KINDS, Radiograph

LEAST = 32
"""Pixels along the shorter side."""

_PASSED = (".csv", ".json", ".md", ".txt", ".html", ".pdf", ".xml", ".toml", ".py", "")
"""Endings of files that lie beside radiographs and are passed over, unless they are DICOM."""


@dataclass(frozen=True)
class Found:
    """The radiographs in a folder, by their names in it, and what was refused."""

    radiographs: tuple[tuple[str, Radiograph], ...]
    refused: tuple[tuple[str, TomogenError], ...]


def read(path: str | Path, view: str | None = None) -> Radiograph:
    """The radiograph of a chest in a file, hung as on a viewing box, bone bright.

    `view` (of `KINDS`) goes before what the file says of itself, which PNG and JPEG do not.

    Raises:
        InputMissing: there is nothing at `path`, or it cannot be read.
        DataInvalid: it is no radiograph of a chest, or damaged; the reason says why.
        DependencyMissing: its compression needs a decoder that is not installed.
        UsageFault: no such view.
    """
    path = Path(path)
    if view is not None and view not in KINDS:
        raise UsageFault(f"no such view {view!r}; views: {', '.join(KINDS)}")
    if not path.exists():
        raise InputMissing(f"no such radiograph{formats.near(path)}", at=path)
    if path.is_dir():
        raise DataInvalid("a folder where one radiograph belongs", reason=Reason.SEVERAL, at=path, fix="name the file")
    found = _read(path, view)
    if min(found.pixels.shape) < LEAST:
        size = " x ".join(map(str, found.pixels.shape))
        raise DataInvalid(
            f"{size} pixels; a radiograph has {LEAST} at least",
            reason=Reason.TOO_SMALL,
            at=path,
            fix="a larger picture",
        )
    return found


def read_folder(path: str | Path) -> Found:
    """All radiographs under a folder, or the one in a file, in the order of their names.

    Raises:
        InputMissing: there is no such folder.
    """
    radiographs: list[tuple[str, Radiograph]] = []
    refused: list[tuple[str, TomogenError]] = []
    for name, found in each(Path(path)):
        if isinstance(found, Radiograph):
            radiographs.append((name, found))
        else:
            refused.append((name, found))
    return Found(tuple(radiographs), tuple(refused))


def each(path: Path, views: "dict[str, str] | None" = None) -> Iterator[tuple[str, Radiograph | TomogenError]]:
    """The radiographs under a folder one after the other, or why a file is none; `views` by name in the folder.

    Raises:
        InputMissing: there is no such folder.
    """
    if not path.exists():
        raise InputMissing(f"no such folder of radiographs{formats.near(path)}", at=path)
    root = path if path.is_dir() else path.parent
    for file in sorted(_files(path)):
        name = file.relative_to(root).as_posix()
        try:
            yield name, read(file, (views or {}).get(name))
        except TomogenError as error:
            yield name, error


def _files(path: Path) -> Iterator[Path]:
    """Files that may be radiographs."""
    listed = [path]
    if path.is_dir():
        listed = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    for file in listed:
        if not file.name.startswith(".") and (file.suffix.lower() not in _PASSED or recognises(file)):
            yield file


def _read(path: Path, view: str | None) -> Radiograph:
    name = path.name.lower()
    if name.endswith(of_picture.SUFFIXES):
        return of_picture.read(path, view)
    if recognises(path) or name.endswith((".dcm", ".ima")):
        return of_dicom.read(path, view)
    if name.endswith(formats.suffixes()):
        raise DataInvalid(
            "a CT given where a radiograph belongs",
            reason=Reason.MODALITY,
            at=path,
            fix="tomogen xray makes radiographs",
        )
    raise DataInvalid(
        f"no radiograph is read from {path.suffix or 'a name without a suffix'}; DICOM, PNG or JPEG expected",
        reason=Reason.NOT_CT_FILE,
        at=path,
        fix="tomogen xray --format png or dicom" if path.suffix == ".npy" else "save it as a grey PNG",
    )
