"""Marks: label files that say which voxels of a scan count, or are a structure."""

import difflib
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomogen import formats
from tomogen.cases.steps import find_body
from tomogen.errors import DataInvalid, InputMissing, Reason
from tomogen.evaluation.grids import Box, difference
from tomogen.evaluation.metrics.cnr import STRUCTURE
from tomogen.formats import ReadOptions
from tomogen.volume import Volume

MOST = 256
"""Labels that a file may hold; a CT has thousands of values."""


BODY, GIVEN = "body", "given: "


class Marks:
    """The voxels that count and those of a structure, scan by scan, and what both are called in definitions.

    `mask` is None for all voxels, `body`, or label files; `structure` None or label files.
    """

    def __init__(self, mask: str | Path | None, structure: str | Path | None, options: ReadOptions) -> None:
        self.options = options
        self.paths = {GIVEN: None if mask == BODY else mask, STRUCTURE: structure}
        self.counted = "none" if mask is None else BODY if mask == BODY else f"{GIVEN}{Path(mask).name}"
        self.structured = "" if structure is None else f"{STRUCTURE}{Path(structure).name}"
        self.hashes = {name: hashlib.sha256() for name in self.paths}

    def counting(self, truth: Volume, scan: str, box: Box) -> NDArray[np.bool_] | None:
        """Voxels that count, of those of `truth` in the box; None for all."""
        return _body(truth)[box] if self.counted == BODY else self._of_file(GIVEN, truth, scan, box)

    def structure(self, truth: Volume, scan: str, box: Box) -> NDArray[np.bool_] | None:
        """Voxels of the structure, of those of `truth` in the box; None where none was asked for."""
        return self._of_file(STRUCTURE, truth, scan, box)

    def names(self) -> dict[str, str]:
        """For the names of label files, the same with a hash of what they mark, in all scans together."""
        told = {GIVEN: self.counted, STRUCTURE: self.structured}
        return {
            told[kind]: f"{told[kind]}, SHA-256 {self.hashes[kind].hexdigest()[:8]}"
            for kind, path in self.paths.items()
            if path is not None
        }

    def _of_file(self, kind: str, truth: Volume, scan: str, box: Box) -> NDArray[np.bool_] | None:
        path = self.paths[kind]
        if path is None:
            return None
        marks = marked(path, scan, truth, self.options)
        self.hashes[kind].update(str(marks.shape).encode())
        self.hashes[kind].update(np.packbits(marks).data)
        return marks[box]


def marked(path: str | Path, scan: str, truth: Volume, options: ReadOptions) -> NDArray[np.bool_]:
    """Voxels of `truth` that the label file at `path`, or the one named `scan` in that folder, marks: labels above 0.

    Raises:
        InputMissing: there is no such file.
        DataInvalid: it lies on another grid, marks nothing, or holds no labels: whole numbers from 0, few of them.
    """
    path = Path(path)
    file = path if path.is_file() else _named(path, scan)
    labels = _read(file, replace(options, assume_hu=True, modality="any"))
    labels = labels if labels.orientation == truth.orientation else labels.reorient(truth.orientation)
    if unlike := difference(truth, labels):
        raise DataInvalid(f"the mask lies on another grid: {unlike}", reason=Reason.UNPAIRED, at=file)
    if wrong := _no_labels(labels.hu):
        raise DataInvalid(
            f"the mask holds {wrong}; labels are whole numbers from 0, at most {MOST} of them",
            reason=Reason.MASK,
            at=file,
            fix="is this the scan itself?",
        )
    marks: NDArray[np.bool_] = labels.hu > 0
    if not marks.any():
        raise DataInvalid("the mask marks no voxel", reason=Reason.CONSTANT, at=file)
    return marks


def _read(file: Path, options: ReadOptions) -> Volume:
    """The labels of a file; one value everywhere, which is no scan, may be a mask of all voxels."""
    try:
        return formats.read(file, options)
    except DataInvalid as error:
        module = formats.format_of(file)
        if error.reason is not Reason.CONSTANT or not hasattr(module, "header"):
            raise
        level = float(error.what.rpartition(" ")[2])  # as in "every voxel is 1"
        header = module.header(file, options)
        return Volume(np.full(header.shape, level, dtype=np.float32), header.affine)


def _no_labels(values: NDArray[np.int16 | np.float32]) -> str:
    """What shows that values are no labels; nothing if they may be."""
    if values.min() < 0:
        return f"values down to {values.min():g}"
    if values.dtype.kind == "f" and any((part != np.rint(part)).any() for part in values):
        return "values that are not whole"
    count = len(np.unique(values))
    return f"{count} different values" if count > MOST else ""


def _named(folder: Path, scan: str) -> Path:
    """The label file of a scan in a folder."""
    if not folder.is_dir():
        meant = difflib.get_close_matches(folder.name, [BODY], n=1)
        hint = f"; did you mean {meant[0]}?" if meant else formats.near(folder)
        raise InputMissing(f"no such file or folder{hint}", at=folder)
    place = (folder / scan).parent
    for file in sorted(place.iterdir()) if place.is_dir() else ():
        if file.is_file() and formats.stem(file) == Path(scan).name:
            return file
    raise InputMissing(f"no mask for {scan}", at=folder, fix=f"name it {scan} with the ending of its format")


def _body(truth: Volume) -> NDArray[np.bool_]:
    """The patient's voxels, found on the house's orientation."""
    upright = truth.reorient()
    body = Volume(find_body(upright).astype(np.int16), upright.affine)
    found: NDArray[np.bool_] = body.reorient(truth.orientation).hu > 0
    return found
