"""Sums of kernel values by patient: from them follow the squared MMD of any resample of patients, and its spread."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


class KernelSums:
    """Kernel values, and how many they are, summed over the rows of each two patients; no row with itself.

    From matrices (n, n), (m, m), (n, m) and the number of each row's patient, from 0 on each side.
    """

    def __init__(self, real: Floats, made: Floats, across: Floats, real_owner: Rows, made_owner: Rows) -> None:
        r, m = _members(real_owner), _members(made_owner)
        r_rows, m_rows = r.sum(axis=1), m.sum(axis=1)
        self.real = r @ real @ r.T - np.diag(r @ np.diagonal(real))
        self.made = m @ made @ m.T - np.diag(m @ np.diagonal(made))
        self.across = r @ across @ m.T
        self.real_pairs = np.outer(r_rows, r_rows) - np.diag(r_rows)
        self.made_pairs = np.outer(m_rows, m_rows) - np.diag(m_rows)
        self.across_pairs = np.outer(r_rows, m_rows)
        self.scale = float(max(np.abs(one).max() for one in (real, made, across)))
        """The largest kernel value."""

    def mmd(self, real: Floats, made: Floats) -> tuple[Floats, Floats]:
        """The unbiased squared MMD (resamples,) and its jackknife variance by side (2, resamples).

        `real` and `made` (resamples, patients) say how often each patient is in. Patients are left out one copy at a
        time (Efron and Stein 1981). NaN or infinite where no pairs are left.
        """
        xx, xx_without = _within(self.real, self.real_pairs, real)
        yy, yy_without = _within(self.made, self.made_pairs, made)
        xy, without_x, without_y = _across(self.across, self.across_pairs, real, made)
        of_real = _spread(xx_without - 2 * without_x, real)
        of_made = _spread(yy_without - 2 * without_y, made)
        return xx + yy - 2 * xy, np.stack([of_real, of_made])


def _members(owner: Rows) -> sparse.csr_array:
    """1 where a row (across) is of a patient (down)."""
    return sparse.csr_array((np.ones(len(owner)), (owner, np.arange(len(owner)))))


def _within(sums: Floats, pairs: Floats, times: Floats) -> tuple[Floats, Floats]:
    """Mean over all pairs of patients drawn so often, and that without one copy of each."""
    kernel, count = times @ sums, times @ pairs
    whole, many = (kernel * times).sum(axis=1), (count * times).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (whole[:, None] - 2 * kernel + np.diagonal(sums)) / (many[:, None] - 2 * count + np.diagonal(pairs))
        return whole / many, without


def _across(sums: Floats, pairs: Floats, real: Floats, made: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean over all pairs across; that without one copy of each real patient; without one of each made."""
    kernel, count = real @ sums, real @ pairs
    whole, many = (kernel * made).sum(axis=1), (count * made).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        without_real = (whole[:, None] - made @ sums.T) / (many[:, None] - made @ pairs.T)
        without_made = (whole[:, None] - kernel) / (many[:, None] - count)
        return whole / many, without_real, without_made


def _spread(without: Floats, times: Floats) -> Floats:
    """The jackknife's variance of each resample from the values without one copy of each patient."""
    count = times.sum(axis=1)
    without = np.where(times > 0, without, 0)
    with np.errstate(invalid="ignore"):
        off = without - ((times * without).sum(axis=1) / count)[:, None]
        variance: Floats = (count - 1) / count * (times * off**2).sum(axis=1)
    return variance
