"""`tomogen doctor [PATH...]`: what is wrong with the machine, or with a folder of scans, and its fix."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tomogen.cli._core import Streams, verb
from tomogen.cli._pairs import PAIRS, PUBLISHED
from tomogen.cli._reading import READING, taken

if TYPE_CHECKING:
    from tomogen.cases.doctor import Diagnosis, PairedScans, Scan

FAULTS, OTHERS = 20, 3
"""Findings named for each reason, CT that cannot be used and files of other kinds; `-v` and `--json` name all."""


def doctor(streams: Streams, paths: tuple[str, ...], pairs: str | None, **reading: Any) -> int:
    """Say what this machine lacks, or, with PATH, what lies there, what would be used, what not and why.

    Exit code 0: nothing is wrong. 1: the machine has a fault, or a CT under PATH cannot be used (files that are
    something else, such as MR, masks, reports or text, are no fault). 3: there is no CT under PATH.
    With --pairs scans are compared two by two, as `prepare --pairs` does.
    """
    from tomogen.cases.doctor import doctor as diagnose
    from tomogen.errors import InputMissing

    options = taken(reading)
    if not paths and pairs is None:
        diagnosis = diagnose(options=options)
        streams.result(diagnosis, _machine(diagnosis))
        return 0 if diagnosis.healthy else 1
    with streams.progress("doctor") as progress:
        diagnosis = diagnose(paths, pairs=pairs, options=options, progress=progress)
    if pairs is not None:
        streams.result(diagnosis, _paired(diagnosis))
        return 0 if diagnosis.healthy else 1
    streams.result(diagnosis, _folder(diagnosis, streams.verbose))
    if not diagnosis.used and not any(scan.fault for scan in diagnosis.scans):
        files = f"{diagnosis.files} file{'s' * (diagnosis.files != 1)}"
        raise InputMissing(f"no CT found in {', '.join(paths)} ({files})")
    return 0 if diagnosis.healthy else 1


def _machine(diagnosis: "Diagnosis") -> str:
    width = max(len(check.name) for check in diagnosis.checks)
    lines = []
    for check in diagnosis.checks:
        lines.append(f"{'ok   ' if check.ok else 'FAULT'}  {check.name:<{width}}  {check.found}")
        if not check.ok and check.fix:
            lines.append(f"{'':7}{'':{width}}  fix: {check.fix}")
    faults = sum(not check.ok for check in diagnosis.checks)
    lines.append(f"{faults} fault{'s' * (faults != 1)}" if faults else "nothing is wrong")
    return "\n".join(lines)


def _folder(diagnosis: "Diagnosis", every: bool) -> str:
    lines = [line for scan in diagnosis.scans if scan.verdict == "use" for line in _used(scan)]
    faults = [scan for scan in diagnosis.scans if scan.fault]
    others = [scan for scan in diagnosis.scans if scan.verdict == "refuse" and not scan.fault]
    lines += _refused("refuse", faults, None if every else FAULTS)
    lines += _refused("other", others, None if every else OTHERS)
    lines.append(
        f"{diagnosis.files} files: {diagnosis.used} scans to use, {len(faults)} that cannot be used, "
        f"{len(others)} of other kinds"
    )
    return "\n".join(lines)


def _paired(diagnosis: "Diagnosis") -> str:
    lines = []
    for pair in diagnosis.pairs:
        lines.append(f"{'use' if pair.verdict == 'use' else 'refuse':<7} {_place(pair)}")
        if pair.offset is not None:
            x, y, z = pair.offset
            lines.append(f"          apart by left {x:.1f}, back {y:.1f}, up {z:.1f} mm, {pair.turn:.1f} degrees")
        if pair.reason is not None:
            lines.append(f"          {pair.reason}: {pair.detail}")
        lines += [f"          fix: {pair.fix}"] * (pair.fix is not None)
        lines += [f"          warning: {text}" for text in pair.warnings]
    used = sum(pair.verdict == "use" for pair in diagnosis.pairs)
    lines.append(
        f"{used} pairs to use, {len(diagnosis.pairs) - used} that cannot be used, "
        f"{len(diagnosis.scans)} scans and files in no pair"
    )
    return "\n".join(lines)


def _place(pair: "PairedScans") -> str:
    """The folder that holds a pair, or both scans where they lie in folders of their own."""
    if pair.source is None or pair.target is None or Path(pair.source).parent == Path(pair.target).parent:
        return pair.path
    return f"{pair.source} and {pair.target}"


def _refused(word: str, scans: "list[Scan]", most: int | None) -> list[str]:
    """The refused, by reason, at most so many of each."""
    by_reason: dict[str, list[Scan]] = {}
    for scan in scans:
        by_reason.setdefault(scan.reason or "", []).append(scan)
    lines = []
    for reason, group in by_reason.items():
        for scan in group[:most]:
            lines.append(f"{word:<7} {scan.path}\n          {reason}: {scan.detail}")
            if scan.fix and scan.fault:
                lines.append(f"          fix: {scan.fix}")
        if most is not None and len(group) > most:
            lines.append(f"{word:<7} {len(group) - most} more: {reason}; -v lists them")
    return lines


def _used(scan: "Scan") -> list[str]:
    shape = " x ".join(map(str, scan.shape or ()))
    spacing = " x ".join(f"{mm:.4g}" for mm in scan.spacing or ())
    first = f"use     {scan.path}\n          {scan.format}, {len(scan.files)} files, {shape} voxels, {spacing} mm"
    return [first.replace(" 1 files", " 1 file"), *(f"          warning: {text}" for text in scan.warnings)]


command = verb(
    click.argument("paths", metavar="[PATH]...", nargs=-1),
    click.option("--pairs", is_flag=False, flag_value=PUBLISHED, metavar="[LAYOUT]", help=PAIRS),
    *READING,
)(doctor)
