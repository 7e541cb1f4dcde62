"""Which cases were prepared from the scans under a path: what a prepared folder does not say, as it names nobody.

It holds a hash of the place of each scan. Whoever has the scans, where `prepare` read them, can go the way again.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tomogen.cases.folder import CaseFolder
from tomogen.cases.journal import SCANS, key_of, read_record
from tomogen.cases.scan import scan


class Sources(NamedTuple):
    """What became of the scans under some paths."""

    cases: tuple[tuple[str, Path], ...]
    """Cases, each with the most exact of the paths that hold its scan; twice where two scans have the same voxels."""
    empty: frozenset[Path]
    """Paths that hold no scan of a case."""


def sources(paths: Sequence[Path], folder: CaseFolder) -> Sources:
    """The cases that were prepared from scans under `paths`, which are files or folders, absolute.

    Headers are read and no voxels, once for the same paths and cases.
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
        own = read_record(folder, key_of(finding))
        record = None if own is None else by_voxels.get(own.voxels)
        places = {place for file in finding.files for place in (file.resolve(), *file.resolve().parents)}
        over = [path for path in paths if path in places]
        if record is None or not over:
            continue
        full |= set(over)
        best = max(over, key=lambda path: len(path.parts))
        cases |= {(str(case["id"]), best): None for case in record.cases}
    return Sources(tuple(cases), frozenset(paths) - full)
