"""Held-out scans of a prepared folder, cut and windowed as a run's model sees them: what its samples are held to."""

import functools
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tomogen.cases.folder import SPLITS, Case, CaseFolder
from tomogen.cases.scans import items_of
from tomogen.errors import DataInvalid, Reason
from tomogen.evaluation.gather import Source
from tomogen.intensity import Window
from tomogen.volume import Volume, affine_of

SLICES = 8
"""Slices taken from each case for a model of slices, evenly spaced among those that hold a body."""


def chosen_split(folder: CaseFolder, asked: str | None, *, trained_on: bool) -> tuple[str, str]:
    """The split to hold a run to, and a caution: `test` where it has cases, else `val`, else `train`.

    `trained_on` says whether this is the folder that the run learnt from.

    Raises:
        UsageFault: there is no split of that name.
        DataInvalid: the split that was asked for has no cases.
    """
    filled = [split for split in reversed(SPLITS) if folder.of(split)]
    if asked is not None and not folder.of(asked):
        raise DataInvalid(
            f"no cases in split {asked!r}; there are some in {', '.join(reversed(filled))}",
            reason=Reason.TOO_SMALL,
            at=folder.path,
            fix="another --split, or prepare with a --split that leaves some out",
        )
    split = asked or filled[0]
    if not trained_on:
        return split, (
            "these are not the cases that the run was prepared with: nothing tells whether it was trained on some of "
            "them; if so, a model that copies them scores best"
        )
    if split != "train":
        return split, ""
    return split, (
        "scored against the cases it was trained on: a model that copies them scores best; "
        "for a fair score prepare with --split 0.8 0.1 0.1 and train anew"
    )


class Field(NamedTuple):
    """What a run's model works in."""

    shape: tuple[int, ...]
    """Voxels along (depth, height, width); (height, width) of a model of slices."""
    spacing: tuple[float, float, float]
    """mm along (depth, height, width) that its samples are written with."""
    window: Window
    """HU that it can make."""


def held_out(folder: CaseFolder, field: Field, split: str) -> list[Source]:
    """Scans of a split as the model sees them: the middle of each case, or some slices of it as volumes of depth 1.

    HU are clipped to the model's window, and every voxel has the model's spacing: cases that were fitted to one
    shape differ in it, the model knows their median alone, and its samples have that.

    Raises:
        DataInvalid: a case is smaller than the model's images.
    """
    items = items_of(folder, field.shape, split)
    if len(field.shape) == 3:
        return [_source(folder, item.case, field) for item in items]
    slices: dict[str, list[int]] = {}
    for item in items:
        slices.setdefault(item.case.id, []).append(int(item.slice or 0))
    cases = {item.case.id: item.case for item in items}
    return [
        _source(folder, cases[name], field, known[i])
        for name, known in slices.items()
        for i in np.linspace(0, len(known) - 1, min(SLICES, len(known))).round().astype(int)
    ]


def whole(folder: CaseFolder, field: Field, split: str) -> list[Source]:
    """The whole cases that a model of slices learns from, cut to its height and width: what stacks are held to."""
    return [_source(folder, case, field) for case in folder.of(split)]


def _source(folder: CaseFolder, case: Case, field: Field, slice: int | None = None) -> Source:
    name = case.id if slice is None else f"{case.id}/{slice}"
    return Source(name, case.patient, functools.partial(_seen, folder, case, field, slice))


def _seen(folder: CaseFolder, case: Case, field: Field, slice: int | None) -> Volume:
    """The middle of a case, or of one of its slices, on the model's voxels and in its window."""
    volume = folder.volume(case)
    shape = np.array((case.shape[0], *field.shape)[-3:])
    start = (np.array(volume.shape) - shape) // 2
    if slice is not None:
        start[0], shape[0] = slice, 1
    middle = volume.crop(start.tolist(), shape.tolist())
    hu = np.clip(middle.hu, field.window.low, field.window.high).astype(np.int16)
    return replace(middle, hu=hu, affine=affine_of(field.spacing))
