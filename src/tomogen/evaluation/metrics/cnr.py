"""Contrast-to-noise ratio of a structure: |mean inside - mean of a shell around it| / standard deviation in the shell.

The shell are the voxels more than 2 mm and at most 10 mm from the nearest voxel of the structure, centre to centre:
near enough to be its surroundings, beyond the voxels that it shares with them. One structure, one number each for the
truth and for what was made, and their ratio: below 1 a method has blurred the structure away or made noise around it.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.pair import Pair, Reading
from tomogen.evaluation.standard import check

GAP, REACH = 2.0, 10.0
"""mm from the structure to the shell's inner and outer border."""

STRUCTURE = "structure: "
"""How the name of a mask begins that marks a structure, and not the voxels that count."""


def measure(pair: Pair) -> Iterator[Reading]:
    """`cnr/truth`, `cnr/made`, `cnr/ratio`, where the mask's name says that it marks a structure; nothing otherwise.

    NaN where the shell has fewer than two voxels or one value only; the ratio also where the truth has no contrast.

    Raises:
        DataInvalid: as `standard.check`.
    """
    if pair.mask is None or not pair.mask_name.startswith(STRUCTURE):
        return
    check(pair)
    truth, made = (cnr(scan, pair.mask, pair.spacing) for scan in (pair.truth, pair.made))
    values = {"truth": truth, "made": made, "ratio": made / truth if truth else math.nan}
    for name, value in values.items():
        yield Reading(
            Definition(
                metric=f"cnr/{name}",
                mask=pair.mask_name,
                reduction="|mean inside - mean of the shell| / standard deviation in the shell"
                + ("; what was made over the truth" if name == "ratio" else ""),
                parameters={"shell from mm": GAP, "shell to mm": REACH},
            ),
            value,
        )


def cnr(image: NDArray[Any], structure: NDArray[np.bool_], spacing: tuple[float, float, float]) -> float:
    """Contrast-to-noise ratio of a structure in an image `(depth, height, width)`, voxels of `spacing` mm.

    NaN where the structure is empty, or its shell has fewer than two voxels or one value only.
    """
    box = _around(structure, spacing)
    if box is None:
        return math.nan
    image, structure = image[box].astype(np.float64), structure[box]
    distance = ndimage.distance_transform_edt(~structure, sampling=spacing)
    outside = image[(distance > GAP) & (distance <= REACH)]
    if outside.size < 2 or outside.min() == outside.max():
        return math.nan
    return float(abs(image[structure].mean() - outside.mean()) / outside.std())


def _around(structure: NDArray[np.bool_], spacing: tuple[float, float, float]) -> tuple[slice, ...] | None:
    """The box that holds the structure and its shell; None of an empty one."""
    box = []
    for axis, mm in enumerate(spacing):
        held = np.flatnonzero(structure.any(axis=tuple({0, 1, 2} - {axis})))
        if not held.size:
            return None
        reach = math.ceil(REACH / mm)
        box.append(slice(max(0, int(held[0]) - reach), int(held[-1]) + reach + 1))
    return tuple(box)
