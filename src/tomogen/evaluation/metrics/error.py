"""Errors in HU: mean absolute, root mean square, and mean (bias), over all voxels and in each tissue of the truth.

    MAE = mean |made - truth|,  RMSE = sqrt(mean (made - truth)^2),  bias = mean (made - truth)

Nothing is clipped. Voxels belong to the tissue that the truth shows there, whatever was made. A tissue that no voxel
shows has no error: NaN.
"""

import math
from collections.abc import Iterator

import numpy as np

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.pair import Pair, Reading
from tomogen.evaluation.standard import counted
from tomogen.evaluation.tissue import TISSUES


def measure(pair: Pair) -> Iterator[Reading]:
    """`mae`, `rmse`, `bias`, then `mae/lung` and the like for each tissue.

    Raises:
        DataInvalid: as `standard.check`.
    """
    edges = np.array([tissue.low for tissue in TISSUES[1:]])
    sums = np.zeros((4, len(TISSUES)))
    for truth, made in counted(pair):
        error = made - truth
        tissue = np.searchsorted(edges, truth, side="right")
        for row, weights in zip(sums, (None, np.abs(error), error * error, error), strict=True):
            row += np.bincount(tissue, weights, minlength=len(TISSUES))
    names = ["", *(f"/{one.name}" for one in TISSUES)]
    limits = [{}, *(one.limits() for one in TISSUES)]
    columns = np.column_stack([sums.sum(axis=1), sums]).T
    for name, band, (count, absolute, square, signed) in zip(names, limits, columns, strict=True):
        for metric, better, total in (("mae", "lower", absolute), ("rmse", "lower", square), ("bias", "", signed)):
            value = float(total / count) if count else math.nan
            where = "voxels of the truth's band" if name else "voxels"
            yield Reading(
                Definition(
                    metric=metric + name,
                    unit="HU",
                    better=better,
                    mask=pair.mask_name,
                    reduction=f"root of the mean over {where}" if metric == "rmse" else f"mean over {where}",
                    parameters=band,
                ),
                math.sqrt(value) if metric == "rmse" else value,
            )
