"""What is done in a folder under preparation: one record per scan, so that work goes on after a kill.

`preparation.json` comes first, `scans/<key>.json` when all voxels of a scan are written, `catalog.json` last. A key is
a hash of where a scan lies, its state one of its files' names, sizes and times: no record names a scan.
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tomogen.cases.folder import CATALOG, PREPARATION, SCHEMA, VOLUMES, write_json
from tomogen.cases.preparation import Preparation
from tomogen.cases.radiographs import FOLDER as RADIOGRAPHS
from tomogen.errors import UsageFault

if TYPE_CHECKING:
    from tomogen.cases.scan import Finding

SCANS = "scans"
FAILED = "failed.jsonl"
OURS = frozenset({CATALOG, PREPARATION, VOLUMES, SCANS, FAILED, RADIOGRAPHS})
"""All that `prepare` puts into its folder."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """How it went with one scan."""

    state: str
    """Of the scan's files, when they were read."""
    status: Literal["done", "copy", "refused", "failed"]
    """A copy holds the voxels of another scan, whose cases stand for it. Failed scans are tried again."""
    voxels: str = ""
    """sha256 of the scan in HU, upright; of a pair, of both."""
    halves: tuple[str, ...] = ()
    """Of a pair, the sha256 of source and target each: pairs that share one are of one patient."""
    cases: tuple[Mapping[str, Any], ...] = ()
    """For each case what goes into the catalog, but patient and split; and `slices`."""
    warnings: tuple[str, ...] = ()
    failure: Mapping[str, str | None] | None = None
    """`reason`, `detail` and `fix` of a scan that was refused for what its voxels are, or that failed."""


def key_of(finding: "Finding") -> str:
    """A name for a scan by the place it lies in: the same on every run and every node that sees the same paths."""
    first = min((str(file.resolve()) for file in finding.files), default="")
    place = [str(finding.path.resolve()), finding.series, first]
    return hashlib.sha256(json.dumps(place).encode()).hexdigest()[:24]


def state_of(finding: "Finding") -> str:
    """A hash that changes when a file of the scan does, or the way it is read: names, sizes, times, options."""
    files = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in finding.files)
    return hashlib.sha256(json.dumps([files, repr(finding.options)]).encode()).hexdigest()[:24]


def claim(out: Path, preparation: Preparation, overwrite: bool) -> None:
    """Make `out` the folder of this preparation, or find that it is already.

    Raises:
        UsageFault: it holds something else, or another preparation.
    """
    if out.exists() and not out.is_dir():
        raise UsageFault("the output is a file, a folder is needed", at=out)
    present = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    foreign = sorted(name for name in present - OURS if not name.endswith(".partial"))
    if foreign:
        raise UsageFault(
            f"the output folder holds other things: {', '.join(foreign[:3])}", at=out, fix="name a new or empty folder"
        )
    if overwrite:
        for name in sorted(present, key=lambda name: name != CATALOG):  # the catalog first: never a false whole
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
    for folder in (out, out / VOLUMES, out / SCANS):
        folder.mkdir(parents=True, exist_ok=True)
    if not (out / PREPARATION).exists():
        write_json(out / PREPARATION, {"schema": SCHEMA, "preparation": preparation.record()})
    try:
        found = Preparation.of_record(json.loads((out / PREPARATION).read_bytes())["preparation"])
    except (KeyError, TypeError, ValueError):
        raise UsageFault(f"{PREPARATION} is damaged", at=out, fix="--overwrite starts anew") from None
    differences = found.differences(preparation)
    if differences:
        raise UsageFault(
            f"the folder was prepared otherwise: {'; '.join(differences)}",
            at=out,
            fix="another output folder, or --overwrite to start anew",
        )


def write_record(out: Path, key: str, record: Record) -> None:
    """Keep how it went with a scan."""
    write_json(out / SCANS / f"{key}.json", asdict(record))


def read_record(out: Path, key: str) -> Record | None:
    """The record of a scan; None if there is none, it is damaged, or its voxels are not all there."""
    try:
        values = json.loads((out / SCANS / f"{key}.json").read_bytes())
        values |= {name: tuple(values.get(name, ())) for name in ("cases", "halves", "warnings")}
        record = Record(**values)
        for case in record.cases:
            depth, height, width = case["shape"]
            for ending in (".npy", *([".source.npy"] if case.get("source") else [])):
                if (out / VOLUMES / f"{case['id']}{ending}").stat().st_size <= 2 * depth * height * width:
                    return None
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return record


def refuse_strangers(out: Path, keys: Iterable[str]) -> None:
    """Raise if the folder holds scans that are not among the sources: whose patients nobody would know.

    Raises:
        UsageFault: there are such scans.
    """
    strangers = {path.stem for path in (out / SCANS).glob("*.json")} - set(keys)
    if strangers:
        raise UsageFault(
            f"the folder holds {len(strangers)} scans that are not among the sources named now",
            at=out,
            fix="name all sources in one command, or another output folder, or --overwrite to start anew",
        )


def sweep(out: Path, kept: Collection[str], partial: bool) -> None:
    """Remove voxels that no case needs and, if nobody else may be writing, what killed processes left behind."""
    for path in (out / VOLUMES).iterdir():
        if path.name.split(".")[0] not in kept:
            path.unlink(missing_ok=True)
    for path in out.rglob("*.partial") if partial else ():
        path.unlink(missing_ok=True)
