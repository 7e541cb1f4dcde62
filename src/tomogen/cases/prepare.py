"""Scans in any folders and formats -> a folder of prepared cases, in parallel and able to go on after a kill.

Scans are prepared one by one, by any number of workers, shards and attempts, each leaving a record that names nobody.
Who is whose patient is settled last, by the one process that finds all records there: it reads names from CSV and
headers once more, joins scans by name and by equal voxels, numbers patients by their voxels, draws the split and
writes the catalog. So shards need not agree on anything, and every way of working ends in the same bytes.
"""

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tomogen.cases import journal
from tomogen.cases.folder import SPLITS, VOLUMES, Case, CaseFolder, write_catalog, write_json, write_whole
from tomogen.cases.journal import FAILED, Record
from tomogen.cases.pairs.layout import pair_up
from tomogen.cases.pairs.pair import Pair
from tomogen.cases.preparation import Fit, Preparation
from tomogen.cases.radiographs import prepare_radiographs, refuse_none
from tomogen.cases.scan import Finding, scan
from tomogen.cases.split import Named, check_fractions, group, owner, pseudonyms, read_patients, split_patients
from tomogen.cases.work import Executor, Task, Terminated, local, quiet, stoppable, work
from tomogen.errors import DataInvalid, InputMissing, Interrupted, OutOfSpace, Reason, TomogenError, UsageFault
from tomogen.formats import DEFAULT, ReadOptions
from tomogen.progress import Progress, silent


@dataclass(frozen=True)
class Refusal:
    """A scan or file that gave no case, and why."""

    path: str
    reason: str
    detail: str
    fix: str | None
    failed: bool
    """Whether it should have given one: damaged, not merely something else than CT."""


@dataclass(frozen=True)
class PrepareResult:
    """What `prepare` did."""

    folder: Path
    complete: bool
    """Whether the catalog is written; False for a shard while others are at work."""
    scans: int
    """Scans that gave cases; where cases are pairs, pairs."""
    cases: int
    patients: int
    splits: dict[str, int]
    """Cases in train, val and test."""
    spacing: tuple[float, float, float] | None
    """Median in mm along (depth, height, width)."""
    kept: int
    """Scans that an earlier run had prepared."""
    copies: int
    """Scans left out because another holds the same voxels."""
    refused: tuple[Refusal, ...]
    failed: tuple[Refusal, ...]
    warnings: tuple[str, ...]
    pairs: bool = False
    """Whether cases are pairs of a source and a target."""
    registered: int = 0
    """Pairs whose target was moved onto the source."""
    radiographs: int = 0
    """Real radiographs that were stored beside the cases."""


def prepare(
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    shape: tuple[int, int, int] | None = None,
    spacing: tuple[float, float, float] | float | None = None,
    slab: int | None = None,
    window: tuple[float, float] | None = None,
    fit: Fit = "contain",
    body_mask: bool = True,
    patients: str | Path | None = None,
    pairs: str | Path | None = None,
    register: bool = False,
    radiographs: str | Path | None = None,
    split: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    workers: int | None = None,
    shard: str | None = None,
    overwrite: bool = False,
    options: ReadOptions = DEFAULT,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> PrepareResult:
    """Prepare every CT scan under `sources` (files, folders, any format) as cases in the folder `out`.

    With `shape` alone the body fills the grid at one spacing per scan, proportions kept; `fit="stretch"` scales
    each axis by itself. With `spacing` too, cases are cut out about the middle of the body; with `spacing` alone
    they are as large as the body; with neither they keep the scan's voxels. `slab` cuts several cases of so many
    slices out of each scan. `options` say how far readers may go beyond what files tell.

    `pairs` makes each case of two scans on one grid: a layout such as `CT1,CT2`, which names source and target, or
    a CSV with columns source, target and perhaps patient. All geometry is taken from the source. A pair that does
    not lie voxel upon voxel fails, with the offset that was measured; `register` moves its target rigidly instead.

    `radiographs` is a file or folder of real radiographs of chests, which are stored beside the cases, normalised and
    split by patient, for models that learn what such look like.

    `executor` needs `submit` and the results of what that returns; otherwise `workers` processes run here.
    The same call goes on after an interruption. `shard="2/8"` prepares the second eighth of the scans; whichever
    shard ends last, or a call without `shard`, writes the catalog.

    Raises:
        InputMissing: a source is not there, or holds no file; of radiographs too.
        DataInvalid: nothing is usable, or one patient is in two splits.
        UsageFault: settings contradict each other, or `out` holds something else.
        OutOfSpace: the disk is too small.
        Interrupted: stopped by Ctrl-C; the same call goes on.
    """
    paths = [Path(sources)] if isinstance(sources, str | Path) else [Path(source) for source in sources]
    out = Path(out)
    per_axis = (spacing, spacing, spacing) if isinstance(spacing, int | float) else spacing
    preparation = Preparation(
        shape=shape, spacing=per_axis, slab=slab, window=window, body_mask=body_mask, fit=fit, pairs=pairs is not None
    )  # fmt: skip
    check_fractions(split)
    if register and pairs is None:
        raise UsageFault("--register moves the targets of pairs", fix="--register --pairs")
    index, count = _shard(shard, overwrite)
    for path in paths:
        if path.resolve().is_relative_to(out.resolve()):
            raise UsageFault("the scans lie in the output folder", at=path, fix="another output folder")
    if radiographs is not None:
        refuse_none(radiographs)  # now, not after hours
    named = [] if patients is None else read_patients(patients, paths)

    findings = _found(paths, out, options, progress)
    broken: Sequence[Finding] = ()
    apart: Sequence[Finding] = ()
    if pairs is not None:
        paired = pair_up(findings, pairs, paths, register=register)
        broken = (*(pair for pair in paired.pairs if pair.verdict == "refuse"), *paired.broken)
        findings, named = [*paired.pairs, *paired.broken], [*named, *paired.named]
        apart = paired.others
    usable = {journal.key_of(finding): finding for finding in findings if finding.verdict == "use"}
    if not usable:
        raise _nothing_usable(paths, findings, "CT" if pairs is None else "pairs")
    _no_leak(usable, named, split)
    journal.claim(out, preparation, overwrite)
    journal.refuse_strangers(out, usable)
    before = _done_before(out, usable)
    mine = [key for number, key in enumerate(sorted(usable)) if number % count == index]
    todo = [Task(key, usable[key], preparation, out.resolve()) for key in mine if key not in before]
    _room(out, todo, preparation)
    _run(todo, executor, workers or _workers(len(todo)), progress)

    records = {key: record for key in usable if (record := journal.read_record(out, key)) is not None}
    refused = [_refusal(finding, finding in broken) for finding in findings if finding.verdict != "use"]
    refused += [_apart(finding) for finding in apart]
    refused += [_failure(usable[key], record) for key, record in records.items() if record.failure is not None]
    kept = sum(key in before for key in mine)
    warnings = tuple(_warnings(usable, records))
    if len(records) < len(usable):
        return _result(out, None, records, kept, refused, warnings, preparation.pairs)
    if not any(record.status == "done" for record in records.values()):
        raise _all_failed(refused)
    folder, more = _assemble(out, preparation, usable, records, named, split, seed, alone=count == 1)
    stored = 0
    if radiographs is not None:
        beside = prepare_radiographs(radiographs, out, split=split, seed=seed, overwrite=True, progress=progress)
        stored = len(beside.entries)
        refused += [_no_radiograph(Path(radiographs), name, error) for name, error in beside.refused]
    _write_failed(out, refused)
    found = _result(out, folder, records, kept, refused, warnings + more, preparation.pairs)
    return replace(found, radiographs=stored)


def _shard(shard: str | None, overwrite: bool) -> tuple[int, int]:
    """`2/8` as (1, 8): which part of how many."""
    if shard is None:
        return 0, 1
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageFault(f"--shard takes a number and a count, as 2/8, not {shard!r}")
    if overwrite:
        raise UsageFault("--overwrite in one shard would remove the work of another", fix="remove the folder first")
    return int(number) - 1, int(count)


def _found(paths: Sequence[Path], out: Path, options: ReadOptions, progress: Progress) -> list[Finding]:
    """What is under the sources, without what lies in the output folder."""
    with quiet():
        findings = scan(paths, options, progress)
    inside = out.resolve()
    return [finding for finding in findings if not finding.path.resolve().is_relative_to(inside)]


def _nothing_usable(paths: Sequence[Path], findings: Sequence[Finding], what: str) -> Exception:
    places = ", ".join(str(path) for path in paths)
    if not findings:
        return InputMissing(f"no {what} found in {places} (0 files)")
    first = findings[0]
    if len(findings) == 1:
        return DataInvalid(
            first.detail, reason=first.reason or Reason.NOT_CT_FILE, at=first.path, fix=_refusal(first).fix
        )
    tally = Counter(str(finding.reason) for finding in findings).most_common(5)
    return DataInvalid(
        f"no {what} found in {places}: {', '.join(f'{number} {reason}' for reason, number in tally)}",
        reason=first.reason or Reason.NOT_CT_FILE,
        fix=f"tomogen doctor {paths[0]}{'' if what == 'CT' else ' --pairs'}",
    )


def _no_leak(usable: dict[str, Finding], named: Sequence[Named], fractions: Sequence[float]) -> None:
    """Raise now, not after hours, if the CSV itself puts one patient into two splits.

    Raises:
        DataInvalid: it does.
    """
    owners = [owner(finding.files, finding.patient, named, voxels=key) for key, finding in usable.items()]
    split_patients(group(owners), owners, fractions, seed=0)


def _all_failed(refused: Sequence[Refusal]) -> DataInvalid:
    refused = [one for one in refused if one.failed] or list(refused)
    last = refused[-1]
    what = f"none of {len(refused)} scans and files gave a case; the last: {last.detail}"
    return DataInvalid(
        last.detail if len(refused) == 1 else what,
        reason=Reason(last.reason) if last.reason in list(Reason) else Reason.CORRUPT,
        at=last.path,
        fix=last.fix,
    )


def _done_before(out: Path, usable: dict[str, Finding]) -> dict[str, Record]:
    """Records of earlier runs that hold: the scan is as it was, its cases are there, or those of its double."""
    found = {}
    for key, finding in usable.items():
        record = journal.read_record(out, key)
        if record is None or record.status == "failed" or record.state != journal.state_of(finding):
            continue
        if isinstance(finding, Pair) and not finding.register and any("moved" in case for case in record.cases):
            continue  # moved by an earlier command that asked for it
        found[key] = record
    whole = {record.voxels for record in found.values() if record.status == "done"}
    return {key: record for key, record in found.items() if record.status != "copy" or record.voxels in whole}


def _room(out: Path, todo: Sequence[Task], preparation: Preparation) -> None:
    """Raise if the cases will not fit on the disk, as far as the headers tell.

    Raises:
        OutOfSpace: they will not.
    """
    needed = sum(_bytes(task.finding, preparation) for task in todo)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise OutOfSpace(
            f"the cases need {_size(needed)}, {_size(free)} are free",
            at=out,
            fix="another disk, a smaller --shape, or a larger --spacing",
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _bytes(finding: Finding, preparation: Preparation) -> int:
    """Bytes of a scan's cases, int16; where the body's size decides, those of the whole field."""
    if finding.shape is None or finding.spacing is None:
        return 0
    extent = [n * mm for n, mm in zip(finding.shape, finding.spacing, strict=True)]
    spacing = preparation.spacing or finding.spacing
    shape = preparation.shape or tuple(int(mm / step) + 1 for mm, step in zip(extent, spacing, strict=True))
    slabs = 1
    if preparation.slab is not None:
        step = preparation.spacing[0] if preparation.spacing else max(extent[1] / shape[1], extent[2] / shape[2])
        slabs = max(1, round(extent[0] / step / preparation.slab))
        shape = (preparation.slab, *shape[1:])
    return 2 * (1 + preparation.pairs) * slabs * shape[0] * shape[1] * shape[2]


def _workers(tasks: int) -> int:
    """As many as there are processors for us, and tasks."""
    return max(1, min(tasks, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


def _run(todo: Sequence[Task], executor: Executor | None, workers: int, progress: Progress) -> None:
    """Run all tasks to their end, or stop in a state from which the same call goes on."""
    done = 0
    progress(0, len(todo), "preparing scans")
    try:
        with stoppable(), nullcontext(executor) if executor else local(min(workers, len(todo)) or 1) as runner:
            for promise in [runner.submit(work, task) for task in todo]:
                promise.result()
                progress(done := done + 1, len(todo), "scans prepared")
    except KeyboardInterrupt as stop:
        ready = sum(journal.read_record(task.out, task.key) is not None for task in todo)
        raise Interrupted(
            f"stopped; {ready} of {len(todo)} scans were prepared",
            signal=signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT,
            fix="the same command goes on",
        ) from None
    except BrokenProcessPool:
        raise OutOfSpace(
            "a worker was killed, most likely for lack of memory", fix="the same command with fewer --workers goes on"
        ) from None


def _assemble(
    out: Path,
    preparation: Preparation,
    usable: dict[str, Finding],
    records: dict[str, Record],
    named: Sequence[Named],
    fractions: Sequence[float],
    seed: int,
    alone: bool,
) -> tuple[CaseFolder, tuple[str, ...]]:
    """Join the scans' records into the catalog: doubles out, patients in, splits drawn."""
    whole = {key: record for key, record in records.items() if record.status in ("done", "copy")}
    owners = [owner(usable[key].files, usable[key].patient, named, record.voxels) for key, record in whole.items()]
    warnings = _patient_warnings(named, [one.lines for one in owners], [one.names for one in owners])
    # Pairs that share a scan are of one patient.
    owners = [
        replace(one, names=one.names | {f"voxels {digest}" for digest in record.halves})
        for one, record in zip(owners, whole.values(), strict=True)
    ]
    groups = group(owners)
    splits = split_patients(groups, owners, fractions, seed)
    warnings += [
        f"no patient in {name}: {len(groups)} are too few for this split"
        for name, fraction in zip(SPLITS, fractions, strict=True)
        if fraction > 0 and name not in splits
    ]
    belongs = {
        index: (pseudonym, split)
        for members, pseudonym, split in zip(groups, pseudonyms(len(groups)), splits, strict=True)
        for index in members
    }
    cases: dict[str, Case] = {}
    slices: dict[str, list[int]] = {}
    taken: set[str] = set()
    copies = []
    for index, (key, record) in sorted(
        enumerate(whole.items()),
        key=lambda entry: (entry[1][1].status != "done", usable[entry[1][0]].format != "dicom"),
    ):
        if record.voxels in taken:
            copies.append(key)
            continue
        taken.add(record.voxels)
        patient, split = belongs[index]
        for entry in record.cases:
            cases[entry["id"]] = Case.of_record({**entry, "patient": patient, "split": split})
            slices[entry["id"]] = entry["slices"]
    for key in copies:
        if whole[key].status != "copy":
            journal.write_record(out, key, replace(whole[key], status="copy", cases=()))
    journal.sweep(out, cases.keys(), partial=alone)
    for case in cases.values():
        write_json(out / VOLUMES / f"{case.id}.json", {**case.record(), "schema": 1, "slices": slices[case.id]})
    ordered = sorted(cases.values(), key=lambda case: (case.patient, case.id))
    folder = write_catalog(out, preparation, ordered, {"fractions": list(fractions), "seed": seed})
    return folder, tuple(warnings)


def _patient_warnings(
    named: Sequence[Named], lines: Sequence[tuple[int, ...]], names: Sequence[frozenset[str]]
) -> list[str]:
    """What may be wrong with who is whose."""
    found = []
    if named and not any(lines):
        found.append("no line of the CSV of patients names a scan that is used")
    elif named and not all(lines):
        found.append(f"{sum(not line for line in lines)} scans are in no line of the CSV; their headers decide")
    unnamed = sum(not name for name in names)
    if unnamed:
        found.append(
            f"{unnamed} scans name no patient, in header or CSV: each counts as a patient of its own; if some are "
            "of one patient, say so with --patients, or they may leak between splits"
        )
    if len(names) > 1 and unnamed == 0 and len(frozenset().union(*names)) == 1:
        found.append("all scans name the same patient: one split only; --patients can tell them apart")
    return found


def _warnings(usable: dict[str, Finding], records: dict[str, Record]) -> list[str]:
    return [f"{usable[key].path}: {warning}" for key, record in records.items() for warning in record.warnings]


def _refusal(finding: Finding, failed: bool = False) -> Refusal:
    # Here `--spacing` is the grid's; what a file lacks is `--own-spacing`.
    fix = finding.fix.replace("--spacing", "--own-spacing") if finding.fix else None
    return Refusal(str(finding.path), str(finding.reason), finding.detail, fix, failed)


def _apart(finding: Finding) -> Refusal:
    """A scan or file beside the pairs."""
    if finding.verdict == "refuse":
        return _refusal(finding)
    return Refusal(str(finding.path), str(Reason.UNPAIRED), "belongs to no pair", None, failed=False)


def _failure(finding: Finding, record: Record) -> Refusal:
    failure: Any = record.failure
    return Refusal(str(finding.path), **failure, failed=record.status == "failed")


def _no_radiograph(source: Path, name: str, error: TomogenError) -> Refusal:
    reason = error.reason if isinstance(error, DataInvalid) else Reason.NOT_CT_FILE
    return Refusal(str(source / name if source.is_dir() else source), str(reason), error.what, error.fix, failed=False)


def _write_failed(out: Path, refused: Sequence[Refusal]) -> None:
    """`failed.jsonl`: one line for each scan that should have given a case; no file if there is none."""
    failed = [one for one in refused if one.failed]
    if failed:
        write_whole(out / FAILED, [json.dumps(asdict(one)).encode() + b"\n" for one in failed])
    else:
        (out / FAILED).unlink(missing_ok=True)


def _result(
    out: Path,
    folder: CaseFolder | None,
    records: dict[str, Record],
    kept: int,
    refused: Sequence[Refusal],
    warnings: tuple[str, ...],
    pairs: bool,
) -> PrepareResult:
    done = [record for record in records.values() if record.status == "done"]
    cases = () if folder is None else folder.cases
    return PrepareResult(
        folder=out,
        complete=folder is not None,
        scans=len({record.voxels for record in done}),
        cases=sum(len(record.cases) for record in done) if folder is None else len(cases),
        patients=len({case.patient for case in cases}),
        splits={name: sum(case.split == name for case in cases) for name in SPLITS},
        spacing=None if folder is None else folder.spacing,
        kept=kept,
        copies=sum(record.status in ("done", "copy") for record in records.values())
        - len({record.voxels for record in done}),
        refused=tuple(one for one in refused if not one.failed),
        failed=tuple(one for one in refused if one.failed),
        warnings=warnings,
        pairs=pairs,
        registered=sum(any("moved" in case for case in record.cases) for record in done),
    )
