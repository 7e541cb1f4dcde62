"""What `prepare` does to every scan, as one value: written into the folder, compared when work goes on."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from tomogen.errors import UsageFault
from tomogen.volume import STANDARD

Fit = Literal["contain", "stretch"]

ORIENTATION = STANDARD
"""How the axes of every prepared volume run."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The grid and the values of prepared volumes; lengths in mm along (depth, height, width), axes `SPL`."""

    shape: tuple[int, int, int] | None = None
    """Voxels of every case. None: each case is as large as its scan."""
    spacing: tuple[float, float, float] | None = None
    """Voxel spacing of every case. None with a shape: what makes the body fill the grid. None without: the scan's."""
    slab: int | None = None
    """Axial slices per case where one scan gives several."""
    window: tuple[float, float] | None = None
    """HU to which stored values are clipped. None: from the HU floor up, nothing is lost."""
    body_mask: bool = True
    """Whether all that is not the patient (table, clothes, air) becomes the HU floor."""
    fit: Fit = "contain"
    """With a shape alone: `contain` keeps proportions and pads; `stretch` scales each axis by itself."""
    pairs: bool = False
    """Whether a case is a pair: a target, and a source on the same grid."""

    def __post_init__(self) -> None:
        """Refuse what makes no grid.

        Raises:
            UsageFault: a number out of range, or two that contradict each other.
        """
        if self.shape is not None and min(self.shape) < 1:
            raise UsageFault(f"--shape takes three numbers of at least 1, not {_spelled(self.shape)}")
        if self.spacing is not None and not all(math.isfinite(mm) and mm > 0 for mm in self.spacing):
            raise UsageFault(f"--spacing takes lengths above 0 mm, not {_spelled(self.spacing)}")
        if self.slab is not None and self.slab < 1:
            raise UsageFault(f"--slab takes at least 1 slice, not {self.slab}")
        if self.slab is not None and self.shape is not None and self.shape[0] != self.slab:
            raise UsageFault(
                f"--slab {self.slab} cuts cases of {self.slab} slices, --shape asks for {self.shape[0]}",
                fix=f"--slab {self.slab} --shape {self.slab} {self.shape[1]} {self.shape[2]}",
            )
        if self.window is not None and not self.window[0] < self.window[1]:
            raise UsageFault(f"--window takes a low and a higher high in HU, not {_spelled(self.window)}")
        if self.fit not in ("contain", "stretch"):
            raise UsageFault(f"--fit is contain or stretch, not {self.fit!r}")
        if self.fit == "stretch" and (self.shape is None or self.spacing is not None or self.slab is not None):
            raise UsageFault("--fit stretch scales every axis to --shape; it takes no --spacing and no --slab")

    def record(self) -> dict[str, Any]:
        """As plain values for JSON."""
        values = asdict(self)
        if not self.pairs:  # as folders of single scans have always been written
            del values["pairs"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Preparation":
        """From what `record` gave.

        Raises:
            KeyError, TypeError: something is missing, or is not what it should be.
        """
        record = {"pairs": False, **record}
        values: dict[str, Any] = {field.name: record[field.name] for field in fields(cls)}
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**values)

    def differences(self, other: "Preparation") -> list[str]:
        """Where `other` differs, in words: `shape: 64 64 64, now 32 32 32`."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{name}: {_spelled(value)}, now {_spelled(theirs[name])}"
            for name, value in mine.items()
            if value != theirs[name]
        ]


def _spelled(value: Any) -> str:
    if value is None:
        return "none"
    return " ".join(f"{number:g}" for number in value) if isinstance(value, tuple) else str(value)
