"""What lies under some paths: every file in exactly one finding, with a verdict and the reason for it."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tomogen import catalog, formats
from tomogen.errors import DataInvalid, DependencyMissing, InputMissing, Reason, TomogenError
from tomogen.formats import DEFAULT, ReadOptions
from tomogen.progress import Progress, silent
from tomogen.volume import Volume

if TYPE_CHECKING:
    from tomogen.formats.dicom.header import Header
    from tomogen.formats.dicom.series import Series

SYSTEM = ("thumbs.db", "desktop.ini", "ehthumbs.db")
"""Names, in small letters, of files that operating systems leave; those that begin with a dot come on top."""


@dataclass(frozen=True)
class Finding:
    """One series, or one file, and whether it would be used."""

    path: Path
    """The file, or the folder that holds the series."""
    files: tuple[Path, ...]
    format: str
    """Module of `formats`, or empty."""
    verdict: Literal["use", "refuse"]
    reason: Reason | None = None
    detail: str = ""
    """One sentence; no value that identifies anybody."""
    fix: str | None = None
    warnings: tuple[str, ...] = ()
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    """mm along (depth, height, width)."""
    modality: str = ""
    patient: str | None = field(default=None, repr=False)
    """PatientID of the header: for splitting by patient alone, written nowhere."""
    series: str | None = field(default=None, repr=False)
    """SeriesInstanceUID, likewise."""
    options: ReadOptions = DEFAULT

    def read(self) -> Volume:
        """The scan. What only its pixels tell, and does no harm, is a Python warning.

        Raises:
            DataInvalid: refused, or its pixels are damaged or no HU, which its headers did not tell.
            DependencyMissing: its compression needs a decoder that is not installed.
        """
        if self.verdict == "refuse" and self.reason is not None:
            raise DataInvalid(self.detail, reason=self.reason, at=self.path, fix=self.fix)
        if self.format == "dicom":
            from tomogen.formats import dicom

            loaded = dicom.load(self.files, self.options)
            for text in loaded.warnings:
                if text not in self.warnings:
                    warnings.warn(text, stacklevel=2)
            return loaded.volume
        volume: Volume = catalog.load("formats", self.format).read(self.path, self.options)
        return volume


def scan(
    paths: str | Path | Sequence[str | Path],
    options: ReadOptions = DEFAULT,
    progress: Progress = silent,
    *,
    deep: bool = False,
) -> list[Finding]:
    """Findings for every file under `paths`, in the order of their paths.

    Without `deep` headers decide, and `Finding.read` may still refuse what only voxels tell (masks, values
    that are no HU, damaged pixels); with `deep` every voxel is read, and the verdict is the last.

    Raises:
        InputMissing: a path that is not there.
    """
    roots = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    for root in roots:
        if not root.exists():
            raise InputMissing(f"no such file or folder{formats.near(root)}", at=root)
    closed: list[OSError] = []
    files = list(dict.fromkeys(file for root in roots for file in _files(root, closed)))
    owners = _companions(files)
    findings = [_closed(Path(error.filename), options) for error in closed]
    headers: list[Header] = []
    for number, file in enumerate(files):
        progress(number, len(files), "reading headers")
        if file not in owners:
            found = _look(file, options, headers)
            findings += [] if found is None else [found]
    unread = Counter(one.path.parent for one in findings if one.reason in _UNREADABLE and one.format in ("", "dicom"))
    findings += [_beside(one, unread) for one in _series(headers, options)]
    if owners:
        findings = [_with_companions(finding, owners) for finding in findings]
    if deep:
        findings = [result for finding in _counted(findings, progress) for result in _read_whole(finding)]
    progress(len(files), len(files), "done")
    return sorted(findings, key=lambda finding: (str(finding.path), str(finding.files[:1])))


_UNREADABLE = (Reason.NOT_DICOM, Reason.EMPTY, Reason.TRUNCATED, Reason.CORRUPT)


def _beside(finding: Finding, unread: Counter[Path]) -> Finding:
    """A series with a word on the files beside it that might have been slices: nothing shortens it silently."""
    count = unread[finding.files[0].parent]
    if finding.verdict == "refuse" or not count:
        return finding
    note = f"{count} file{'s' * (count > 1)} beside it cannot be read: slices at an end may be missing"
    return replace(finding, warnings=(*finding.warnings, note))


def _closed(folder: Path, options: ReadOptions) -> Finding:
    """A folder that cannot be entered."""
    return _refused(
        Finding(folder, (), "", "refuse", options=options), InputMissing("the folder cannot be read", at=folder)
    )


def _files(root: Path, closed: list[OSError]) -> Iterator[Path]:
    """All files under a path, by name; folders that links lead back to are entered once."""
    if not root.is_dir():
        yield root
        return
    seen = set()
    for folder, names, files in os.walk(root, followlinks=True, onerror=closed.append):
        real = os.path.realpath(folder)
        if real in seen:
            names[:] = []
            continue
        seen.add(real)
        names.sort()
        yield from (Path(folder, name) for name in sorted(files))


def _look(file: Path, options: ReadOptions, headers: "list[Header]") -> Finding | None:
    """The finding of a file on its own; None where it is a slice, whose header joins `headers`."""
    from tomogen.formats.dicom import header as dicom_header

    name = ""
    try:
        _is_file(file)
        module = formats.format_of(file)
        name = module.__name__.rpartition(".")[2]
        if name == "dicom":
            with dicom_header.quiet():
                headers.append(dicom_header.read_header(file, options.max_volume))
            return None
        declared = module.header(file, options)
        _deep_enough(declared.shape, file)
        return Finding(
            file, (file,), name, "use", shape=declared.shape, spacing=declared.spacing, modality="CT", options=options
        )
    except TomogenError as error:
        return _refused(Finding(file, (file,), name, "refuse", options=options), error)
    except Exception as error:  # one file must not end the look at all the others
        return _refused(Finding(file, (file,), name, "refuse", options=options), _unforeseen(error))


def _deep_enough(shape: Sequence[int], at: Path) -> None:
    """Raise DataInvalid for a single slice: `formats.read` takes those that models make, no one prepares them."""
    if min(shape) < 2:
        raise DataInvalid("one slice; a volume has more", reason=Reason.TOO_FEW, at=at)


def _is_file(file: Path) -> None:
    """Raise DataInvalid for what no format could be: system files, empty files, devices."""
    if file.name.startswith(".") or file.name.lower() in SYSTEM:
        raise DataInvalid("a system file", reason=Reason.NOT_CT_FILE, at=file)
    if not file.is_file():
        raise DataInvalid("no plain file", reason=Reason.NOT_CT_FILE, at=file)
    try:
        if file.stat().st_size == 0:
            raise DataInvalid("the file has no bytes", reason=Reason.EMPTY, at=file)
    except OSError:
        raise InputMissing("cannot be read", at=file) from None


def _series(headers: "Sequence[Header]", options: ReadOptions) -> Iterable[Finding]:
    from tomogen.formats.dicom import header as dicom_header
    from tomogen.formats.dicom import series as dicom_series

    with dicom_header.quiet():
        for series in dicom_series.group(headers, options):
            for refused in series.refused:
                yield _refused(_dicom(refused.headers, "refuse", options), refused.error)
            if series.headers:
                yield _planned(series, options)


def _planned(series: "Series", options: ReadOptions) -> Finding:
    from tomogen.formats.dicom import series as dicom_series

    finding = _dicom(series.headers, "use", options)
    if options.series and not dicom_series.chosen(series, options):
        error = DataInvalid("another series was chosen", reason=Reason.SEVERAL, at=series.path)
        return _refused(finding, error)
    try:
        planned = dicom_series.plan(series, options)
        _deep_enough(planned.grid.shape, series.path)
    except TomogenError as error:
        return _refused(finding, error)
    except Exception as error:  # one series must not end the look at all the others
        return _refused(finding, _unforeseen(error))
    return replace(finding, warnings=planned.warnings, shape=planned.grid.shape, spacing=planned.grid.spacing)


def _dicom(headers: "Sequence[Header]", verdict: Literal["use", "refuse"], options: ReadOptions) -> Finding:
    from tomogen.formats.dicom import series as dicom_series

    first = headers[0]
    files = tuple(header.path for header in headers)
    return Finding(
        dicom_series.place(files),
        files,
        "dicom",
        verdict,
        modality=first.modality,
        patient=next((header.patient for header in headers if header.patient), None),
        series=first.series or None,
        options=options,
    )


def _read_whole(finding: Finding) -> Iterator[Finding]:
    """The finding after its voxels were read; slices whose pixels are damaged become findings of their own."""
    if finding.verdict == "refuse":
        yield finding
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if finding.format != "dicom":
                finding.read()
                yield finding
                return
            from tomogen.formats import dicom

            loaded = dicom.load(finding.files, finding.options)
    except TomogenError as error:
        yield _refused(finding, error)
        return
    except Exception as error:
        yield _refused(finding, _unforeseen(error))
        return
    lost = {damaged.frame.header.path: damaged.error for damaged in loaded.damaged if damaged.frame.header.frames == 1}
    for path, damage in lost.items():
        yield _refused(replace(finding, path=path, files=(path,)), damage)
    yield replace(
        finding,
        files=tuple(file for file in finding.files if file not in lost),
        warnings=tuple(dict.fromkeys((*finding.warnings, *loaded.warnings))),
        shape=loaded.volume.shape,
        spacing=loaded.volume.spacing,
    )


def _refused(finding: Finding, error: TomogenError) -> Finding:
    reason = error.reason if isinstance(error, DataInvalid) else None
    if isinstance(error, DependencyMissing):
        reason = Reason.CODEC
    return replace(
        finding,
        verdict="refuse",
        reason=reason or Reason.CORRUPT,
        detail=error.what,
        fix=error.fix,
        shape=None,
        spacing=None,
        warnings=(),
    )


def _unforeseen(error: Exception) -> DataInvalid:
    """What a reader did not foresee, without its words: they may quote a header."""
    return DataInvalid(f"the reader failed ({type(error).__name__})", reason=Reason.CORRUPT)


def _companions(files: Sequence[Path]) -> dict[Path, Path]:
    """Data files that a detached header (.mhd, .nhdr) among `files` names, and that header."""
    there = set(files)
    owners: dict[Path, Path] = {}
    for header in files:
        if header.suffix.lower() in (".mhd", ".nhdr"):
            try:
                with header.open("rb") as file:
                    names = _DATA_FILE.findall(file.read(65536))
            except OSError:
                continue
            for name in names:
                data = header.parent / name.decode("utf-8", "replace").strip()
                if data in there and data != header:
                    owners.setdefault(data, header)
    return owners


_DATA_FILE = re.compile(rb"^(?:ElementDataFile\s*=|data ?file:)\s*([^\r\n]+)", re.MULTILINE | re.IGNORECASE)


def _with_companions(finding: Finding, owners: dict[Path, Path]) -> Finding:
    own = tuple(data for data, header in owners.items() if header == finding.path)
    return replace(finding, files=finding.files + own) if own else finding


def _counted(findings: list[Finding], progress: Progress) -> Iterator[Finding]:
    for number, finding in enumerate(findings):
        progress(number, len(findings), "reading voxels")
        yield finding
