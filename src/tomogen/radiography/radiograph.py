"""A radiograph as a value: grey values that grow with what lies in the ray, hung as on a viewing box."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomogen.radiography.geometry import Geometry
from tomogen.radiography.taken import Shown

Kind = Literal["frontal", "lateral"]

KINDS: dict[str, Kind] = {
    "pa": "frontal",
    "ap": "frontal",
    "frontal": "frontal",
    "lateral": "lateral",
    "right": "lateral",
}
"""Views by name, and the kind they are of. `frontal` does not say from which side; `lateral` is a left lateral."""

STRAIGHT = {"pa": "pa", "ap": "ap", "lateral": "lateral", "left": "lateral", "right": "right"}
"""Views that a geometry shoots along the patient's axes, by their names there, and which of `KINDS` they are."""


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One picture. Frontal: the patient's right on its left. Left lateral: the chest's front on its left, right
    lateral: on its right. The head is up in all.
    """

    pixels: NDArray[np.float32]
    """`(rows, columns)`, from 0; bone is bright."""
    spacing: tuple[float, float] | None = None
    """mm between rows and between columns, at the detector; None where the file does not say."""
    view: str | None = None
    """Of `KINDS`; None where the file does not say."""
    patient: str | None = None
    """A hash by which pictures of one patient are known; to be kept in memory, since identifiers can be guessed."""
    synthetic: bool = False
    """Computed from a CT: no X-ray was taken."""
    magnification: float | None = None
    """How much larger than life the isocentre's plane is at the detector; None where the file does not say."""
    room: Geometry | None = None
    """Of a computed one: where it was shot, with its view alone and the isocentre; None where the file does not say."""
    shown: Shown | None = None
    """Of a computed one: what its greys were in the file; None where that does not say."""

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2 or self.pixels.dtype != np.float32:
            raise ValueError(f"pixels are (rows, columns) in float32, not {self.pixels.shape} {self.pixels.dtype}")
        if self.view is not None and self.view not in KINDS:
            raise ValueError(f"a view is one of {', '.join(KINDS)}, not {self.view!r}")

    @property
    def kind(self) -> Kind | None:
        """Whether it is a frontal or a lateral picture, as far as is known."""
        return None if self.view is None else KINDS[self.view]
