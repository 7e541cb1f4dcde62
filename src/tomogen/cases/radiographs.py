"""Real radiographs beside prepared cases: under `radiographs/` a `catalog.json` and one `.npy` a picture.

What is stored is what networks see (`radiography.normal`), 16 bits a pixel. As of scans, nothing names a patient:
patients are `patient-0001`, pictures are called by their pixels, and no name of a file or folder is kept.
"""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.cases import films
from tomogen.cases.folder import CATALOG, HEADER, SPLITS, write_json
from tomogen.cases.split import Owner, check_fractions, group, pseudonyms, split_patients
from tomogen.errors import DataInvalid, InputMissing, Reason, TomogenError, UsageFault
from tomogen.progress import Progress, silent
from tomogen.radiography.agreement import likely
from tomogen.radiography.normal import seen
from tomogen.radiography.radiograph import KINDS, Radiograph
from tomogen.storage import opened, whole

SCHEMA = 1
FOLDER = "radiographs"
"""Beside the volumes of the prepared cases."""
INDEX = "index.csv"
"""In a source: columns `file` (or `path`), and `view`, `patient` (or `patient_id`), of pictures that cannot say it."""

_WHITE = 65535
_VIEWS = {
    "pa": "pa", "ap": "ap", "f": "frontal", "frontal": "frontal", "l": "lateral", "ll": "lateral",
    "lateral": "lateral", "left": "lateral", "r": "right", "rl": "right", "right": "right",
}  # fmt: skip
"""Words for views in an index."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One stored radiograph."""

    id: str
    view: str
    """Of `KINDS`."""
    stated: bool
    """Whether the file or its index says the view; otherwise it was told by the picture's symmetry."""
    patient: str
    """Pseudonym, the same for all pictures of one patient."""
    split: str
    synthetic: bool
    sha256: str
    """Of the `.npy` file."""


@dataclass(frozen=True, eq=False)
class RadiographFolder:
    """Radiographs that `prepare_radiographs` stored."""

    path: Path
    size: int
    """Pixels along each side."""
    entries: tuple[Entry, ...]
    splitting: Mapping[str, Any] = field(default_factory=dict)
    """How patients were divided: `fractions` of train, val, test and `seed`."""
    refused: tuple[tuple[str, TomogenError], ...] = ()
    """Files that were left out, by name, and why; known to the call that prepared alone, and not stored."""

    @classmethod
    def open(cls, cases: str | Path) -> "RadiographFolder":
        """The radiographs beside the prepared cases in `cases`.

        Raises:
            InputMissing: there are none.
            DataInvalid: the catalog or a picture is damaged or missing.
        """
        path = Path(cases) / FOLDER
        if not (path / CATALOG).is_file():
            raise InputMissing(
                "no radiographs beside these cases", at=cases, fix=f"tomogen prepare SCANS {cases} --radiographs FOLDER"
            )
        with opened(path / CATALOG) as file:
            data = file.read()
        try:
            record = json.loads(data)
            if record["schema"] != SCHEMA:
                raise _damaged(path / CATALOG, f"schema {record['schema']!r}, this version reads {SCHEMA}")
            entries = tuple(Entry(**entry) for entry in record["radiographs"])
            folder = cls(path, int(record["size"]), entries, record["split"])
        except DataInvalid:
            raise
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise _damaged(path / CATALOG, f"the catalog is damaged: {type(error).__name__}") from None
        folder._all_there()
        return folder

    @cached_property
    def digest(self) -> str:
        """sha256 over what the folder holds: the catalog and, through its digests, every pixel."""
        content = {"size": self.size, "radiographs": [asdict(entry) for entry in self.entries]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def pictures(self, view: str | None = None, split: str | None = None) -> list[Entry]:
        """The pictures of a view; of `frontal` those from either side or an unstated one; of None all.

        Raises:
            UsageFault: no such view, no such split.
        """
        if view is not None and view not in KINDS:
            raise UsageFault(f"no such view {view!r}; views: {', '.join(KINDS)}")
        if split is not None and split not in SPLITS:
            raise UsageFault(f"no such split {split!r}; splits: {', '.join(SPLITS)}")
        return [
            entry
            for entry in self.entries
            if view in (None, entry.view, KINDS[entry.view] if view == "frontal" else None)
            and split in (None, entry.split)
        ]

    def read(self, entry: Entry) -> NDArray[np.float32]:
        """A picture as float32 `(size, size)` on 0..1.

        Raises:
            DataInvalid: it is missing or damaged.
        """
        path = self.path / f"{entry.id}.npy"
        try:
            grey = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise _damaged(path, f"a picture cannot be read: {type(error).__name__}") from None
        if grey.shape != (self.size, self.size) or grey.dtype != np.uint16:
            raise _damaged(path, f"uint16 of {self.size} x {self.size} expected, the file holds {grey.dtype}")
        return np.asarray(grey, np.float32) / np.float32(_WHITE)

    def verify(self) -> None:
        """Read every picture and compare it with its sha256.

        Raises:
            DataInvalid: one differs.
        """
        for entry in self.entries:
            path = self.path / f"{entry.id}.npy"
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                    raise _damaged(path, "a picture has changed")

    def _all_there(self) -> None:
        """Raise unless every picture has its length."""
        there = {item.name: item.stat().st_size for item in os.scandir(self.path)}
        for entry in self.entries:
            if there.get(f"{entry.id}.npy") != HEADER + 2 * self.size**2:
                raise _damaged(self.path / f"{entry.id}.npy", "a picture is in the catalog and not on disk")


@dataclass(frozen=True)
class _Picture:
    grey: NDArray[np.uint16]
    view: str
    stated: bool
    synthetic: bool
    owner: Owner


def prepare_radiographs(
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    size: int = 320,
    split: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = silent,
) -> RadiographFolder:
    """Store every radiograph of a chest under `sources` (files, folders) in `out/radiographs`, `(size, size)`.

    Views and patients are what files say; of PNG and JPEG what an `index.csv` at the top of a source says of them.
    Where nobody says the view it is told by the picture's symmetry. Pictures of one patient, and equal ones, fall on
    one side of the split. The same sources give the same bytes, whatever their names and order.

    Raises:
        InputMissing: a source is not there.
        DataInvalid: nothing is usable; an index is damaged.
        UsageFault: a size below 16, fractions that are no division; radiographs are there and not to be overwritten.
    """
    paths = [Path(sources)] if isinstance(sources, str | Path) else [Path(source) for source in sources]
    if size < 16:
        raise UsageFault(f"radiographs have at least 16 x 16 pixels, not {size} x {size}")
    check_fractions(split)
    target = Path(out) / FOLDER
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise UsageFault("radiographs are there already", at=target, fix="--overwrite")
    found: dict[str, _Picture] = {}
    refused: list[tuple[str, TomogenError]] = []
    for number, path in enumerate(paths):
        progress(number, len(paths), "radiographs")
        views, patients = _index(path)
        for name, one in films.each(path, views):
            if isinstance(one, Radiograph):
                picture = _picture(one, size, patients.get(name))
                known = found.setdefault(picture.owner.voxels, picture)
                found[picture.owner.voxels] = _joined(known, picture)
            else:
                refused.append((name, one))
    progress(len(paths), len(paths), "radiographs")
    if not found:
        raise _nothing(paths, refused)
    pictures = [found[digest] for digest in sorted(found)]
    _store(pictures, target, size, split, seed)
    stored = RadiographFolder.open(out)
    return RadiographFolder(stored.path, stored.size, stored.entries, stored.splitting, tuple(refused))


def refuse_none(source: str | Path) -> None:
    """Pass a file or folder with at least one usable radiograph; reads no further than the first.

    Raises:
        InputMissing: it is not there, or holds no file that may be one.
        DataInvalid: none is usable; its index is damaged.
    """
    path = Path(source)
    refused: list[tuple[str, TomogenError]] = []
    for name, one in films.each(path, _index(path)[0]):
        if isinstance(one, Radiograph):
            return
        refused.append((name, one))
    raise _nothing([path], refused)


def _picture(radiograph: Radiograph, size: int, patient: str | None) -> _Picture:
    unit = seen(radiograph, size)
    grey = np.rint(unit * _WHITE).astype(np.uint16)
    names = frozenset(name for name in (patient, radiograph.patient) if name)
    digest = hashlib.sha256(grey.tobytes()).hexdigest()
    view = radiograph.view or likely(unit)
    return _Picture(grey, view, radiograph.view is not None, radiograph.synthetic, Owner(digest, names))


def _joined(one: _Picture, other: _Picture) -> _Picture:
    """Two files of one picture: the one that says more, with the names of both."""
    best = min(one, other, key=lambda picture: (not picture.stated, picture.view == "frontal", picture.view))
    return _Picture(
        best.grey,
        best.view,
        best.stated,
        one.synthetic or other.synthetic,
        Owner(one.owner.voxels, one.owner.names | other.owner.names),
    )


def _store(
    pictures: Sequence[_Picture], target: Path, size: int, fractions: tuple[float, float, float], seed: int
) -> None:
    """Write the folder, whole or not at all."""
    owners = [picture.owner for picture in pictures]
    groups = group(owners)
    splits = split_patients(groups, owners, fractions, seed)
    belongs = {
        index: (name, side)
        for members, name, side in zip(groups, pseudonyms(len(groups)), splits, strict=True)
        for index in members
    }
    fresh = target.with_name(f"{target.name}.new") if target.is_dir() and any(target.iterdir()) else target
    with whole(fresh) as partial:
        partial.mkdir()
        entries = []
        for index, picture in enumerate(pictures):
            name = picture.owner.voxels[:16]
            path = partial / f"{name}.npy"
            np.save(path, picture.grey)
            patient, side = belongs[index]
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            entries.append(
                Entry(
                    id=name, view=picture.view, stated=picture.stated, patient=patient, split=side,
                    synthetic=picture.synthetic, sha256=sha256,
                )
            )  # fmt: skip
        record = {
            "schema": SCHEMA,
            "size": size,
            "split": {"fractions": list(fractions), "seed": seed},
            "radiographs": [asdict(entry) for entry in entries],
        }
        write_json(partial / CATALOG, record)
    if fresh != target:
        shutil.rmtree(target)
        fresh.rename(target)


def _index(source: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Views and patients by name, as the index of a source gives them; nothing where it has none.

    Raises:
        DataInvalid: it is no CSV, or names no files.
    """
    path = source / INDEX
    if not path.is_file():
        return {}, {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataInvalid(f"not a CSV in UTF-8: {type(error).__name__}", reason=Reason.CORRUPT, at=path) from None
    columns = set(rows[0]) if rows else set()
    if not columns & {"file", "path"}:
        raise DataInvalid(
            "an index of radiographs has a first line with file, and perhaps view and patient",
            reason=Reason.CORRUPT,
            at=path,
            fix="begin it with the line: file,view,patient",
        )
    views: dict[str, str] = {}
    patients: dict[str, str] = {}
    for row in rows:
        name = (row.get("file") or row.get("path") or "").strip()
        view = _VIEWS.get((row.get("view") or "").strip().lower())
        patient = (row.get("patient") or row.get("patient_id") or "").strip()
        if view:
            views[name] = view
        if patient:
            patients[name] = patient
    return views, patients


def _nothing(paths: Sequence[Path], refused: Sequence[tuple[str, TomogenError]]) -> TomogenError:
    if not refused:
        return InputMissing(
            "no radiographs found: no DICOM, PNG or JPEG",
            at=paths[0] if paths else None,
            fix="give the folder that holds them",
        )
    name, first = refused[0]
    more = f", and {len(refused) - 1} more were refused" if len(refused) > 1 else ""
    reason = first.reason if isinstance(first, DataInvalid) else Reason.NOT_CT_FILE
    what = f"no radiograph is usable: {first.what}{more}"
    return DataInvalid(what, reason=reason, at=first.at or name, fix=first.fix)


def _damaged(path: Path, what: str) -> DataInvalid:
    return DataInvalid(what, reason=Reason.CORRUPT, at=path, fix="prepare the radiographs again with --overwrite")
