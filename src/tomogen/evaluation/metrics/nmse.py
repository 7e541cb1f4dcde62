"""Normalised mean squared error: sum (made - truth)^2 / sum truth^2, over values that begin at zero.

HU have no natural zero: divided by the energy of HU as they are, the same error would count most where a scan is full
of water. So both scans are HU + 1024 here, nothing below 0: about proportional to the attenuation they stand for.
"""

import math
from collections.abc import Iterator

import numpy as np

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.pair import Pair, Reading
from tomogen.evaluation.standard import LOW, counted


def measure(pair: Pair) -> Iterator[Reading]:
    """`nmse` over the voxels that count; NaN where none does, or all of the truth is nothing.

    Raises:
        DataInvalid: as `standard.check`.
    """
    total = energy = 0.0
    for truth, made in counted(pair):
        a, b = np.maximum(truth - LOW, 0), np.maximum(made - LOW, 0)
        error = b - a
        total += float((error * error).sum())
        energy += float((a * a).sum())
    yield Reading(
        Definition(
            metric="nmse",
            better="lower",
            mask=pair.mask_name,
            reduction="squared error over the truth's energy, sums over voxels",
            preprocessing="HU + 1024, nothing below 0",
            parameters={"offset": -LOW},
        ),
        total / energy if energy else math.nan,
    )
