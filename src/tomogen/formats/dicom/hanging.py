"""From how a radiograph is stored to how it hangs on a viewing box, by ViewPosition and PatientOrientation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason
from tomogen.formats.dicom.words import spoken
from tomogen.radiography.radiograph import KINDS

_POSITIONS = {"PA": "pa", "AP": "ap", "LL": "lateral", "RL": "right", "LAT": "lateral", "LATERAL": "lateral"}
"""Defined terms of ViewPosition (PS3.3 C.8.7.1.1.9 and C.8.11.5), and words in use."""
_OBLIQUE = ("RLO", "LLO", "RAO", "LAO", "RPO", "LPO", "OBL", "OBLIQUE")
_DECUBITUS = ("RLD", "LLD", "DECUB")
_CODES = {
    "272479007": "pa", "R-10214": "pa", "399348003": "ap", "R-10206": "ap", "399033003": "frontal",
    "399173006": "lateral", "R-10236": "lateral", "399067008": "lateral", "399198007": "right", "R-10232": "right",
}  # fmt: skip
"""Views of CID 4010 that are straight, in SNOMED CT and SNOMED RT."""

_AXES = {"L": "x", "R": "x", "A": "y", "P": "y", "H": "z", "F": "z"}
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}
_RIGHTWARD = {"pa": "L", "ap": "L", "frontal": "L", "lateral": "P", "right": "A"}
"""The patient's side to which columns grow on a viewing box."""


@dataclass(frozen=True)
class Hanging:
    """What to do to the stored rows and columns, in this order."""

    view: str | None
    transposed: bool = False
    upside: bool = False
    """Rows are to be reversed."""
    mirrored: bool = False
    """Columns are to be reversed."""

    def hung(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """A picture as it hangs."""
        pixels = pixels.T if self.transposed else pixels
        return np.ascontiguousarray(pixels[:: -1 if self.upside else 1, :: -1 if self.mirrored else 1])

    def spaced(self, spacing: tuple[float, float] | None) -> tuple[float, float] | None:
        """Spacing (row, column) of the picture as it hangs."""
        return spacing[::-1] if spacing and self.transposed else spacing


def hanging(dataset: Any, view: str | None, at: Path) -> Hanging:
    """How a radiograph is to hang. `view` is what the user says of it, which goes before what the file says.

    Without PatientOrientation it is taken to be stored as it hangs. A picture that states its orientation but not its
    view is a `frontal` one or a `lateral` one by that.

    Raises:
        DataInvalid: an oblique view or one of a lying patient; a view that contradicts the orientation.
    """
    stated = view or _stated(dataset, at)
    letters = [part[:1] for part in spoken(dataset, "PatientOrientation").upper().split("\\")]
    if len(letters) != 2 or not all(letter in _AXES for letter in letters):
        return Hanging(stated)
    across, down = letters
    transposed = _AXES[across] == "z"
    if transposed:
        across, down = down, across
    if _AXES[down] != "z" or _AXES[across] == "z":
        raise DataInvalid(
            "neither rows nor columns run from head to feet",
            reason=Reason.BAD_GEOMETRY,
            at=at,
            fix="a PA, AP or lateral radiograph, or mend PatientOrientation in the file",
        )
    seen = "frontal" if _AXES[across] == "x" else "lateral"
    if stated is not None and KINDS[stated] != seen:
        raise DataInvalid(
            f"a {stated} view by its name, a {seen} one by its PatientOrientation",
            reason=Reason.BAD_GEOMETRY,
            at=at,
            fix="mend the one that is wrong in the file",
        )
    found = stated or seen
    return Hanging(found, transposed, down == "H", across == _OPPOSITE[_RIGHTWARD[found]])


def _stated(dataset: Any, at: Path) -> str | None:
    """The view that the file names."""
    position = spoken(dataset, "ViewPosition").upper()
    if position in _POSITIONS:
        return _POSITIONS[position]
    codes = [spoken(item, "CodeValue") for item in dataset.get("ViewCodeSequence") or ()]
    if known := [_CODES[code] for code in codes if code in _CODES]:
        return known[0]
    meanings = " ".join(spoken(item, "CodeMeaning").lower() for item in dataset.get("ViewCodeSequence") or ())
    lying = position in _DECUBITUS
    if lying or position in _OBLIQUE or "oblique" in meanings:
        what = "a patient lying on one side" if lying else "an oblique view"
        raise DataInvalid(
            f"{what}; frontal and lateral views of a chest expected",
            reason=Reason.BAD_GEOMETRY,
            at=at,
            fix="a PA, AP or lateral radiograph",
        )
    return None
