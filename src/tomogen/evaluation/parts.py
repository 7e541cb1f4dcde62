"""Parts: real scans set apart from other real scans, so that real against real can stand beside made against real."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Chosen = NDArray[np.intp]
"""Indices of scans, in order."""

PARTS = 10
"""Random parts that a floor is a mean over."""


class Part(NamedTuple):
    """Real scans to compare with, and as many real and made scans that are compared with them."""

    reference: Chosen
    real: Chosen
    made: Chosen


def parts(patients: Sequence[str], made: int, seed: int, count: int = PARTS) -> list[Part]:
    """Random parts: as many real scans as made ones, or half of the real, set apart; no patient is on both sides.

    `patients` names the patient of each real scan, `made` is the number of made ones. All parts have the same sizes;
    each is a function of the seed and its number. Nothing where there is a single patient.
    """
    names, of = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if len(names) < 2:
        return []
    wanted = min(made, len(of) // 2)
    drawn = []
    for number in range(count):
        random = np.random.default_rng((seed, number))
        order = random.permutation(len(names))
        reach = np.cumsum(np.bincount(of)[order])
        # of patients with many scans more than it takes: made scans are of as many patients as they are scans
        needed = max(int(np.searchsorted(reach, wanted)) + 1, min(wanted, len(names) // 2))
        inside = min(needed, len(names) - 1)
        apart = np.isin(of, order[:inside])
        drawn.append([random.permutation(rows) for rows in (np.flatnonzero(~apart), np.flatnonzero(apart))])
        drawn[-1].append(random.permutation(made))
    kept = min(len(reference) for reference, _, _ in drawn)
    size = min(wanted, *(len(real) for _, real, _ in drawn))
    return [Part(np.sort(a[:kept]), np.sort(b[:size]), np.sort(c[:size])) for a, b, c in drawn]


def over(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """The mean over parts, and where 95 % of them lie (percentiles 2.5 and 97.5)."""
    found = np.asarray(values, dtype=np.float64)
    if not np.isfinite(found).all():
        return math.nan, None
    low, high = np.percentile(found, (2.5, 97.5))
    return float(found.mean()), (float(low), float(high))
