"""Which scans are of one patient, what patients are called, and on which side of a split they fall.

A split divides patients, never scans. Scans are of one patient when the CSV or the header says so, or when they hold
the same voxels. Names stay in memory: what is written is `patient-0001`, numbered by the content of the scans.
"""

import csv
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tomogen.cases.folder import SPLITS
from tomogen.errors import DataInvalid, InputMissing, Reason, UsageFault


@dataclass(frozen=True)
class Named:
    """What a `--patients` CSV says of a path: the patient, perhaps the split, and the line that says so."""

    path: Path
    patient: str = field(repr=False)
    split: str | None
    line: int


@dataclass(frozen=True)
class Owner:
    """Who a scan is of: the names it goes by, the split it was given, and a digest of its voxels."""

    voxels: str
    """Scans with equal digests are the same scan."""
    names: frozenset[str] = field(default=frozenset(), repr=False)
    """Private: never written."""
    split: str | None = None
    lines: tuple[int, ...] = ()
    """Lines of the CSV that speak of it."""


def read_patients(path: str | Path, sources: Sequence[Path]) -> list[Named]:
    """The rows of a CSV with columns `path`, `patient` and perhaps `split`.

    A path is a file or a folder, absolute or as seen from the CSV's folder or from one of the sources.

    Raises:
        InputMissing: there is no such file.
        DataInvalid: a column is missing, a row is incomplete, or names a split that there is not.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
            columns = set(rows[0]) if rows else set()
    except FileNotFoundError:
        raise InputMissing("no such CSV of patients", at=path) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataInvalid(f"not a CSV in UTF-8: {type(error).__name__}", reason=Reason.CORRUPT, at=path) from None
    if not {"path", "patient"} <= columns:
        raise DataInvalid(
            "a CSV of patients has a first line with the columns path,patient and perhaps split",
            reason=Reason.CORRUPT,
            at=path,
        )
    bases = [path.parent, *(source if source.is_dir() else source.parent for source in sources)]
    named = []
    for line, row in enumerate(rows, start=2):
        place, patient, split = ((row.get(name) or "").strip() for name in ("path", "patient", "split"))
        if not place or not patient:
            raise DataInvalid(f"line {line} lacks a path or a patient", reason=Reason.CORRUPT, at=path)
        if split and split not in SPLITS:
            raise DataInvalid(
                f"line {line} asks for a split that there is not; splits: {', '.join(SPLITS)}",
                reason=Reason.CORRUPT,
                at=path,
            )
        where = next((base / place for base in bases if (base / place).exists()), bases[0] / place)
        named.append(Named(where.resolve(), patient, split or None, line))
    return named


def owner(files: Iterable[Path], header: str | None, named: Sequence[Named], voxels: str) -> Owner:
    """Who a scan is of: as the CSV's most exact rows say, else as its header says, else a patient of its own.

    Files of one scan that the CSV gives to several patients join these: nothing leaks.
    """
    rows: dict[int, Named] = {}
    for file in {file.resolve() for file in files}:
        over = [row for row in named if row.path == file or row.path in file.parents]
        if over:
            best = max(over, key=lambda row: len(row.path.parts))
            rows[best.line] = best
    splits = {row.split for row in rows.values() if row.split}
    if len(splits) > 1:
        raise _leak(tuple(sorted(rows)), splits)
    names = frozenset(row.patient for row in rows.values()) or frozenset([header.strip()] if header else []) - {""}
    return Owner(voxels, names, next(iter(splits), None), tuple(sorted(rows)))


def group(owners: Sequence[Owner]) -> list[list[int]]:
    """Indices of the owners by patient: owners that share a name or their voxels are one, in chains too.

    Patients are in the order of their smallest voxel digest, whatever order the scans came in.
    """
    parent = list(range(len(owners)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    seen: dict[tuple[str, str], int] = {}
    for index, one in enumerate(owners):
        for mark in [("voxels", one.voxels), *(("name", name) for name in one.names)]:
            parent[root(index)] = root(seen.setdefault(mark, index))
    members: dict[int, list[int]] = {}
    for index in range(len(owners)):
        members.setdefault(root(index), []).append(index)
    return sorted(members.values(), key=lambda group: min(owners[index].voxels for index in group))


def pseudonyms(count: int) -> list[str]:
    """`patient-0001` and so on."""
    return [f"patient-{number:04d}" for number in range(1, count + 1)]


def split_patients(
    groups: Sequence[Sequence[int]], owners: Sequence[Owner], fractions: Sequence[float], seed: int
) -> list[str]:
    """The split of each patient.

    A split given by the CSV holds. The others are put in the order of a hash of seed and voxels and cut at the
    fractions: when scans are added, only patients next to a cut move. Counts are the nearest to the fractions; each
    split that is asked for has a patient if there are enough.

    Raises:
        DataInvalid: the CSV puts one patient into two splits.
    """
    fixed: dict[int, str] = {}
    for number, members in enumerate(groups):
        asked = {split for split in (owners[index].split for index in members) if split}
        if len(asked) > 1:
            raise _leak(tuple(sorted({line for index in members for line in owners[index].lines})), asked)
        if asked:
            fixed[number] = asked.pop()
    free = [number for number in range(len(groups)) if number not in fixed]
    keys = {
        number: hashlib.sha256(f"{seed}:{min(owners[index].voxels for index in groups[number])}".encode()).digest()
        for number in free
    }
    free.sort(key=keys.__getitem__)
    names = [name for name, count in zip(SPLITS, shares(len(free), fractions), strict=True) for _ in range(count)]
    by_number = fixed | dict(zip(free, names, strict=True))
    return [by_number[number] for number in range(len(groups))]


def shares(count: int, fractions: Sequence[float]) -> list[int]:
    """How many of `count` each fraction gets: the nearest whole numbers, at least 1 for each fraction above 0.

    With fewer than there are such fractions, the first ones get them.

    Raises:
        UsageFault: not three fractions from 0 that add up to 1.
    """
    check_fractions(fractions)
    wanted = [index for index, fraction in enumerate(fractions) if fraction > 0]
    if count <= len(wanted):
        return [int(index in wanted[:count]) for index in range(len(fractions))]
    found = [math.floor(count * fraction + 1e-9) for fraction in fractions]
    by_remainder = sorted(wanted, key=lambda index: found[index] - count * fractions[index])
    for index in by_remainder[: count - sum(found)]:
        found[index] += 1
    for index in wanted:
        if found[index] == 0:
            found[found.index(max(found))] -= 1
            found[index] = 1
    return found


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse what is no division of the whole.

    Raises:
        UsageFault: not three fractions from 0 that add up to 1.
    """
    good = len(fractions) == len(SPLITS) and all(0 <= fraction <= 1 for fraction in fractions)
    if not good or abs(sum(fractions) - 1) > 1e-6:
        spelled = " ".join(f"{fraction:g}" for fraction in fractions)
        raise UsageFault(
            f"--split takes the shares of train, val and test, which add up to 1, not {spelled}",
            fix="--split 0.8 0.1 0.1",
        )


def _leak(lines: Sequence[int], splits: Iterable[str]) -> DataInvalid:
    return DataInvalid(
        f"leak: one patient in {' and '.join(sorted(splits))}, by lines {', '.join(map(str, lines))} of the CSV",
        reason=Reason.LEAK,
        fix="give all rows of a patient, and of equal scans, the same split",
    )
