"""Held-out scans of a prepared folder, cut and windowed as a run's model sees them: what its samples are held to."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tomogen.cases.folder import SPLITS, CaseFolder
from tomogen.cases.stream import items_of
from tomogen.errors import DataInvalid, Reason
from tomogen.evaluation.collection import Scan
from tomogen.intensity import Window
from tomogen.volume import Volume, affine_of

SLICES = 8
"""Slices taken from each case for a model of slices, evenly spaced among those that hold a body."""


def chosen_split(folder: CaseFolder, asked: str | None) -> tuple[str, str]:
    """The split to hold a run to, and a caution: `test` where it has cases, else `val`, else what was trained on.

    Raises:
        DataInvalid: the split that was asked for has no cases.
    """
    filled = [split for split in reversed(SPLITS) if folder.of(split)]
    if asked is not None and (asked not in SPLITS or not folder.of(asked)):
        raise DataInvalid(
            f"no cases in split {asked!r}; there are some in {', '.join(reversed(filled))}",
            reason=Reason.TOO_SMALL,
            at=folder.path,
            fix="another --split, or prepare with a --split that leaves some out",
        )
    split = asked or filled[0]
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


def held_out(folder: CaseFolder, field: Field, split: str) -> Iterator[Scan]:
    """Scans of a split as the model sees them: the middle of each case, or some slices of it as volumes of depth 1.

    HU are clipped to the model's window, and every voxel has the model's spacing: cases that were fitted to one
    shape differ in it, the model knows their median alone, and its samples have that.

    Raises:
        DataInvalid: a case is smaller than the model's images.
    """
    shape = field.shape
    slices: dict[str, list[int]] = {}
    for item in items_of(folder, shape, split):
        slices.setdefault(item.case.id, [])
        if item.slice is not None:
            slices[item.case.id].append(item.slice)
    for case in folder.of(split):
        volume = _seen(folder.volume(case), (case.shape[0], *shape)[-3:], field)
        if len(shape) == 3:
            yield Scan(case.id, case.patient, volume)
            continue
        known = slices[case.id]
        taken = np.linspace(0, len(known) - 1, min(SLICES, len(known))).round().astype(int)
        for k in (known[i] for i in taken):
            yield Scan(f"{case.id}/{k}", case.patient, volume.crop((k, 0, 0), (1, *volume.shape[1:])))


def whole(folder: CaseFolder, field: Field, split: str) -> Iterator[Scan]:
    """The whole cases that a model of slices learns from, cut to its height and width: what stacks are held to."""
    for case in folder.of(split):
        yield Scan(case.id, case.patient, _seen(folder.volume(case), (case.shape[0], *field.shape), field))


def _seen(volume: Volume, shape: Sequence[int], field: Field) -> Volume:
    """The middle of a case, on the model's voxels and in its window."""
    start = (np.array(volume.shape) - shape) // 2
    middle = volume.crop(start.tolist(), shape)
    hu = np.clip(middle.hu, field.window.low, field.window.high).astype(np.int16)
    return replace(middle, hu=hu, affine=affine_of(field.spacing))
