"""Slices of volumes as the FID script of NVIDIA's NV-Generate-CTMR (MAISI) cuts and scales them: "2.5D".

How it departs from slices of fixed HU: each direction of each volume is stretched from its own lowest to its own
highest value over all slices that are kept, so the same HU are other numbers in the next volume and a shift of all HU
vanishes. Slices of one volume then count as so many samples. The script brings volumes to one orientation, spacing and
size first; that is not done here, nor is its network (RadImageNet's ResNet-50) included.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason, UsageFault

Direction = Literal["xy", "yz", "zx"]

AXES: dict[Direction, int] = {"xy": 2, "yz": 0, "zx": 1}
"""Axis of the array that slices are cut along: as the script has it, whatever the array's orientation."""

MEANS = (0.406, 0.456, 0.485)
"""Taken off the three channels, which hold the same slice: the means of ImageNet, blue first."""

LOW, HIGH = -1000, 1000
"""HU that volumes are clipped to."""

EMPTY = -700
"""HU that a slice must reach somewhere, or be dropped as empty."""


def slices(
    volume: "NDArray[Any]", direction: Direction, centre: float | None = None, every: int = 1, drop_empty: bool = False
) -> NDArray[np.float64]:
    """What the network is given of one volume: `(slices, 3, rows, columns)`, about -0.5..0.6.

    `centre` keeps this share of the slices, from index int((1 - centre) / 2 N) up to, not including,
    int((1 + centre) / 2 N); only with it does `every` (a stride) work. Empty slices are dropped after the stretch.

    Raises:
        DataInvalid: no slice is left.
        UsageFault: `every` without `centre`, which the script would pass over in silence.
    """
    if every != 1 and centre is None:
        raise UsageFault("every n-th slice is kept only where a centre is", fix="centre=1.0 keeps the whole")
    hu = np.moveaxis(np.asarray(volume, dtype=np.float64).clip(LOW, HIGH), AXES[direction], 0)
    if centre is not None:
        count = len(hu)
        hu = hu[int((1 - centre) / 2 * count) : int((1 + centre) / 2 * count) : every]
    kept = hu.max(axis=(1, 2)) >= EMPTY if drop_empty else np.ones(len(hu), dtype=bool)
    if not kept.any():
        raise DataInvalid(f"no slice of {np.shape(volume)} voxels is left along {direction}", reason=Reason.TOO_FEW)
    unit = (hu[kept] - hu.min()) / (hu.max() - hu.min() + 1e-10)
    return np.stack([unit - mean for mean in MEANS], axis=1)
