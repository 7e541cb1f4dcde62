"""Definition: what a score is a score of. Two numbers may stand side by side only where theirs are equal."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Definition:
    """All that changes the value of a score, in words and numbers that can be compared and printed."""

    metric: str
    """`psnr`, `mae/lung`, `kid/axial`."""
    convention: str = "standard"
    """`standard`, or whose published way of computing it."""
    unit: str = ""
    """`HU`, `dB`, or nothing."""
    better: str = ""
    """`lower`, `higher`, or nothing where neither is."""
    range: tuple[float, float] | None = None
    """HU that values are clipped to, or that the data range is taken from; None: HU as they are."""
    mask: str = "none"
    """Voxels that count, which are `none` (all), `body`, or those of label files, told by name and hash."""
    axis: str = "3d"
    """`3d`, or the planes that slices are cut along: `axial`, `coronal`, `sagittal`."""
    reduction: str = ""
    """How voxels, slices, scans and patients become one number."""
    n: tuple[int, ...] = ()
    """Scans that entered; of two sets, real and made."""
    features: str = ""
    """The feature network: name and SHA-256 of its weights."""
    preprocessing: str = ""
    """What is done to scans before: windows, resampling."""
    parameters: Mapping[str, float | int | str] = field(default_factory=dict)
    """Constants of the formula: window, sigma, peak, neighbours."""
    departs: str = ""
    """How a convention departs from the standard definition; nothing under the standard itself."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Libraries that computed it. Told, not compared: other versions give the same number."""

    def differences(self, other: "Definition") -> list[str]:
        """Each field that is not the same, as `name: ours against theirs`."""
        found = []
        for item in fields(self):
            mine, its = getattr(self, item.name), getattr(other, item.name)
            if item.name != "versions" and mine != its:
                found.append(f"{item.name}: {_shown(mine)} against {_shown(its)}")
        return found

    def record(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Definition":
        """From what `record` gave, perhaps through JSON."""
        values = dict(record)
        if values.get("range") is not None:
            low, high = values["range"]
            values["range"] = (float(low), float(high))
        values["n"] = tuple(int(n) for n in values.get("n", ()))
        return cls(**values)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items()) or "none"
    return str(value) if value not in ("", None, ()) else "none"
