"""Marks: label files that say which voxels of a scan count, or are a structure."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomogen import formats
from tomogen.errors import DataInvalid, InputMissing, Reason
from tomogen.evaluation.grids import difference
from tomogen.formats import ReadOptions
from tomogen.volume import Volume


def marked(path: str | Path, scan: str, truth: Volume, options: ReadOptions) -> NDArray[np.bool_]:
    """Voxels of `truth` that the label file at `path`, or the one named `scan` in that folder, marks with above 0.5.

    Raises:
        InputMissing: there is no such file.
        DataInvalid: it lies on another grid, or marks nothing.
    """
    path = Path(path)
    file = path if path.is_file() else _named(path, scan)
    labels = formats.read(file, replace(options, assume_hu=True, modality="any"))
    labels = labels if labels.orientation == truth.orientation else labels.reorient(truth.orientation)
    if unlike := difference(truth, labels):
        raise DataInvalid(f"the mask lies on another grid: {unlike}", reason=Reason.UNPAIRED, at=file)
    marks: NDArray[np.bool_] = labels.hu > 0.5
    if not marks.any():
        raise DataInvalid("the mask marks no voxel", reason=Reason.CONSTANT, at=file)
    return marks


def _named(folder: Path, scan: str) -> Path:
    """The label file of a scan in a folder."""
    if not folder.is_dir():
        raise InputMissing(f"no such file or folder{formats.near(folder)}", at=folder)
    place = (folder / scan).parent
    for file in sorted(place.iterdir()) if place.is_dir() else ():
        if file.is_file() and formats.stem(file) == Path(scan).name:
            return file
    raise InputMissing(f"no mask for {scan}", at=folder, fix=f"name it {scan} with the ending of its format")
