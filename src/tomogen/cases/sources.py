"""Which cases were prepared from the scans under a path: what a prepared folder does not say, as it names nobody.

It holds a hash of the place of each scan, and one of its voxels. Whoever has the scans can go the way again.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tomogen.cases.folder import CaseFolder
from tomogen.cases.journal import SCANS, key_of, read_record
from tomogen.cases.scan import Finding, scan
from tomogen.cases.work import digest, quiet
from tomogen.errors import TomogenError


class Sources(NamedTuple):
    """What became of the scans under some paths."""

    cases: tuple[tuple[str, Path], ...]
    """Cases, each with the most exact of the paths that hold its scan; twice where two scans have the same voxels."""
    empty: frozenset[Path]
    """Paths that hold no scan of a case."""


def sources(paths: Sequence[Path], folder: CaseFolder) -> Sources:
    """The cases that were prepared from scans under `paths`, which are files or folders, absolute.

    Scans that lie where `prepare` read them are known by their place, and only headers are read; others by their
    voxels. It is done once for the same paths and cases.
    """
    return _sources(tuple(paths), folder.path, folder.digest)


@lru_cache(maxsize=4)
def _sources(paths: tuple[Path, ...], folder: Path, digest: str) -> Sources:
    """`digest` stands for what the folder holds."""
    there = [path for path in paths if path.exists()]
    records = [read_record(folder, entry.stem) for entry in (folder / SCANS).glob("*.json")]
    by_voxels = {record.voxels: record for record in records if record is not None and record.status == "done"}
    cases: dict[tuple[str, Path], None] = {}
    full: set[Path] = set()
    for finding in scan(there) if there else ():
        record = by_voxels.get(_voxels(finding, folder))
        places = {place for file in finding.files for place in (file.resolve(), *file.resolve().parents)}
        over = [path for path in paths if path in places]
        if record is None or not over:
            continue
        full |= set(over)
        best = max(over, key=lambda path: len(path.parts))
        cases |= {(str(case["id"]), best): None for case in record.cases}
    return Sources(tuple(cases), frozenset(paths) - full)


def _voxels(finding: Finding, folder: Path) -> str:
    """What the folder knows a scan by; empty for what is none."""
    # A key holds a file's name as it was spelled: in full, or as seen from where one stood.
    seen = replace(finding, files=tuple(Path(os.path.relpath(file)) for file in finding.files))
    for spelled in (finding, seen):
        record = read_record(folder, key_of(spelled))
        if record is not None:
            return record.voxels
    try:
        with quiet():
            return digest(finding.read())
    except TomogenError:
        return ""
