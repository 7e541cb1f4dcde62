"""Scores: subjects (what was made, and floors) side by side, as a table, as text, as JSON."""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tomogen import storage
from tomogen.errors import DataInvalid, Reason, UsageFault
from tomogen.evaluation.definition import Definition
from tomogen.evaluation.score import Score, unlike
from tomogen.evaluation.subjects import REAL
from tomogen.evaluation.unbeaten import averaged, unbeaten
from tomogen.evaluation.words import Footnotes, terms

SCHEMA = 1
WIDTH = 100
"""Columns of the text."""


@dataclass(frozen=True)
class Row:
    """One metric under one convention: the same definition for every subject that has it."""

    definition: Definition
    scores: Mapping[str, Score | None]
    """By subject, all of them; None where a subject was not scored so."""

    @property
    def beside_real(self) -> bool:
        """Whether real scans were scored so as well."""
        return self.scores.get(REAL) is not None

    @property
    def metric(self) -> str:
        """As in the definition."""
        return self.definition.metric

    @property
    def convention(self) -> str:
        """As in the definition."""
        return self.definition.convention

    @property
    def unit(self) -> str:
        """As in the definition."""
        return self.definition.unit


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What an evaluation found.

    Raises:
        DataInvalid: a subject has two scores of one metric and convention.
    """

    kind: str
    """`pairs`, `sets` or `run`."""
    subjects: Mapping[str, Sequence[Score]]
    """What was made and its floors, by the names in `evaluation.subjects`."""
    notes: Sequence[str] = ()
    """Sentences for the reader about the whole."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Inputs, versions, wall time."""

    def __post_init__(self) -> None:
        for subject, scores in self.subjects.items():
            seen = set()
            for score in scores:
                key = _key(score)
                if key in seen:
                    raise DataInvalid(
                        f"two scores of {key[0]} ({key[1]}) for {subject!r}, one expected", reason=Reason.DUPLICATE
                    )
                seen.add(key)

    def get(self, subject: str, metric: str, convention: str = "standard") -> Score:
        """The score of a subject.

        Raises:
            UsageFault: there is none; what there is is listed.
        """
        if subject not in self.subjects:
            raise UsageFault(f"no subject {subject!r}; there are: {', '.join(self.subjects) or 'none'}")
        for score in self.subjects[subject]:
            if _key(score) == (metric, convention):
                return score
        there = ", ".join(f"{name} ({way})" for name, way in map(_key, self.subjects[subject]))
        raise UsageFault(f"no score {metric} ({convention}) for {subject!r}; there are: {there or 'none'}")

    def table(self) -> list[Row]:
        """A row for each metric and convention, in the order of their first mention; the standard first.

        Raises:
            DataInvalid: two subjects in one row have unlike definitions; both are named, and each difference.
        """
        rows: dict[tuple[str, str], dict[str, Score]] = {}
        for subject, scores in self.subjects.items():
            for score in scores:
                row = rows.setdefault(_key(score), {})
                if row:
                    first, other = next(iter(row.items()))
                    if differences := other.definition.differences(score.definition):
                        metric, convention = _key(score)
                        raise unlike(f"{metric} ({convention}) of {first!r} and of {subject!r}", differences)
                row[subject] = score
        table = [
            Row(next(iter(row.values())).definition, {subject: row.get(subject) for subject in self.subjects})
            for row in rows.values()
        ]
        conventions = list(dict.fromkeys(row.convention for row in table))
        return sorted(table, key=lambda row: (row.convention != "standard", conventions.index(row.convention)))

    def unbeaten(self) -> list[str]:
        """A sentence for each floor that the first subject does not beat everywhere."""
        return unbeaten(self.table(), next(iter(self.subjects), ""))

    def text(self, *, full: bool = True) -> str:
        """The table with its definitions as footnotes, notes, unbeaten floors and facts, within 100 columns.

        Not `full`: without rows that have no value, without single planes where their mean is told, and without the
        definitions of conventions.
        """
        table = self.table()
        if not full:
            named = {row.metric for row in table}
            table = [row for row in table if _told(row) and not averaged(row.metric) & named]
        parts: list[str] = []
        for convention in dict.fromkeys(row.convention for row in table):
            explained = full or convention == "standard"
            for beside in (False, True):  # what real scans stand beside has columns of its own
                rows = [row for row in table if (row.convention, row.beside_real) == (convention, beside)]
                parts += self._of_convention(rows, explained) if rows else []
        if not full and any(row.convention != "standard" for row in table):
            parts.append("What each convention is and how it departs from the standard: -v, or the report.")
        said = [*self.notes, *self.unbeaten()]
        if notes := [*self._remarks(), *(_hanging("- ", note) for note in said)]:
            parts.append("\n".join(notes))
        if self.facts:
            parts.append("\n".join(_hanging(f"{name}: ", value) for name, value in self.facts.items()))
        return "\n\n".join(parts)

    def _of_convention(self, rows: Sequence[Row], explained: bool) -> list[str]:
        """The blocks of some rows of one convention and, where wanted, what they are scores of."""
        footnotes = Footnotes.of([row.definition for row in rows]) if explained else None
        subjects = [name for name in self.subjects if any(row.scores[name] is not None for row in rows)]
        found = [f"{rows[0].convention}\n{block}" for block in _blocks(rows, subjects, footnotes)]
        if footnotes is not None:
            lines = [_hanging("all ", footnotes.shared)] if footnotes.shared else []
            lines += [_hanging(f"[{mark}] ", text) for mark, text in footnotes.words]
            found.append("\n".join(lines))
        return found

    def _remarks(self) -> list[str]:
        """The notes of scores, each once, with the scores that it is about."""
        about: dict[str, dict[str, None]] = {}
        for scores in self.subjects.values():
            for score in scores:
                if score.note:
                    about.setdefault(score.note, {})[_label(score)] = None
        return [_hanging("* ", f"{', '.join(labels)}: {note}") for note, labels in about.items()]

    def to_json(self) -> str:
        """As strict JSON."""
        record = {
            "schema": SCHEMA,
            "kind": self.kind,
            "subjects": {name: [score.record() for score in scores] for name, scores in self.subjects.items()},
            "notes": list(self.notes),
            "facts": dict(self.facts),
        }
        return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, at: str | Path | None = None) -> "Scores":
        """From what `to_json` gave; `at` is the file it was read from.

        Raises:
            DataInvalid: damaged, something else, or of a schema that this version does not know.
        """
        try:
            record = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise _damaged(f"not JSON ({error})", at) from None
        if not isinstance(record, dict) or "schema" not in record:
            raise _damaged("no `schema`: not scores as tomogen writes them", at)
        if record["schema"] != SCHEMA:
            raise DataInvalid(
                f"scores of schema {record['schema']!r}; this version of tomogen reads {SCHEMA}",
                reason=Reason.CORRUPT,
                at=at,
                fix="read them with the version that wrote them, or score again",
            )
        subjects, notes, facts = (record.get(name) for name in ("subjects", "notes", "facts"))
        if not isinstance(record.get("kind"), str):
            raise _damaged("`kind`: text is expected", at)
        if not isinstance(subjects, dict) or not all(isinstance(scores, list) for scores in subjects.values()):
            raise _damaged("`subjects`: lists of scores by name are expected", at)
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise _damaged("`notes`: a list of sentences is expected", at)
        if not isinstance(facts, dict) or not all(isinstance(fact, str) for fact in facts.values()):
            raise _damaged("`facts`: texts by name are expected", at)
        try:
            read = {name: tuple(Score.of_record(score) for score in scores) for name, scores in subjects.items()}
            return cls(kind=record["kind"], subjects=read, notes=tuple(notes), facts=facts)
        except DataInvalid as error:
            raise DataInvalid(error.what, reason=error.reason, at=at, fix=error.fix or _FIX) from None

    def write(self, path: str | Path) -> None:
        """Write the JSON, whole or not at all; a file of that name is replaced.

        Raises:
            UsageFault: `path` is a folder that is not empty.
        """
        with storage.whole(Path(path)) as partial:
            partial.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> "Scores":
        """The scores in a file.

        Raises:
            InputMissing: it is not there or cannot be read.
            DataInvalid: as `from_json` says.
        """
        with storage.opened(Path(path)) as file:
            content = file.read()
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise _damaged("not text in UTF-8", path) from None
        return cls.from_json(text, at=path)


_FIX = "score again, with --overwrite"


def _key(score: Score) -> tuple[str, str]:
    return score.definition.metric, score.definition.convention


def _label(score: Score) -> str:
    metric, convention = _key(score)
    return metric if convention == "standard" else f"{metric} ({convention})"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _damaged(what: str, at: str | Path | None) -> DataInvalid:
    return DataInvalid(what, reason=Reason.CORRUPT, at=at, fix=_FIX)


def _blocks(rows: Sequence[Row], subjects: Sequence[str], footnotes: Footnotes | None) -> list[str]:
    """The rows in columns; where the subjects do not fit side by side, in several blocks."""
    left = [["", "", *(row.metric for row in rows)], ["", "", *(row.unit for row in rows)]]
    right = ["", "", *(_reference(row, footnotes) for row in rows)]
    columns = {name: [*_head(name), *(_cell(row.scores[name]) for row in rows)] for name in subjects}
    room = WIDTH - sum(_width(column) + 2 for column in (*left, right))
    blocks: list[list[str]] = [[]]
    taken = 0
    for name, column in columns.items():
        if blocks[-1] and taken + _width(column) + 2 > room:
            blocks.append([])
            taken = 0
        blocks[-1].append(name)
        taken += _width(column) + 2
    found = []
    for names in blocks:
        told = [0, 1, *(at for at, row in enumerate(rows, 2) if any(row.scores[name] for name in names))]
        found.append(
            _aligned([[column[at] for at in told] for column in (*left, *(columns[name] for name in names), right)])
        )
    return found


def _reference(row: Row, footnotes: Footnotes | None) -> str:
    """The row's footnotes as `[A, 3]`; nothing where there are none."""
    marks = footnotes.marks[terms(row.definition)] if footnotes is not None else ()
    return f"[{', '.join(marks)}]" if marks else ""


def _told(row: Row) -> bool:
    """Whether any subject has a value there."""
    return any(score is not None and not math.isnan(score.value) for score in row.scores.values())


def _head(subject: str) -> tuple[str, str]:
    """A subject over two lines: `floor: blurred truth` as `floor:` and `blurred truth`."""
    kind, colon, rest = subject.partition(": ")
    return (kind + ":", rest) if colon else ("", subject)


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    return score.figure + ("*" if score.note else "")


def _width(column: Sequence[str]) -> int:
    return max(len(cell) for cell in column)


def _aligned(columns: Sequence[Sequence[str]]) -> str:
    columns = [column for column in columns if any(column)]
    widths = [_width(column) for column in columns]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in zip(*columns, strict=True)
    )
    return "\n".join(f"  {line}" for line in lines if line)


def _hanging(mark: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=mark, subsequent_indent=" " * min(len(mark), 8))
