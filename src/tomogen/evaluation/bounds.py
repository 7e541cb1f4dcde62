"""Bounds: the least and the most that a metric can be, whatever the scans; an interval goes no further."""

import math
import re

_ANY = (-math.inf, math.inf)
_POSITIVE = (0.0, math.inf)
_SHARE = (0.0, 1.0)
_LIKENESS = (-1.0, 1.0)

_BOUNDS = {
    "mae": _POSITIVE, "mse": _POSITIVE, "rmse": _POSITIVE, "nmse": _POSITIVE, "nrmse": _POSITIVE, "cnr": _POSITIVE,
    "ssim": _LIKENESS, "msssim": _LIKENESS, "cosinesimilarity": _LIKENESS,
    "fid": _POSITIVE, "density": _POSITIVE, "histogram": _POSITIVE, "coherence": _POSITIVE,
    "precision": _SHARE, "recall": _SHARE, "coverage": _SHARE,
    "above": _ANY,
}  # fmt: skip
"""By a word of the metric's name. PSNR, a bias, KID and MMD, which are unbiased estimates, and a distance above its
floor have none."""


def of(metric: str) -> tuple[float, float]:
    """Of a metric by its name (`mae/lung`, `ms_ssim`, `SSIM-avg`, `hu_histogram`); infinite where there are none."""
    found = [_BOUNDS[word] for word in re.findall("[a-z]+", metric.lower()) if word in _BOUNDS]
    return _ANY if _ANY in found or not found else found[0]
