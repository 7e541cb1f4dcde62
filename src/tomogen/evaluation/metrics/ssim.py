"""Structural similarity in three dimensions (Wang, Bovik, Sheikh, Simoncelli 2004, equation 13).

    SSIM = (2 mu_x mu_y + C1) (2 sigma_xy + C2) / ((mu_x^2 + mu_y^2 + C1) (sigma_x^2 + sigma_y^2 + C2))

under a Gaussian window of sigma 1.5 and 11 taps along each of the three axes; K1 = .01, K2 = .03; population
(co)variances; HU clipped to [-1024, 3000] and 1024 added, so that the data range is 4024 and nothing is negative. The
mean is over windows wholly inside the scan, with a mask those whose centre it holds; a window may reach out of the
mask, but never out of the scan. scikit-image gives the same with `gaussian_weights=True, sigma=1.5,
use_sample_covariance=False`.

A scan of fewer than 11 slices holds no window: its SSIM is NaN. A window of 2D slices would be another metric.
"""

from collections.abc import Iterator

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.local import gaussian
from tomogen.evaluation.pair import Pair, Reading
from tomogen.evaluation.standard import PEAK, RANGE, above_low, check
from tomogen.evaluation.structure import K1, K2, means

SIGMA, TAPS = 1.5, 11


def measure(pair: Pair) -> Iterator[Reading]:
    """`ssim` in float64; NaN where no window fits, or none has its centre in the mask.

    Raises:
        DataInvalid: as `standard.check`.
    """
    check(pair)
    found = means(pair.truth, pair.made, gaussian(SIGMA, TAPS), PEAK, change=above_low, where=pair.mask)
    yield Reading(
        Definition(
            metric="ssim",
            better="higher",
            range=RANGE,
            mask=pair.mask_name,
            reduction="mean over windows wholly inside",
            parameters={"window": "Gaussian", "sigma": SIGMA, "taps": TAPS, "K1": K1, "K2": K2, "peak": PEAK},
        ),
        found.ssim,
    )
