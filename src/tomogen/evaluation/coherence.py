"""Inter-slice coherence: do neighbouring slices belong together as they do in real scans?

A scan is the more coherent the less its slices change along the depth axis; but a blurred scan changes less along
every axis. So the change from slice to slice is put in relation to the change within the slices over the same mm:

    through(k) = mean |HU(z + k) - HU(z)|                        k = 1, 2, ... slices, k * spacing mm
    within(k)  = mean |HU(. + k * spacing mm) - HU(.)|           along rows and columns
    ratio(k)   = through(k) / within(k)

These are structure functions of order 1 (madograms; Matheron 1989, Estimating and Choosing, chapter 2). The ratio
is 1 where depth is like the other axes, below 1 in bodies, which are long; slices that know nothing of one another
have a ratio far above 1 at small distances. A profile is log2 of the ratio: 1 is twice as unlike.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason
from tomogen.volume import Volume

DISTANCES = 8
"""Distances in slices that a profile has, at most."""
REACH = 0.5
"""Of the smaller side of a slice: no farther than this are pixels compared."""
SLICES = 64
"""Slices that are compared with those above them, at most, evenly spaced."""
LEAST = 2.0**-10
"""Ratio that stands for slices which do not change at all: its logarithm would be infinite."""


def distances(shape: Sequence[int], spacing: Sequence[float]) -> int:
    """For how many distances of 1, 2, ... slices scans of this shape and spacing have a profile.

    None for one slice, or where slices are farther apart than half their side.
    """
    side = min((n - 1) * mm for n, mm in zip(shape[1:], spacing[1:], strict=True))
    return min(DISTANCES, shape[0] - 1, int(REACH * side / spacing[0]))


def profile(volume: Volume, count: int | None = None, at: str | None = None) -> NDArray[np.float64]:
    """log2 of the ratio at distances of 1 to `count` slices (by default as many as `distances` says) up the body.

    Raises:
        DataInvalid: one slice, slices too small, or nothing changes within the slices.
    """
    volume = volume.reorient()
    (depth, height, width), spacing = volume.shape, volume.spacing
    count = distances(volume.shape, spacing) if count is None else count
    farthest = count * spacing[0]
    if not 1 <= count < depth or farthest > min((height - 1) * spacing[1], (width - 1) * spacing[2]):
        raise DataInvalid(
            f"{depth} x {height} x {width} voxels tell nothing of slices {count} apart ({farthest:.3g} mm)",
            reason=Reason.TOO_SMALL,
            at=at,
            fix="scans with more slices than that, wider than that",
        )
    below = np.unique(np.linspace(0, depth - 1, min(depth, SLICES)).round().astype(int))
    planes = volume.hu[below].astype(np.float32)
    found = np.empty(count)
    for k in range(1, count + 1):
        pairs = below < depth - k
        through = _change(volume.hu[below[pairs] + k], planes[pairs])
        within = (_at(planes, 1, k * spacing[0] / spacing[1]) + _at(planes, 2, k * spacing[0] / spacing[2])) / 2
        if within == 0:
            raise DataInvalid("nothing changes within the slices", reason=Reason.CONSTANT, at=at)
        found[k - 1] = np.log2(max(through / within, LEAST))
    return found


def incoherence(real: NDArray[np.float64], made: NDArray[np.float64]) -> float:
    """How far the mean profile of made scans lies from that of real ones: absolute difference, mean over distances.

    `real (n, distances)` and `made (m, distances)`: profiles, a row a scan. 0 is the truth; at 1, slices change twice
    (or half) as much as in real scans of the same sharpness.
    """
    return float(np.abs(made.mean(axis=0) - real.mean(axis=0)).mean())


def _at(planes: NDArray[np.float32], axis: int, lag: float) -> float:
    """Mean absolute change over `lag` pixels along an axis, between whole lags by a straight line; none over 0."""
    low = int(lag)
    share = lag - low
    near = _lagged(planes, axis, low)
    return near if share < 1e-6 else (1 - share) * near + share * _lagged(planes, axis, low + 1)


def _lagged(planes: NDArray[np.float32], axis: int, lag: int) -> float:
    size = planes.shape[axis]
    lag = min(lag, size - 1)
    if lag == 0:
        return 0.0
    first, second = [slice(None)] * 3, [slice(None)] * 3
    first[axis], second[axis] = slice(0, size - lag), slice(lag, size)
    return _change(planes[tuple(second)], planes[tuple(first)])


def _change(a: NDArray[np.int16 | np.float32], b: NDArray[np.float32]) -> float:
    return float(np.mean([np.abs(x - y).mean(dtype=np.float64) for x, y in zip(a, b, strict=True)]))
