"""Floors: what any method beats that has learnt something, scored like it."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomogen.cases.work import digest
from tomogen.errors import DataInvalid, Reason
from tomogen.evaluation.gather import Source
from tomogen.evaluation.grids import on_grid
from tomogen.intensity import HU_FLOOR
from tomogen.volume import Volume

BLUR = 1.0
"""Sigma of the blurred truth in voxels: what a model gives that draws no edges."""


def blurred(truth: NDArray[np.int16 | np.float32]) -> NDArray[np.float32]:
    """The truth itself under a Gaussian of one voxel."""
    image: NDArray[np.float32] = ndimage.gaussian_filter(truth.astype(np.float32), BLUR, mode="nearest")
    return image


class MeanScan:
    """The mean of training scans, brought onto the grid of a truth centre on centre: a guess that sees no patient.

    Each voxel is the mean of the scans that reach it; -1024 HU where none does.

    Raises:
        DataInvalid: there are none.
    """

    def __init__(self, training: list[Source]) -> None:
        if not training:
            raise DataInvalid("no training scans to take the mean of", reason=Reason.EMPTY, fix="another --train")
        self.training = training
        self.of: tuple[tuple[int, ...], bytes] | None = None
        self.mean: NDArray[np.float32] | None = None
        self.digests: set[str] = set()

    @property
    def told(self) -> str:
        """What it is the mean of, in words."""
        people = len({source.patient for source in self.training})
        return (
            f"{len(self.training)} scans of {people} patients, each brought onto the truth's grid centre on centre, "
            "resampled where its voxels are others"
        )

    def on(self, truth: Volume) -> NDArray[np.float32]:
        """Mean HU `(depth, height, width)` on the grid of `truth`."""
        key = (truth.shape, truth.affine.tobytes())
        if self.mean is None or self.of != key:
            total = np.zeros(truth.shape, dtype=np.float64)
            count = np.zeros(truth.shape, dtype=np.int32)
            first = not self.digests
            for source in self.training:
                scan = source.read()
                if first:
                    self.digests.add(digest(scan))
                placed = on_grid(truth, _centred(scan, truth), resampled=True, at=source.name)
                total[placed.covered] += placed.scan.hu[placed.covered]
                count[placed.covered] += 1
            mean = np.where(count > 0, total / np.maximum(count, 1), HU_FLOOR)
            self.of, self.mean = key, mean.astype(np.float32)
        return self.mean

    def holds(self, scan: Volume) -> bool:
        """Whether a scan is among those it is the mean of, voxel by voxel; known once `on` was asked."""
        return digest(scan) in self.digests


def _centred(scan: Volume, truth: Volume) -> Volume:
    """The scan moved so that its middle lies on that of `truth`, its axes along the same patient directions."""
    scan = scan.reorient(truth.orientation)
    affine = scan.affine.copy()
    affine[:3, :3] = truth.directions * scan.spacing
    affine[:3, 3] = truth.centre - affine[:3, :3] @ (np.array(scan.shape) - 1) / 2
    return Volume(scan.hu, affine, scan.acquisition)
