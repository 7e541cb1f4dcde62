"""DICOM: a series of slices in a folder, or one file with many frames."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tomogen.errors import DataInvalid, InputMissing, Reason
from tomogen.formats import DEFAULT, Provenance, ReadOptions, suffixes
from tomogen.volume import Volume

if TYPE_CHECKING:
    from tomogen.formats.dicom.series import Loaded, Series

SUFFIXES = (".dcm", ".ima")
OUTPUTS = {"dicom": ""}


def recognises(path: Path) -> bool:
    """Whether the first bytes of a file look like DICOM."""
    from tomogen.formats.dicom import header

    return header.recognises(path)


def read(path: Path, options: ReadOptions = DEFAULT) -> Volume:
    """The one series in a file, or under a folder.

    Values below -1024 HU are padding and become -1024: what scanners write outside their field of view
    (-2000, -3024, ...), and what Pixel Padding Value (with its range) names, unless that lies among tissue.
    What was odd but did no harm is a Python warning.

    Raises:
        InputMissing: a folder without files, or a file that cannot be read.
        DataInvalid: no DICOM, several series, or a series that is no CT volume; the reason says why.
        DependencyMissing: the compression needs a decoder that is not installed.
    """
    return read_files(files_in(path), options)


def files_in(path: Path) -> list[Path]:
    """The file, or the files under a folder that look like DICOM.

    Raises:
        InputMissing: a folder without files.
        DataInvalid: none of them is DICOM.
    """
    files = [path]
    if path.is_dir():
        files = sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    if not files:
        raise InputMissing(f"no CT found in {path.name} (0 files)", at=path)
    if path.is_dir():
        dicom = [file for file in files if file.name.lower().endswith(SUFFIXES) or recognises(file)]
        if not dicom:
            raise DataInvalid(
                f"no DICOM among {len(files)} files", reason=Reason.NOT_DICOM, at=path, fix=_other(files, path)
            )
        files = dicom
    return files


def _other(files: Sequence[Path], folder: Path) -> str | None:
    """What to give in place of a folder without DICOM: a scan of another format that lies in it."""
    endings = tuple(set(suffixes()) - {".png", ".jpg", ".jpeg", ".gif"})  # a picture alone is no scan
    scans = [file for file in files if file.name.lower().endswith(endings)]
    if not scans:
        return f"tomogen doctor {folder}"
    more = f", one of {len(scans)} scans there" if len(scans) > 1 else ""
    return f"name the file: {scans[0]}{more}"


def read_files(files: Sequence[Path], options: ReadOptions = DEFAULT) -> Volume:
    """The one series among `files`; raises as `read`."""
    loaded = load(files, options)
    for text in loaded.warnings:
        warnings.warn(text, stacklevel=3)
    return loaded.volume


def load(files: Sequence[Path], options: ReadOptions = DEFAULT) -> "Loaded":
    """The one series among `files`, with what was odd about it and what was left out; raises as `read`."""
    from tomogen.formats.dicom import header, series

    with header.quiet():
        headers, failed = series.read_headers(files, options.max_volume)
        if not headers:
            raise failed[0][1]
        loaded = series.load(_the_one(series.group(headers, options), options, files[0].parent), options)
    if not failed:
        return loaded
    return replace(loaded, warnings=(f"{len(failed)} files left out: {failed[0][1].what}", *loaded.warnings))


def write(volume: Volume, path: Path, provenance: Provenance | None = None) -> None:
    """Write a series of CT slices into a folder."""
    from tomogen.formats.dicom import writer

    writer.write(volume, path, provenance)


def _the_one(found: Sequence["Series"], options: ReadOptions, at: Path) -> "Series":
    """The series to read.

    Raises:
        DataInvalid: none is a scan, or several are and none was chosen.
    """
    from tomogen.formats.dicom.series import chosen

    scans = [one for one in found if one.headers]
    if options.series:
        scans = [one for one in scans if chosen(one, options)]
        if not scans:
            raise DataInvalid(
                f"no CT series with that UID; {_table(found)}", reason=Reason.SEVERAL, at=at, fix="--series UID"
            )
    if not scans:
        raise found[0].refused[0].error
    if len(scans) > 1:
        raise DataInvalid(
            f"{len(scans)} CT series: {_table(scans)}", reason=Reason.SEVERAL, at=at,
            fix="--series UID, or the last part of it",
        )  # fmt: skip
    return scans[0]


def _table(found: Sequence["Series"]) -> str:
    """Each series by the last part of its UID, its slices and their size."""
    rows = []
    for one in found:
        if one.headers:
            first = one.headers[0]
            slices = sum(header.frames for header in one.headers)
            rows.append(f"{one.uid.rpartition('.')[2][-12:] or 'no UID'} ({slices} of {first.matrix})")
    return "; ".join(rows) or "there is none"
