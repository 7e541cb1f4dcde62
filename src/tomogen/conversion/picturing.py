"""Scans of any number to a set of pictures: a picture of every slice in every window, and a CSV that tells which.

A slice is blank when the body, found as `prepare` finds it, fills less than 1 % of it. On seven public chests the body
fills 29 to 70 % of every slice; of their slices with the patient taken away and table and clothes left none of 337
was kept, where tissue alone (above -500 HU) would have kept 226.

One scan is in memory at a time. Pictures are drawn under numbers; once all scans were read, patients are numbered by
their voxels, exactly as `prepare` numbers them, and the pictures renamed. The set appears whole or not at all.
"""

import re
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tomogen.cases.doctor import STRANGERS
from tomogen.cases.prepare import Refusal
from tomogen.cases.scan import Finding, scan
from tomogen.cases.split import Named, group, owner, pseudonyms, read_patients
from tomogen.cases.steps import find_body, only, slices_with_body, upright
from tomogen.cases.work import Terminated, digest, quiet, stoppable
from tomogen.conversion.recovery import is_set
from tomogen.conversion.result import FAILED, ConvertResult, write_failed
from tomogen.errors import DataInvalid, InputMissing, Interrupted, Reason, TomogenError, UsageFault
from tomogen.formats import ReadOptions
from tomogen.formats.pictures import slices, table
from tomogen.formats.pictures.merge import RINGING, ROUNDING, Scale, accuracy
from tomogen.formats.pictures.table import Drawn, numbered
from tomogen.intensity import HU_FLOOR, Window
from tomogen.progress import Progress
from tomogen.storage import replacing, whole
from tomogen.volume import Volume

EXACT = "hu"
"""Folder of the pictures that are 16-bit and exact."""

_PICTURE = re.compile(r"patient-\d{4,}-scan-\d{2,}-\d{4,}\.(png|jpg)")
"""Names of pictures in a set, which may be replaced."""


@dataclass(frozen=True)
class Drawing:
    """How a set is drawn."""

    kind: str
    """png or jpg."""
    windows: dict[str, Window]
    """None: 16-bit and exact."""
    skip_blank: bool = False
    patients: str | Path | None = None
    """CSV of whose scans are whose."""
    overwrite: bool = False

    @property
    def views(self) -> list[tuple[str, Window | None, Scale]]:
        """Folder, window and scale of each picture of a slice."""
        slack = RINGING if self.kind == "jpg" else ROUNDING
        if not self.windows:
            return [(EXACT, None, Scale(Window(HU_FLOOR, HU_FLOOR + 65535), 65535))]
        return [(_folder(name), window, Scale(window, 255, slack)) for name, window in self.windows.items()]


@dataclass(frozen=True)
class _Taken:
    """A scan that was read: what is kept of it once its voxels are gone."""

    number: int
    """Under which its pictures were drawn."""
    finding: Finding
    voxels: str
    drawn: Drawn | None
    """None where another scan holds the same voxels."""


def refuse(source: Path, out: Path, drawing: Drawing) -> None:
    """Raise if the set cannot be drawn, as far as is known before anything is read.

    Raises:
        UsageFault: something is there that may not be replaced; JPEG without a window; pictures of pictures.
    """
    if drawing.kind == "jpg" and not drawing.windows:
        raise UsageFault(
            "JPEG holds 8 bits of a window", fix="--window lung,mediastinum, or --to png: 16-bit and exact"
        )
    if is_set(source):
        raise UsageFault("this is a set of pictures already", at=source, fix="first --to nii, then --to png")
    if source.resolve().is_relative_to(out.resolve()):
        raise UsageFault("the scans lie in the output folder", at=source, fix="another output folder")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not drawing.overwrite:
        raise UsageFault("the output is there already", at=out, fix="--overwrite, or another name")
    if not _ours(out):
        raise UsageFault("the output holds more than pictures that we made", at=out, fix="another name")


def picture(source: Path, out: Path, drawing: Drawing, options: ReadOptions, progress: Progress) -> ConvertResult:
    """Draw every scan under `source` into the folder `out`; as `convert` says."""
    named = [] if drawing.patients is None else read_patients(drawing.patients, [source])
    with quiet():
        findings = [one for one in scan(source, options, progress) if not _inside(one.path, out)]
    usable = [one for one in findings if one.verdict == "use"]
    if not usable:
        raise _nothing(source, findings)
    refused = [_refusal(one, one.reason, one.detail, one.fix) for one in findings if one.verdict != "use"]
    new = out.with_name(f"{out.name}.new") if out.is_dir() and any(out.iterdir()) else out
    work = _Work(drawing, refused)
    try:
        with stoppable(), whole(new) as partial:
            for folder, _, _ in drawing.views:
                (partial / folder).mkdir(parents=True)
            taken = work.draw_all(usable, partial, progress)
            if not taken:
                raise _all_failed(refused, source)
            drawn = _pseudonymous(taken, named)
            for number, one in drawn:
                _rename(partial, number, one, drawing)
            table.write(partial / table.NAME, ((one, _patterns(one, drawing)) for _, one in drawn))
            write_failed(partial / FAILED, [one for one in refused if one.failed])
    except KeyboardInterrupt as stop:
        number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        raise Interrupted("stopped; nothing of the set was kept", signal=number, at=out) from None
    if new != out:
        with replacing(out):
            new.rename(out)
    scans = [one for _, one in drawn]
    failed = tuple(one for one in refused if one.failed)
    if failed:
        work.warnings.append(f"{out / FAILED} names scans by their paths: leave it out when you hand the set on")
    return ConvertResult(
        files=(str(out / table.NAME),),
        scans=len(scans),
        patients=len({one.patient for one in scans}),
        pictures=sum(len(one.slices) for one in scans) * len(drawing.views),
        slices=sum(len(one.slices) for one in scans),
        blank=sum(one.shape[0] - len(one.slices) for one in scans),
        copies=len(taken) - len(scans),
        accuracy=accuracy([scale for _, _, scale in drawing.views]),
        refused=tuple(one for one in refused if not one.failed),
        failed=failed,
        warnings=tuple(work.warnings),
    )


@dataclass
class _Work:
    """The way through all scans, and what is to be told of it."""

    drawing: Drawing
    refused: list[Refusal]
    warnings: list[str] = field(default_factory=list)

    def draw_all(self, usable: Sequence[Finding], folder: Path, progress: Progress) -> list[_Taken]:
        """Draw the scans one by one; those that fail join `refused`."""
        taken: list[_Taken] = []
        seen: set[str] = set()
        total = sum(one.shape[0] if one.shape else 1 for one in usable)
        done = 0
        # As `prepare` has it: of two scans with equal voxels the DICOM series stays.
        for number, finding in enumerate(sorted(usable, key=lambda one: one.format != "dicom"), start=1):
            progress(done, total, f"slices, scan {number} of {len(usable)}")
            done += finding.shape[0] if finding.shape else 1
            try:
                with quiet():
                    volume, odd = _read(finding)
                    voxels = digest(volume)
                    drawn = None if voxels in seen else self._draw(volume, folder, number, finding)
            except TomogenError as error:
                reason = error.reason if isinstance(error, DataInvalid) else None
                self.refused.append(_refusal(finding, reason, error.what, error.fix))
                continue
            except MemoryError:
                self.refused.append(_refusal(finding, None, "the memory is too small for this scan", None))
                continue
            seen.add(voxels)
            taken.append(_Taken(number, finding, voxels, drawn))
            self.warnings += [f"{finding.path}: {text}" for text in dict.fromkeys((*finding.warnings, *odd))]
        if len(taken) == len(usable):
            progress(total, total, "slices drawn")
        elif taken:
            progress(total, total, f"slices tried, {len(taken)} of {len(usable)} scans drawn")
        return taken

    def _draw(self, volume: Volume, folder: Path, number: int, finding: Finding) -> Drawn:
        """Draw a scan under its number.

        Raises:
            DataInvalid: blank slices are left out, and all are.
        """
        shown = upright(volume)
        kept = list(range(shown.shape[0]))
        if self.drawing.skip_blank:
            kept = slices_with_body(only(shown, find_body(shown)))
            if not kept:
                raise DataInvalid("every slice is blank", reason=Reason.TOO_SMALL, at=finding.path)
        for name, window, _ in self.drawing.views:
            text = slices.told(shown, window, None, at=finding.path)
            for k in kept:
                path = folder / name / f"{number}-{numbered(k, shown.shape[0])}.{self.drawing.kind}"
                slices.save(shown.hu[k], path, window, text | {"slice": k})
        return Drawn(str(number), "", shown.shape, shown.affine, shown.acquisition.synthetic, tuple(kept))


def _read(finding: Finding) -> tuple[Volume, tuple[str, ...]]:
    """A scan, and what was odd."""
    if finding.format != "dicom":
        return finding.read(), ()
    from tomogen.formats import dicom

    loaded = dicom.load(finding.files, finding.options)
    return loaded.volume, loaded.warnings


def _pseudonymous(taken: Sequence[_Taken], named: Sequence[Named]) -> list[tuple[int, Drawn]]:
    """The scans by patient, under the names that they go by, each with the number it was drawn under."""
    owners = [owner(one.finding.files, one.finding.patient, named, one.voxels) for one in taken]
    groups = group(owners)
    found = []
    for members, patient in zip(groups, pseudonyms(len(groups)), strict=True):
        mine = sorted((one for one in (taken[index] for index in members) if one.drawn), key=lambda one: one.voxels)
        for count, one in enumerate(mine, start=1):
            assert one.drawn is not None
            found.append((one.number, replace(one.drawn, name=f"{patient}-scan-{count:02d}", patient=patient)))
    return found


def _rename(folder: Path, number: int, drawn: Drawn, drawing: Drawing) -> None:
    for name, _, _ in drawing.views:
        for k in drawn.slices:
            digits = f"{numbered(k, drawn.shape[0])}.{drawing.kind}"
            (folder / name / f"{number}-{digits}").rename(folder / name / f"{drawn.name}-{digits}")


def _patterns(drawn: Drawn, drawing: Drawing) -> list[tuple[str, Scale, str]]:
    return [(name, scale, f"{name}/{drawn.name}-{{}}.{drawing.kind}") for name, _, scale in drawing.views]


def _folder(name: str) -> str:
    """What the folder of a window is called: never with a dash in front, which shells take for a flag."""
    return f"hu_{name}" if ".." in name else name


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _ours(out: Path) -> bool:
    """Whether a folder holds a set of pictures of ours and nothing else."""
    if not is_set(out):
        return False
    entries = [entry for entry in out.iterdir() if entry.name not in (table.NAME, FAILED)]
    return all(entry.is_dir() and all(_PICTURE.fullmatch(file.name) for file in entry.iterdir()) for entry in entries)


def _refusal(finding: Finding, reason: Reason | None, detail: str, fix: str | None) -> Refusal:
    # As `doctor` has it: what is something else than CT is no fault; nor is a series that --series left aside.
    failed = reason not in STRANGERS and reason is not Reason.SEVERAL and finding.format != "pictures"
    return Refusal(str(finding.path), str(reason or "unreadable"), detail, fix, failed)


def _nothing(source: Path, findings: Sequence[Finding]) -> TomogenError:
    """Nothing under `source` is a scan."""
    if not findings:
        return InputMissing(f"no CT found in {source.name} (0 files)", at=source)
    first = findings[0]
    reason = first.reason or Reason.NOT_CT_FILE
    if len(findings) == 1:
        return DataInvalid(first.detail, reason=reason, at=first.path, fix=first.fix)
    tally = Counter(str(one.reason) for one in findings).most_common(5)
    what = ", ".join(f"{count} {word}" for word, count in tally)
    return DataInvalid(f"no CT found: {what}", reason=reason, at=source, fix=f"tomogen doctor {source}")


def _all_failed(refused: Sequence[Refusal], source: Path) -> DataInvalid:
    """Every scan under `source` failed; the last says why."""
    last = refused[-1]
    what = last.detail if len(refused) == 1 else f"none of {len(refused)} scans and files could be drawn: {last.detail}"
    reason = Reason(last.reason) if last.reason in list(Reason) else Reason.CORRUPT
    return DataInvalid(what, reason=reason, at=last.path, fix=last.fix)
