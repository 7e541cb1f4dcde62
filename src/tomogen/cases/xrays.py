"""The feed of models that see a scan's radiographs: each scan, and what a beam makes of it, computed as it is drawn."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tomogen.cases.feed import Sample
from tomogen.cases.folder import CaseFolder
from tomogen.cases.scans import Scans
from tomogen.errors import DataInvalid, Reason, RecipeMismatch
from tomogen.intensity import Window
from tomogen.radiography.attenuation import ENERGY, KEV, attenuation
from tomogen.radiography.geometry import PRESETS, Geometry, preset
from tomogen.radiography.normal import levelled
from tomogen.radiography.projector import Projector
from tomogen.volume import affine_of

if TYPE_CHECKING:
    from tomogen.recipe import Data

Field = Literal["detector", "scan"]
"""What the beam sees at the isocentre: what the detector of the geometry's room does, or just the scan's extent."""
BEYOND = 1.05
"""How much more than a scan's extent the detector of a room may see, as a factor."""

Spacing = tuple[float, float, float]


class XRays:
    """Scans `(1, *shape)` and, as condition `xrays (views, rows, columns)`, their radiographs.

    A radiograph is that of the voxels that are drawn, random crops and shifts included, so the two always agree. It
    has as many pixels down and across as the scan has voxels, and is normalised like any radiograph from outside.
    """

    def __init__(
        self,
        folder: CaseFolder,
        shape: Sequence[int],
        data: "Data",
        *,
        views: Sequence[str],
        geometry: str,
        energy: float = ENERGY,
        field: Field = "detector",
        split: str = "train",
    ) -> None:
        """Raises DataInvalid as `Scans` does, and where the beam does not fit the cases.

        They differ in spacing (a beam needs one size of patient), or the detector sees more than there is of a scan.
        """
        self.scans = Scans(folder, shape, Window(*data.window), split=split, shift=data.shift)
        self.views, self.geometry, self.energy, self.field = tuple(views), geometry, energy, field
        self.spacing = one_spacing(folder)
        if field == "detector":
            _filled(folder, tuple(shape), self.spacing, preset(geometry, self.views))

    @property
    def beside(self) -> str:
        """Nothing."""
        return ""

    def enough(self, needed: int) -> None:
        """As `Scans.enough`."""
        self.scans.enough(needed)

    def draw(self, seed: int, number: int) -> Sample:
        """Scan `number` of the stream of `seed`, with its radiographs."""
        place = self.scans.place(seed, number)
        hu = self.scans.hu(place)
        found = shots(
            hu, self.spacing, views=self.views, geometry=self.geometry, energy=self.energy, field=self.field,
            size=hu.shape[-1],
        )  # fmt: skip
        return Sample(self.scans.window.to_unit(hu.astype(np.float32))[None], {"xrays": 2 * found - 1})


def check_room(geometry: str, energy: float) -> None:
    """Pass a room and an energy that radiographs can be computed in.

    Raises:
        RecipeMismatch: no such `geometry`; an `energy` beyond the table.
    """
    if geometry not in PRESETS:
        raise RecipeMismatch(f"`geometry`: no room {geometry!r}; there are: {', '.join(PRESETS)}")
    if not KEV[0] <= energy <= KEV[-1]:
        raise RecipeMismatch(f"`energy`: {energy:g}; from {KEV[0]:g} to {KEV[-1]:g} keV, usually {ENERGY:g}")


def one_spacing(folder: CaseFolder) -> Spacing:
    """The spacing of all cases, in mm along (depth, height, width).

    Raises:
        DataInvalid: they differ.
    """
    found = sorted({tuple(round(mm, 3) for mm in case.spacing) for case in folder.cases})
    if len(found) > 1:
        spelled = [" x ".join(f"{mm:g}" for mm in spacing) for spacing in (found[0], found[-1])]
        raise DataInvalid(
            f"the cases have spacings from {spelled[0]} to {spelled[1]} mm; radiographs need one for all",
            reason=Reason.BAD_GEOMETRY,
            at=folder.path,
            fix="tomogen prepare with --spacing beside --shape",
        )
    return folder.spacing


def _filled(folder: CaseFolder, shape: tuple[int, ...], spacing: Spacing, room: Geometry) -> None:
    """Pass scans that the beam lies within; that it cuts their sides is as published.

    Raises:
        DataInvalid: what the detector sees at the isocentre ends beyond the scan.
    """
    depth, height, width = (n * mm for n, mm in zip(shape, spacing, strict=True))
    sees = max(room.field_of_view(room.views[0]))
    least = min(depth, max(height, width))
    if sees > BEYOND * least:
        raise DataInvalid(
            f"the beam sees {sees:.0f} mm at the isocentre, the scans have {least:.0f} mm: the rest would be black",
            reason=Reason.BAD_GEOMETRY,
            at=folder.path,
            fix="--set model.field=scan, or prepare with a larger --spacing",
        )


def beam(
    shape: tuple[int, int, int], spacing: Spacing, *, views: Sequence[str], geometry: str, field: Field, size: int
) -> Geometry:
    """The room in which a scan of `shape` voxels is shot: `size` pixels along each side of the detector."""
    room = preset(geometry, views).resized(size)
    if field == "detector":
        return room
    depth, height, width = (n * mm for n, mm in zip(shape, spacing, strict=True))
    return room.seeing(depth, max(height, width))


def shots(
    hu: NDArray[np.int16],
    spacing: Spacing,
    *,
    views: Sequence[str],
    geometry: str,
    energy: float = ENERGY,
    field: Field = "detector",
    size: int,
) -> NDArray[np.float32]:
    """Radiographs `(views, size, size)` of a scan in HU, on 0..1, each between two percentiles of its patient."""
    room = beam(hu.shape, spacing, views=views, geometry=geometry, field=field, size=size)
    mu = attenuation(torch.from_numpy(np.array(hu)), energy)
    with torch.no_grad():
        integrals = projector(room, hu.shape, spacing)(mu[None])[0].numpy()
    return np.stack([levelled(one) for one in integrals])


@lru_cache(maxsize=16)
def projector(room: Geometry, shape: tuple[int, int, int], spacing: Spacing) -> Projector:
    """Line integrals through a scan whose middle is the isocentre; kept for the next scan of its size."""
    affine = affine_of(spacing)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return Projector(room, shape, affine)
