"""View: scans as rows of features in one plane, or as volumes, and the distances between any two lots of them.

What pairs of rows have in common (kernels, distances) is computed once; lots of scans, as intervals and floors ask for
by the hundred, read it off.
"""

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from tomogen.evaluation.collection import Rows
from tomogen.evaluation.distances import kernel
from tomogen.evaluation.distances.frechet import LEAST_GROUPS, above_floor, frechet
from tomogen.evaluation.distances.kernel import Grams
from tomogen.evaluation.distances.neighbours import PRDC

Chosen = NDArray[np.intp]
"""Indices of scans, in order."""

FAMILIES = {
    "fid": ("fid",), "fid_above_floor": ("fid_above_floor",), "kid": ("kid",), "mmd": ("mmd",),
    "prdc": ("precision", "recall", "density", "coverage"),
}  # fmt: skip
"""Metrics by what is computed together."""

KERNELS = ("kid", "mmd")
"""Those that are means over pairs of patients."""


class View:
    """Rows of one feature network, of `real` real scans and after them the made ones."""

    def __init__(self, rows: Rows, patients: NDArray[np.str_], real: int) -> None:
        self.rows = rows
        self.patients = patients[rows.scan]
        """Of each row."""
        self.real = int(np.searchsorted(rows.scan, real))
        """Rows of real scans."""
        self._known: dict[tuple[str, int, bytes, bytes], dict[str, float]] = {}
        self._radius: dict[tuple[int, bytes], NDArray[np.float64]] = {}

    def count(self, scans: Chosen) -> int:
        """Rows of these scans."""
        return len(self.rows.of(scans))

    @cached_property
    def sigma(self) -> float:
        """Of the Gaussian kernel: the median distance among the real rows, to 4 digits; NaN of a single row."""
        rows = self.rows.values[: self.real]
        if len(rows) < 2:
            return math.nan
        return float(f"{kernel.median_distance(rows[:1], rows[1:]):.4g}")

    def values(self, family: str, first: Chosen, second: Chosen, k: int = 1) -> dict[str, float]:
        """The metrics of a family of the second lot of scans against the first; `k` neighbours where they count."""
        key = (family, k, first.tobytes(), second.tobytes())
        if key not in self._known:
            self._known[key] = self._computed(family, first, second, k)
        return self._known[key]

    def _computed(self, family: str, first: Chosen, second: Chosen, k: int) -> dict[str, float]:
        if family in KERNELS:
            grams = self.grams(family, first, second)
            few = min(len(grams.real), len(grams.made)) < 2
            return {family: math.nan if few else kernel.mmd(grams)}
        i, j = self.rows.of(first), self.rows.of(second)
        if family == "prdc":
            return self._prdc(i, j, k)._asdict()
        x, y = self.rows.values[i], self.rows.values[j]
        if family == "fid":
            return {"fid": frechet(x, y)}
        groups = self.patients[i].tolist(), self.patients[j].tolist()
        if min(len(set(names)) for names in groups) < LEAST_GROUPS:
            return {"fid_above_floor": math.nan}
        return {"fid_above_floor": above_floor(x, y, *groups)}

    def grams(self, family: str, first: Chosen, second: Chosen) -> Grams:
        """The kernel of KID or of MMD between two lots of scans, a row a patient: its mean over their rows.

        Slices of one scan are no independent draws: over rows, the estimate that leaves out a row's pair with itself
        alone is biased by them, either way (evenly spaced slices of a scan are less alike than chance has it). Over
        patients it is unbiased. With a row a patient the two are equal.
        """
        by_patient = self._polynomial if family == "kid" else self._gaussian
        return by_patient.grams(first, second)

    @cached_property
    def _polynomial(self) -> "ByPatient":
        rows = self.rows.values
        return ByPatient(kernel.polynomial(rows, rows[:1]).real, self.rows.scan, self.patients)

    @cached_property
    def _gaussian(self) -> "ByPatient":
        rows = self.rows.values
        return ByPatient(kernel.gaussian(rows, rows[:1], self.sigma).real, self.rows.scan, self.patients)

    @cached_property
    def _squares(self) -> NDArray[np.float64]:
        """Squared distances of every pair of rows."""
        squares: NDArray[np.float64] = cdist(self.rows.values, self.rows.values, "sqeuclidean")
        return squares

    def _prdc(self, i: Chosen, j: Chosen, k: int) -> PRDC:
        """As `neighbours.prdc` of rows i and j, from distances that are known."""
        squares = self._squares[np.ix_(i, j)]
        inside = squares < self._radii(i, k)[:, None]
        return PRDC(
            precision=float(inside.any(axis=0).mean()),
            recall=float((squares < self._radii(j, k)).any(axis=1).mean()),
            density=float(inside.sum() / (k * len(j))),
            coverage=float(inside.any(axis=1).mean()),
        )

    def _radii(self, rows: Chosen, k: int) -> NDArray[np.float64]:
        """Squared distance of each row to its k-th neighbour among these."""
        key = (k, rows.tobytes())
        if key not in self._radius:
            own = self._squares[np.ix_(rows, rows)]
            np.fill_diagonal(own, np.inf)
            self._radius[key] = np.partition(own, k - 1, axis=1)[:, k - 1]
        return self._radius[key]


class ByPatient:
    """A kernel `(rows, rows)`: its mean over the rows of each pair of scans and, when asked, of patients."""

    def __init__(self, gram: NDArray[np.float64], scan: NDArray[np.intp], patients: NDArray[np.str_]) -> None:
        starts = np.flatnonzero(np.diff(scan, prepend=-1))
        counts = np.bincount(scan)
        self.patients = patients[starts]
        self.scans = np.add.reduceat(np.add.reduceat(gram, starts, axis=0), starts, axis=1) / np.outer(counts, counts)

    def grams(self, first: Chosen, second: Chosen) -> Grams:
        """Of two lots of scans, a row a patient."""
        a, b = self._sharing(first), self._sharing(second)
        return Grams(
            a @ self.scans[np.ix_(first, first)] @ a.T,
            b @ self.scans[np.ix_(second, second)] @ b.T,
            a @ self.scans[np.ix_(first, second)] @ b.T,
        )

    def _sharing(self, scans: Chosen) -> NDArray[np.float64]:
        """The share `(patients, scans)` that each scan has in the mean of its patient."""
        of = np.unique(self.patients[scans], return_inverse=True)[1]
        shares = np.equal.outer(np.arange(int(of.max()) + 1), of).astype(np.float64)
        shares /= shares.sum(axis=1, keepdims=True)
        return shares
