"""Which scans belong together: folders by name, as published data sets lay them out, or the lines of a CSV."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tomogen import formats
from tomogen.cases.pairs.pair import Pair
from tomogen.cases.scan import Finding
from tomogen.cases.split import Named
from tomogen.errors import DataInvalid, InputMissing, Reason, UsageFault

PUBLISHED = "CT1,CT2"
"""The layout of published pairs: a folder a patient, in it CT1 (plain) and CT2 (contrast), folders or files."""

_ELSE = frozenset({Reason.NOT_CT_FILE, Reason.NOT_IMAGE, Reason.MODALITY, Reason.LOCALIZER, Reason.MASK})
"""What a file is refused for that is no half of a pair, wherever it lies."""


@dataclass(frozen=True)
class Paired:
    """What the scans under some paths make up."""

    pairs: tuple[Pair, ...]
    """Whole pairs, of which some may have a half that cannot be used."""
    broken: tuple[Finding, ...]
    """Scans that should be halves and are not: a partner is missing, or several are there."""
    others: tuple[Finding, ...]
    """What belongs to no pair."""
    named: tuple[Named, ...] = field(default=(), repr=False)
    """Patients, where a CSV of pairs names them."""


def pair_up(
    findings: Sequence[Finding], layout: str | Path, roots: Sequence[Path], *, register: bool = False
) -> Paired:
    """The pairs among findings.

    `layout` names the source and the target, as `CT1,CT2`: each the name of a folder or file, or a path. A pair are
    two scans whose paths differ by that alone: `CASE/CT1` and `CASE/CT2`, or `CT1/CASE` and `CT2/CASE`. Or it is the
    path of a CSV with columns `source`, `target` and perhaps `patient`.

    Raises:
        UsageFault: the layout is neither.
        InputMissing: there is no such CSV, or no scan lies where one is named.
        DataInvalid: the CSV is damaged.
    """
    text = str(layout)
    if text.lower().endswith(".csv"):
        return _listed(findings, Path(text), roots, register)
    words = [word.strip().rstrip("/") for word in text.split(",")]
    if len(words) != 2 or not all(words) or words[0] == words[1]:
        raise UsageFault(
            f"--pairs takes the names of source and target, as {PUBLISHED}, or a CSV, not {text!r}",
            fix=f"--pairs {PUBLISHED}, or --pairs as the last word of the command",
        )
    return _laid_out(findings, (words[0], words[1]), roots, register)


@dataclass(frozen=True)
class _Place:
    """Where a scan lies: the path above the word and the path below it."""

    side: int
    above: tuple[str, ...]
    below: tuple[str, ...]
    depth: int
    """Folders between the root and the word."""


def _laid_out(findings: Sequence[Finding], words: tuple[str, str], roots: Sequence[Path], register: bool) -> Paired:
    places = {number: _place(finding, words, roots) for number, finding in enumerate(findings)}
    halves = {n: place for n, place in places.items() if place is not None and findings[n].reason not in _ELSE}
    if not halves:
        raise InputMissing(
            f"no pairs: no scan under {', '.join(map(str, roots))} lies in {words[0]} or {words[1]}",
            fix="--pairs SOURCE,TARGET with the names that their folders have, or --pairs PAIRS.csv",
        )
    names = (Path(words[0]).name, Path(words[1]).name)
    pairs: list[Pair] = []
    broken: list[Finding] = []
    taken: set[int] = set()
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[list[int], list[int]]] = {}
    for number, place in halves.items():
        groups.setdefault((place.above, place.below), ([], []))[place.side].append(number)
    for sides in _joined(groups, halves, findings):
        taken.update(*sides)
        chosen = [_usable(side, findings) for side in sides]
        crowded = next((side for side in (0, 1) if len(chosen[side]) > 1), None)
        if crowded is not None:
            first = findings[chosen[crowded][0]]
            broken.append(
                _refused(first, Reason.SEVERAL, f"{len(chosen[crowded])} scans in {names[crowded]}, one expected",
                         "--series UID, or --pairs PAIRS.csv that says which")
            )  # fmt: skip
        elif not all(chosen):
            there = 0 if chosen[0] else 1
            broken.append(
                _refused(findings[chosen[there][0]], Reason.UNPAIRED,
                         f"no {names[1 - there]} to this {names[there]}: its partner is missing",
                         f"put the scan into {names[1 - there]}, or take this one out")
            )  # fmt: skip
        else:
            one, other = (findings[side[0]] for side in chosen)
            promised = ",".join(names) == PUBLISHED
            pairs.append(Pair.of(one, other, words=names, ordered=promised, register=register))
    others = [finding for number, finding in enumerate(findings) if number not in taken]
    return Paired(tuple(pairs), tuple(broken), tuple(others))


def _joined(
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[list[int], list[int]]],
    halves: dict[int, _Place],
    findings: Sequence[Finding],
) -> Iterable[tuple[list[int], list[int]]]:
    """Sources and targets that belong together.

    Where a patient's folder holds one scan on each side, their names below CT1 and CT2 need not agree (series are
    often called by their UIDs); files of two parallel folders are told by their names alone.
    """
    by_patient: dict[tuple[str, ...], list[tuple[list[int], list[int]]]] = {}
    for (above, _), sides in groups.items():
        by_patient.setdefault(above, []).append(sides)
    for whole in by_patient.values():
        single = [[n for sides in whole for n in sides[side] if findings[n].verdict == "use"] for side in (0, 1)]
        if len(single[0]) == len(single[1]) == 1:
            one, other = single[0][0], single[1][0]
            series = findings[one].format == findings[other].format == "dicom"
            if halves[one].below == halves[other].below or series or halves[one].depth > 1:
                yield [one], [other]
                continue
        yield from whole


def _usable(side: Sequence[int], findings: Sequence[Finding]) -> list[int]:
    """The scans of a side that can be used; if there is none, the first that cannot, to say why."""
    good = [number for number in side if findings[number].verdict == "use"]
    return good or list(side[:1])


def _place(finding: Finding, words: tuple[str, str], roots: Sequence[Path]) -> _Place | None:
    """Where a scan lies, by the deepest part of its path that is one of the words."""
    full = finding.path.resolve().parts
    inside = [root.resolve().parts for root in roots]
    start = max((len(root) - 1 for root in inside if full[: len(root)] == root), default=0)
    names = (*full[:-1], formats.stem(Path(full[-1])))
    best: _Place | None = None
    deepest = -1
    for side, word in enumerate(words):
        path = Path(word)
        absolute = path.is_absolute() or (len(path.parts) > 1 and path.is_dir())
        parts = path.resolve().parts if absolute else path.parts
        for at in range(len(names) - len(parts), (0 if absolute else start) - 1, -1):
            if names[at : at + len(parts)] == parts or full[at : at + len(parts)] == parts:
                if at + len(parts) > deepest:
                    deepest = at + len(parts)
                    above = () if absolute else names[start:at]
                    best = _Place(side, above, names[at + len(parts) :], 0 if absolute else at - start)
                break
    return best


def _listed(findings: Sequence[Finding], path: Path, roots: Sequence[Path], register: bool) -> Paired:
    """The pairs that a CSV lists."""
    pairs: list[Pair] = []
    broken: list[Finding] = []
    named: list[Named] = []
    taken: set[int] = set()
    bases = [path.parent, *(root if root.is_dir() else root.parent for root in roots)]
    for line, row in enumerate(_rows(path), start=2):
        places = []
        for word in ("source", "target"):
            text = (row.get(word) or "").strip()
            if not text:
                raise DataInvalid(f"line {line} lacks a {word}", reason=Reason.CORRUPT, at=path)
            places.append(next((base / text for base in bases if (base / text).exists()), bases[0] / text).resolve())
        found = [_usable(_under(place, findings), findings) for place in places]
        taken.update(*found)
        patient = (row.get("patient") or "").strip()
        if patient:
            named += [Named(place, patient, None, line) for place in places]
        wrong = next((side for side in (0, 1) if len(found[side]) != 1), None)
        if wrong is None:
            one, other = (findings[side[0]] for side in found)
            words = ("the source", "the target")
            pairs.append(Pair.of(one, other, words=words, ordered=False, register=register))
            continue
        word, place = ("source", "target")[wrong], places[wrong]
        here = Finding(place, (place,), "", "refuse")
        if found[wrong]:
            what = f"line {line} of the CSV: {len(found[wrong])} scans at its {word}, one expected"
            broken.append(_refused(here, Reason.SEVERAL, what, "name the folder or file of one scan"))
        else:
            what = f"line {line} of the CSV: no scan at its {word}: the partner is missing{formats.near(place)}"
            broken.append(_refused(here, Reason.UNPAIRED, what, "mend the path, or name its folder among the sources"))
    others = [finding for number, finding in enumerate(findings) if number not in taken]
    return Paired(tuple(pairs), tuple(broken), tuple(others), tuple(named))


def _rows(path: Path) -> list[dict[str, str | None]]:
    """The lines of a CSV of pairs.

    Raises:
        InputMissing: there is no such file.
        DataInvalid: it is no CSV, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = set(reader.fieldnames or ()), list(reader)
    except FileNotFoundError:
        raise InputMissing(f"no such CSV of pairs{formats.near(path)}", at=path) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataInvalid(f"not a CSV in UTF-8: {type(error).__name__}", reason=Reason.CORRUPT, at=path) from None
    if not {"source", "target"} <= columns or not rows:
        raise DataInvalid(
            "a CSV of pairs has a first line with the columns source,target and perhaps patient, and a line a pair",
            reason=Reason.CORRUPT,
            at=path,
        )
    return rows


def _under(place: Path, findings: Sequence[Finding]) -> list[int]:
    """The scans that are this file, or lie in this folder."""
    return [
        number
        for number, finding in enumerate(findings)
        if finding.reason not in _ELSE
        and any(file == place or place in file.parents for file in (one.resolve() for one in finding.files[:1]))
    ]


def _refused(finding: Finding, reason: Reason, detail: str, fix: str) -> Finding:
    return replace(
        finding, verdict="refuse", reason=reason, detail=detail, fix=fix, shape=None, spacing=None, warnings=()
    )
