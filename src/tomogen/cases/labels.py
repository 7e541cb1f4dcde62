"""The feed of models with classes: scans with the class that a CSV names."""

import csv
import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tomogen.cases.feed import Feed, Sample
from tomogen.cases.folder import Case, CaseFolder
from tomogen.cases.scans import Scans
from tomogen.cases.sources import sources
from tomogen.errors import DataInvalid, InputMissing, Reason, RecipeMismatch

LABEL = "label"
"""The condition of a model with classes: one-hot `(B, classes)`, float32."""
COLUMNS = ("case", "path")
"""What a row may name a case by: its own name or its patient's, or the file or folder that it was prepared from."""
SHOWN = 5
"""Names in a message, at most."""


@dataclass(frozen=True)
class Labels:
    """What a CSV says of cases; classes are numbered in the order of their names."""

    path: Path
    of: Mapping[str, str]
    """Case or patient: class. Of a CSV with the column `path`, path: class."""
    by: str = "case"
    """Which of `COLUMNS` the names stood in."""

    @classmethod
    def read(cls, path: str | Path) -> "Labels":
        """The labels of a CSV with the columns `case` and `label`, or `path` and `label`.

        A case goes by its name or by its patient's pseudonym, as catalog.json has them. A path is a scan's file or
        folder, or one with scans of one class, as seen from the CSV's folder or from here; the most exact row counts.

        Raises:
            InputMissing: there is no such file.
            DataInvalid: it is no such CSV, a label is empty, one name has two labels, or all have the same.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise InputMissing(
                f"no labels: {error.strerror}",
                at=path,
                fix="--set data.labels=FILE.csv with the columns case,label or path,label",
            ) from None
        except UnicodeDecodeError:
            raise _damaged(path, "not a CSV in UTF-8") from None
        rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
        header = [name.strip().lower() for name in rows.fieldnames or ()]
        by = next((name for name in COLUMNS if name in header), None)
        if by is None or "label" not in header:
            missing = "'case'" if by is None else "'label'"
            raise _damaged(path, f"no column {missing}; the first line has: {','.join(header) or 'nothing'}")
        if set(COLUMNS) <= set(header):
            raise _damaged(path, "both `case` and `path` name the cases")
        rows.fieldnames = header
        found: dict[str, str] = {}
        for row in rows:
            case, label = ((row[name] or "").strip() for name in (by, "label"))
            if not case or not label:
                raise _damaged(path, f"line {rows.line_num} has no {'label' if case else by}")
            if found.setdefault(case, label) != label:
                raise _damaged(path, f"line {rows.line_num}: {case} is {found[case]!r} and {label!r}")
        labels = cls(path, found, by)
        if len(labels.classes) < 2:
            what = f"all are {labels.classes[0]!r}" if found else "the CSV has no rows"
            fix = "labels of two classes or more, or train without data.labels"
            raise DataInvalid(f"nothing to tell apart: {what}", reason=Reason.TOO_FEW, at=path, fix=fix)
        return labels

    @property
    def classes(self) -> list[str]:
        """Names of the classes, sorted: number i of the label is that of the i-th."""
        return sorted(set(self.of.values()))

    def number(self, case: Case) -> int | None:
        """The class of a case: its own label, else its patient's; None if it has neither."""
        label = self.of.get(case.id, self.of.get(case.patient))
        return None if label is None else self.classes.index(label)

    def among(self, folder: CaseFolder) -> "Labels":
        """These labels by the names of a folder's cases: as they are, unless they are by path.

        No prepared folder holds the names of scans: the scans themselves must be there.

        Raises:
            DataInvalid: a path has no case in the folder, or two that hold one scan differ.
        """
        if self.by == "case":
            return self
        places = {name: self._place(name) for name in self.of}
        found = sources(list(places.values()), folder)
        if empty := [name for name, place in places.items() if place in found.empty]:
            raise self._invalid(
                f"{len(empty)} paths hold no scan that {folder.path.name} was prepared from: {_few(empty)}",
                "paths of scans that were prepared, as seen from the CSV's folder; or the names in catalog.json, with "
                "the columns case,label",
            )
        labels = {place: self.of[name] for name, place in places.items()}
        of: dict[str, str] = {}
        for case, place in found.cases:
            if of.setdefault(case, labels[place]) != labels[place]:
                raise self._invalid(
                    f"two paths hold the scan of {case}, one {of[case]!r} and one {labels[place]!r}",
                    "one label for both: their voxels are the same",
                )
        if missing := set(self.classes) - set(of.values()):
            raise self._invalid(f"no scan is {min(missing)!r}: more exact paths say otherwise", "leave the class out")
        return Labels(self.path, of)

    def _place(self, name: str) -> Path:
        """Where a path leads, from the CSV's folder or from here."""
        near = self.path.parent / name
        return (near if near.exists() else Path(name)).resolve()

    def fit(self, folder: CaseFolder, split: str) -> None:
        """Raise unless all names are those of the folder's cases, and every case of a split has a label.

        Raises:
            DataInvalid: they are not, or one has none, or in `train` a class has no case.
        """
        known = {name for case in folder.cases for name in (case.id, case.patient)}
        if strange := [name for name in self.of if name not in known]:
            near = difflib.get_close_matches(strange[0], sorted(known), 1, 0) or sorted(known)[:1]
            by_path = "scans by their files: the columns path,label"
            fix = f"is {strange[0]} {near[0]}? The names are those in catalog.json; {by_path}" if near else by_path
            raise self._invalid(f"{len(strange)} names are of no case in {folder.path.name}: {_few(strange)}", fix)
        numbers = {case.id: self.number(case) for case in folder.of(split)}
        if without := [name for name, number in numbers.items() if number is None]:
            raise self._invalid(
                f"{len(without)} of {len(numbers)} cases in split {split!r} have no label: {_few(without)}",
                f"a line for each of them, or for its patient, such as: {without[0]},{self.classes[0]}",
            )
        if empty := [name for i, name in enumerate(self.classes) if split == "train" and i not in numbers.values()]:
            raise self._invalid(
                f"no case in split 'train' is {_few(empty)}", "prepare with --split 1 0 0, or leave the class out"
            )

    def _invalid(self, what: str, fix: str | None) -> DataInvalid:
        return DataInvalid(what, reason=Reason.UNPAIRED, at=self.path, fix=fix)


class Labelled:
    """Scans, each with `condition["label"]`: one-hot, float32 `(classes,)`."""

    def __init__(self, scans: Scans, labels: Labels) -> None:
        self.scans, self.classes = scans, labels.classes
        rows = np.eye(len(labels.classes), dtype=np.float32)
        numbers = {item.case.id: labels.number(item.case) for item in scans.items}
        self.rows = {case: rows[number] for case, number in numbers.items() if number is not None}

    @property
    def beside(self) -> str:
        """That of the classes of the cases."""
        told = {case: self.classes[int(row.argmax())] for case, row in self.rows.items()}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def enough(self, needed: int) -> None:
        """Raise unless the scans are enough."""
        self.scans.enough(needed)

    def draw(self, seed: int, number: int) -> Sample:
        """Image `number` of the stream of `seed`, and the class of the case that it is of."""
        case = self.scans.place(seed, number).item.case
        return Sample(self.scans.draw(seed, number).image, {LABEL: self.rows[case.id]})


def labelled(scans: Feed, folder: CaseFolder, path: str | None, classes: int, split: str = "train") -> Feed:
    """`scans` with the labels of the CSV at `path`, for a model with `classes`; as they are if there is neither.

    Raises:
        RecipeMismatch: there are classes and no CSV, or it has another number of them.
        InputMissing, DataInvalid: as `Labels` says.
    """
    if path is None:
        if not classes:
            return scans
        raise RecipeMismatch(
            f"the model has {classes} classes and the recipe no labels",
            fix="--set data.labels=FILE.csv, or --set model.classes=0",
        )
    labels = Labels.read(path)
    if len(labels.classes) != classes:
        raise RecipeMismatch(
            f"the labels have {len(labels.classes)} classes ({_few(labels.classes)}), the model {classes}",
            at=path,
            fix=f"--set model.classes={len(labels.classes)}",
        )
    if not isinstance(scans, Scans):
        raise TypeError(f"labels belong to scans, not to {type(scans).__name__}")
    labels = labels.among(folder)
    labels.fit(folder, split)
    return Labelled(scans, labels)


def _damaged(path: Path, what: str) -> DataInvalid:
    fix = "a CSV that begins with case,label (then such as patient-0001,healthy) or path,label (scans/0007,healthy)"
    return DataInvalid(what, reason=Reason.CORRUPT, at=path, fix=fix)


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
