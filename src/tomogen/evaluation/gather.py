"""The scans under a path, each with the name and the patient that scores go by; none is read before it is needed."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tomogen import formats
from tomogen.cases.folder import CATALOG, CaseFolder
from tomogen.cases.scan import Finding, scan
from tomogen.cases.split import Owner, group, owner, pseudonyms, read_patients
from tomogen.errors import DataInvalid, InputMissing, Reason
from tomogen.formats import DEFAULT, ReadOptions
from tomogen.progress import Progress, silent
from tomogen.volume import Volume


@dataclass(frozen=True)
class Source:
    """One scan that can be read."""

    name: str
    """As seen from the path that was given, without the ending; for a prepared case its id."""
    patient: str
    """Pseudonym: two scans with the same one are of the same patient, as far as CSV and headers tell."""
    read: Callable[[], Volume]
    named: bool = True
    """Whether header, CSV or `prepare` say whose it is; else it counts as of a patient of its own."""
    place: str = ""
    """File or folder that it lies in; nothing of what lies nowhere."""

    @property
    def at(self) -> str:
        """What messages call it: its place, or else its name."""
        return self.place or self.name


def gather(
    path: str | Path,
    *,
    patients: str | Path | None = None,
    split: str | None = None,
    options: ReadOptions = DEFAULT,
    progress: Progress = silent,
) -> list[Source]:
    """All CT scans under a file or folder, by name; of a folder that `prepare` made its cases (of `split`, if given).

    A scan that lies there in several formats under one name counts once. Pictures that are no CT may lie beside.

    Raises:
        InputMissing: nothing is there.
        DataInvalid: nothing there is a CT; or some of it is one that cannot be used, since a score over the rest
            would be another score; or no line of the CSV of patients names a scan that is there.
    """
    path = Path(path)
    if (path / CATALOG).is_file():
        folder = CaseFolder.open(path)
        return [
            Source(case.id, case.patient, functools.partial(folder.volume, case), place=str(folder.volume_path(case)))
            for case in folder.of(split)
        ]
    findings = scan(path, options, progress)
    if not findings:
        raise InputMissing(f"no CT found in {path} (0 files)", at=path)
    usable = _once(path, [finding for finding in findings if finding.verdict == "use"])
    broken = [finding for finding in findings if finding.verdict == "refuse" and not _beside(finding)]
    if broken or not usable:
        first = (broken or findings)[0]
        count = f"; {len(broken) - 1} more are refused" if len(broken) > 1 else ""
        raise DataInvalid(
            f"{first.detail}{count}",
            reason=first.reason or Reason.NOT_CT_FILE,
            at=first.path,
            fix=first.fix or f"tomogen doctor {path}",
        )
    named = [] if patients is None else read_patients(patients, [path])
    names = _names(path, usable)
    owners = [
        owner(finding.files, finding.patient, named, voxels=name) for finding, name in zip(usable, names, strict=True)
    ]
    if patients is not None and not any(one.lines for one in owners):
        where = f"; line {named[0].line} names {_seen(named[0].path, path)}" if named else ""
        raise DataInvalid(
            f"no line of the CSV of patients names a scan in {path}{where}",
            reason=Reason.UNPAIRED,
            at=patients,
            fix="paths as seen from the CSV's folder or from that of the scans, with their endings",
        )
    found = zip(names, _patients(owners), owners, usable, strict=True)
    sources = [
        Source(name, patient, one.read, named=bool(who.names), place=str(one.path)) for name, patient, who, one in found
    ]
    return sorted(sources, key=lambda one: one.name)


def guessed(sources: Sequence[Source]) -> list[str]:
    """A sentence where nothing says whose scans are, and intervals rest on a guess."""
    count = sum(not source.named for source in sources)
    if count == 0 or len(sources) < 2:
        return []
    scans, each, name = ("scan", "it", "names") if count == 1 else ("scans", "each", "name")
    return [
        f"{count} {scans} {name} no patient, in header or CSV: {each} counts as a patient of its own; if some "
        "scans are of one patient, say so with --patients, or intervals are too narrow"
    ]


def called(path: str | Path) -> str:
    """How facts name what was scored: a folder by its last name, a file by that of its folder too.

    Files of many folders have one name, `ct.nii.gz` say; whole paths tell of people and machines.
    """
    path = Path(path).resolve()
    return path.name if path.is_dir() else f"{path.parent.name}/{path.name}".lstrip("/")


_BESIDE = (
    Reason.NOT_CT_FILE, Reason.LOCALIZER, Reason.NOT_IMAGE, Reason.MODALITY, Reason.DERIVED, Reason.MASK, Reason.EMPTY,
)  # fmt: skip
"""What may lie beside scans without being one of them."""


def _beside(finding: Finding) -> bool:
    """Whether something that is refused is no scan at all, and not a scan that cannot be used."""
    return finding.reason in _BESIDE or finding.format == "pictures"


def _once(root: Path, findings: Sequence[Finding]) -> list[Finding]:
    """Without those that lie there under the same name in another format, too."""
    kept: dict[str, str] = {}
    return [one for one in findings if kept.setdefault(_name(root, one), one.format) == one.format]


def _name(root: Path, finding: Finding) -> str:
    """The path as seen from `root`, without the ending; of `root` itself its name."""
    inside = finding.path != root and finding.path.is_relative_to(root)
    relative = finding.path.relative_to(root) if inside else Path(finding.path.resolve().name)
    return str(relative.with_name(formats.stem(relative))) if finding.path.is_file() else str(relative)


def _names(root: Path, findings: Sequence[Finding]) -> list[str]:
    """The name of each; series that share a folder are numbered in the order of their files."""
    names = [_name(root, finding) for finding in findings]
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if names.count(name) > 1:
            seen[name] = seen.get(name, 0) + 1
            names[index] = f"{name}#{seen[name]}"
    return names


def _patients(owners: Sequence[Owner]) -> list[str]:
    """A pseudonym for each: scans are of one patient if CSV or header say so, each of its own otherwise."""
    groups = group(owners)
    called = [""] * len(owners)
    for pseudonym, members in zip(pseudonyms(len(groups)), groups, strict=True):
        for member in members:
            called[member] = pseudonym
    return called


def _seen(place: Path, root: Path) -> str:
    """A place as seen from the folder of the scans, if it lies there."""
    folder = root.resolve()
    return str(place.relative_to(folder)) if place.is_relative_to(folder) else str(place)
