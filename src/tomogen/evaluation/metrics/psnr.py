"""Peak signal-to-noise ratio: 10 log10(peak^2 / MSE) in dB, both scans clipped to [-1024, 3000] HU, peak 4024 HU.

The peak is the width of the range that values are clipped to, the same for every scan: an error of 10 HU scores the
same whatever the brightest voxel. Infinite for scans that are equal in the range.
"""

import math
from collections.abc import Iterator

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.pair import Pair, Reading
from tomogen.evaluation.standard import PEAK, RANGE, above_low, counted


def measure(pair: Pair) -> Iterator[Reading]:
    """`psnr` over the voxels that count; NaN where none does.

    Raises:
        DataInvalid: as `standard.check`.
    """
    total, count = 0.0, 0
    for truth, made in counted(pair):
        error = above_low(made) - above_low(truth)
        total += float((error * error).sum())
        count += error.size
    value = math.nan
    if count:
        value = 10 * math.log10(PEAK**2 * count / total) if total else math.inf
    yield Reading(
        Definition(
            metric="psnr",
            unit="dB",
            better="higher",
            range=RANGE,
            mask=pair.mask_name,
            reduction="of the mean over voxels",
            parameters={"peak": PEAK},
        ),
        value,
    )
