"""A CT volume: Hounsfield units on a regular grid with its place in the patient.

Coordinates are DICOM's patient system, LPS: x grows to the patient's left, y to posterior, z to superior,
in mm. Arrays are indexed `(k, j, i)`: slice, row, column. An affine maps `(k, j, i, 1)` to `(x, y, z, 1)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]

STANDARD = "SPL"
"""The house's orientation: slices go up (S), rows to the back (P), columns to the patient's left (L)."""

_DIRECTIONS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))


@dataclass(frozen=True)
class Acquisition:
    """How a scan was made, as far as it matters and identifies nobody."""

    modality: str = "CT"
    kernel: str = ""
    """Reconstruction kernel as the maker names it."""
    manufacturer: str = ""
    slice_thickness: float | None = None
    """mm; may differ from the slice spacing."""
    kvp: float | None = None
    contrast: bool | None = None
    """Whether a contrast agent is recorded; None where nothing is said."""
    synthetic: bool = False
    """True for phantoms and for everything generated."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels `hu (depth, height, width)` in HU, int16 or float32, and a 4x4 affine, index to LPS mm."""

    hu: NDArray[np.int16 | np.float32]
    affine: Affine
    acquisition: Acquisition = field(default_factory=Acquisition)

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or 0 in self.hu.shape:
            raise ValueError(f"a volume has 3 axes (depth, height, width), none empty, not {self.hu.shape}")
        if self.hu.dtype not in (np.int16, np.float32):
            raise ValueError(f"HU are int16 or float32, not {self.hu.dtype}")
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or (affine[3] != (0, 0, 0, 1)).any():
            raise ValueError(f"an affine is a finite 4x4 with last row 0 0 0 1, not\n{self.affine}")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise ValueError(f"an affine has three independent axes, not\n{affine}")
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (depth, height, width)."""
        depth, height, width = self.hu.shape
        return depth, height, width

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres in mm along (depth, height, width)."""
        d, h, w = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(d), float(h), float(w)

    @property
    def directions(self) -> NDArray[np.float64]:
        """Unit vectors of the three array axes in LPS, as columns (direction cosines)."""
        directions: NDArray[np.float64] = self.affine[:3, :3] / np.array(self.spacing)
        return directions

    @property
    def origin(self) -> NDArray[np.float64]:
        """LPS position of the centre of voxel (0, 0, 0) in mm."""
        return self.affine[:3, 3].copy()

    @property
    def centre(self) -> NDArray[np.float64]:
        """LPS position of the middle of the grid in mm."""
        return self.world((np.array(self.shape) - 1) / 2)

    @property
    def orientation(self) -> str:
        """The patient direction nearest to each array axis, such as `SPL`."""
        letters = [""] * 3
        for axis, world in enumerate(_nearest_axes(self.directions)):
            letters[axis] = _LETTERS[world][int(self.affine[world, axis] < 0)]
        return "".join(letters)

    def world(self, index: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """LPS mm `(..., 3)` of voxel indices `(..., 3)` in order (k, j, i)."""
        world: NDArray[np.float64] = np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]
        return world

    def index(self, world: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Fractional voxel indices `(..., 3)` of LPS positions `(..., 3)` in mm."""
        offset = np.asarray(world, dtype=np.float64) - self.affine[:3, 3]
        return offset @ np.linalg.inv(self.affine[:3, :3]).T

    def reorient(self, orientation: str = STANDARD) -> "Volume":
        """The same scan with array axes along these patient directions; no voxel is interpolated.

        Raises:
            ValueError: the letters do not name each of L/R, P/A, S/I once.
        """
        wanted = [_DIRECTIONS.get(letter, (-1, 0)) for letter in orientation.upper()]
        if sorted(world for world, _ in wanted) != [0, 1, 2]:
            raise ValueError(f"an orientation names L/R, P/A and S/I once each, not {orientation!r}")
        present = _nearest_axes(self.directions)
        order = [present.index(world) for world, _ in wanted]
        hu: NDArray[np.int16 | np.float32] = self.hu.transpose(order)
        affine = self.affine[:, [*order, 3]]
        for axis, (world, sign) in enumerate(wanted):
            if affine[world, axis] * sign < 0:
                hu = np.flip(hu, axis)
                affine = affine @ _flip(axis, hu.shape[axis])
        return replace(self, hu=np.ascontiguousarray(hu), affine=affine)

    def crop(self, start: Sequence[int], shape: Sequence[int], fill: float = -1024) -> "Volume":
        """The box of `shape` voxels from index `start`; outside the scan (start may be negative) is `fill` HU."""
        lo, size = np.asarray(start, dtype=int), np.asarray(shape, dtype=int)
        out = np.full(tuple(size), fill, dtype=self.hu.dtype)
        first, last = np.maximum(lo, 0), np.minimum(lo + size, self.shape)
        if (first < last).all():
            inside = tuple(slice(a, b) for a, b in zip(first - lo, last - lo, strict=True))
            out[inside] = self.hu[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        affine = self.affine.copy()
        affine[:3, 3] = self.world(lo)
        return replace(self, hu=out, affine=affine)


def affine_of(spacing: Sequence[float], origin: Sequence[float] = (0, 0, 0), orientation: str = STANDARD) -> Affine:
    """The affine of a grid along patient directions: `spacing` (depth, height, width) and `origin` LPS, in mm."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, letter in enumerate(orientation.upper()):
        world, sign = _DIRECTIONS[letter]
        affine[world, axis] = sign * spacing[axis]
    affine[:3, 3] = origin
    return affine


def _nearest_axes(directions: NDArray[np.float64]) -> list[int]:
    """For each array axis the patient axis it runs along most, each used once, the clearest first."""
    strength = np.abs(directions).copy()
    axes = [-1, -1, -1]
    for _ in range(3):
        world, axis = np.unravel_index(int(np.argmax(strength)), strength.shape)
        axes[int(axis)] = int(world)
        strength[world, :] = -1
        strength[:, axis] = -1
    return axes


def _flip(axis: int, size: int) -> Affine:
    """Index transform that runs `axis` of `size` voxels backwards."""
    flip = np.eye(4)
    flip[axis, axis] = -1
    flip[axis, 3] = size - 1
    return flip
