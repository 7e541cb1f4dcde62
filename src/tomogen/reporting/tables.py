"""Scores as tables: subjects side by side, each row with its interval, its best value and its definition."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.score import Score
from tomogen.evaluation.scores import Row, Scores
from tomogen.evaluation.subjects import EQUAL, REAL
from tomogen.evaluation.words import Footnotes, lettered, terms, title
from tomogen.reporting.parts import Cell, Group, Line, Table

_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
"""A SHA-256, which stands in full among the facts of the page."""


def whole_rows(scores: Scores) -> list[Row]:
    """Rows under the standard definitions, of whole scans or sets: not of a part such as a tissue band."""
    return [row for row in _standard(scores) if "/" not in row.metric and not row.beside_real]


def part_rows(scores: Scores) -> list[Row]:
    """Rows of parts, `mae/lung` or `kid/axial`, under the standard definitions."""
    return [row for row in _standard(scores) if "/" in row.metric and not row.beside_real]


def single_rows(scores: Scores) -> list[Row]:
    """Rows in which what was made and real scans have each a number of their own."""
    return [row for row in _standard(scores) if row.beside_real and not row.metric.endswith(EQUAL)]


def equal_rows(scores: Scores) -> list[Row]:
    """Rows of sets of equal size, where what was made stands beside real scans."""
    return [row for row in _standard(scores) if row.metric.endswith(EQUAL)]


def convention_rows(scores: Scores) -> list[Row]:
    """Rows under published conventions."""
    return [row for row in scores.table() if row.convention != "standard"]


def _standard(scores: Scores) -> list[Row]:
    return [row for row in scores.table() if row.convention == "standard"]


def main_table(rows: Sequence[Row], caption: str) -> Table:
    """A row for each score."""
    return _table([("", rows)], caption, lambda row: title(row.metric))


def parts_table(rows: Sequence[Row], caption: str) -> Table:
    """Rows grouped by what was scored, a row for each part of it."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.metric.split("/")[0], []).append(row)
    heads = [(title(name), group) for name, group in groups.items()]
    return _table(heads, caption, _part)


def _part(row: Row) -> str:
    return title(row.metric.removesuffix(EQUAL).partition("/")[2]) or "whole"


def conventions_table(rows: Sequence[Row], caption: str) -> Table:
    """Rows grouped by convention, by the names that are typed; the last column says how each is computed.

    Rows that differ by a last number alone (`cs_by_scale/1`, `/2`, ...) share one.
    """
    subjects = _subjects(rows)
    notes: dict[str, str] = {}
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        stem, _, last = row.metric.rpartition("/")
        stem = stem if last.isdigit() else row.metric
        groups.setdefault(row.convention, {}).setdefault(stem, []).append(row)
    told = []
    for convention, stems in groups.items():
        lines = []
        for stem, alike in stems.items():
            if len(alike) == 1:
                cells = [_cell(alike[0].scores[name], False, notes) for name in subjects]
            else:
                cells = [_listed([(row.metric, row.scores[name]) for row in alike]) for name in subjects]
            way = Cell(_capital(_HASH.sub(r"\1…", terms(_shared([row.definition for row in alike])))))
            lines.append(Line(stem, _sense(alike[0]), [*cells, way]))
        told.append(Group(lines, convention))
    return Table(
        caption, [*subjects, "how it is computed, and departs"], told,
        notes=[(mark, note) for note, mark in notes.items()], prose=True,
    )  # fmt: skip


def spread(scores: Scores, of: str) -> list[tuple[str, Score]]:
    """What the first subject scores as `of` (`psnr`, `ssim`) under each convention that has it, by label.

    A PSNR is what is given in dB; an SSIM is named so, on one scale and not one of several.
    """
    subject = next(iter(scores.subjects), "")
    found = []
    for row in scores.table():
        score, metric = row.scores.get(subject), row.metric.lower()
        if of == "psnr":
            fits = row.unit == "dB"
        else:
            fits = of in metric and not any(other in metric for other in ("ms_ssim", "msssim", "ms-ssim", "/"))
        if fits and score is not None and math.isfinite(score.value):
            found.append((row.convention if row.metric == of else f"{row.convention}: {row.metric}", score))
    return found


def figures(score: Score | None) -> tuple[str, str]:
    """A score's value and its interval as text; the interval is empty where there is none."""
    if score is None:
        return "–", ""
    value, _, ends = score.figure.partition(" ")
    return _typeset(value), _typeset(ends)


def _table(groups: Sequence[tuple[str, Sequence[Row]]], caption: str, named: Callable[[Row], str]) -> Table:
    """The rows of all groups under the subjects that have any of them; equal definitions share a footnote."""
    rows = [row for _, group in groups for row in group]
    subjects = _subjects(rows)
    footnotes = Footnotes.of([row.definition for row in rows])
    notes: dict[str, str] = {}
    told = []
    for head, group in groups:
        lines = []
        for row in group:
            best = _best(row)
            cells = [_cell(row.scores[name], name in best, notes) for name in subjects]
            lines.append(Line(named(row), _sense(row), cells, footnotes.marks[terms(row.definition)]))
        told.append(Group(lines, head))
    words = [(mark, _HASH.sub(r"\1…", text)) for mark, text in footnotes.words]
    return Table(
        caption, subjects, told, shared=_HASH.sub(r"\1…", footnotes.shared), footnotes=words,
        notes=[(mark, note) for note, mark in notes.items()],
    )  # fmt: skip


def _subjects(rows: Sequence[Row]) -> list[str]:
    """Those that have a score in any of the rows."""
    return [name for name in (rows[0].scores if rows else ()) if any(row.scores[name] is not None for row in rows)]


def _listed(scores: Sequence[tuple[str, Score | None]]) -> Cell:
    """The scores of rows that share one, each after its number."""
    return Cell("", "\n".join(f"{metric.rpartition('/')[2]}: {' '.join(figures(score))}" for metric, score in scores))


def _shared(definitions: Sequence[Definition]) -> Definition:
    """The first definition with the constants that are the same in all."""
    first = definitions[0]
    same = {
        name: value
        for name, value in first.parameters.items()
        if all(other.parameters.get(name) == value for other in definitions)
    }
    return replace(first, parameters=same)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(score: Score | None, best: bool, notes: dict[str, str]) -> Cell:
    """The score as a cell; its note gets the mark of an equal one, or the next letter."""
    value, ends = figures(score)
    mark = ""
    if score is not None and score.note:
        mark = notes.setdefault(score.note, lettered(len(notes)))
    return Cell(value, ends, best, mark)


def _sense(row: Row) -> str:
    """Unit and better direction: `HU, lower is better`."""
    arrow = {"lower": "↓ lower is better", "higher": "↑ higher is better"}.get(row.definition.better, "")
    return ", ".join(word for word in (row.unit, arrow) if word)


def _typeset(text: str) -> str:
    return text.replace("-inf", "−∞").replace("inf", "∞").replace("nan", "no value").replace("-", "−")


def _best(row: Row) -> set[str]:
    """Subjects with the best value of a row, where several subjects can be told apart by it."""
    told: Mapping[str, float] = {
        name: score.value
        for name, score in row.scores.items()
        if score is not None and name != REAL and not math.isnan(score.value)
    }
    if not row.definition.better or len(told) < 2:
        return set()
    best = (min if row.definition.better == "lower" else max)(told.values())
    found = {name for name, value in told.items() if value == best}
    return found if len(found) < len(told) else set()
