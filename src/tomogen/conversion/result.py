"""What `convert` did."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tomogen.storage import whole

if TYPE_CHECKING:
    from tomogen.cases.prepare import Refusal
    from tomogen.formats.pictures.merge import Accuracy
    from tomogen.volume import Volume

FAILED = "failed.jsonl"
"""In the output: a line for each scan that should have been written and was not."""


@dataclass(frozen=True)
class ConvertResult:
    """What was read and what was written."""

    files: tuple[str, ...]
    """Paths of the files, and of folders of slices; of a set of pictures that of its CSV."""
    shape: tuple[int, int, int] | None = None
    """Voxels along (depth, height, width) of the one scan; None where there are several, or pictures of them."""
    spacing: tuple[float, float, float] | None = None
    """mm along (depth, height, width), likewise."""
    orientation: str = ""
    """Patient direction nearest to each axis, likewise."""
    hu: tuple[float, float] | None = None
    """Lowest and highest value, likewise."""
    scans: int = 1
    patients: int | None = None
    """In a set of pictures."""
    pictures: int = 0
    """Drawn into a set."""
    slices: int = 0
    """Slices of a set that have pictures."""
    blank: int = 0
    """Slices that have none: left out now, or given back as air."""
    copies: int = 0
    """Scans left out of a set because another holds the same voxels."""
    accuracy: "tuple[Accuracy, ...]" = ()
    """How far HU that come back from the pictures may be off, by range of HU; empty where scans in a set differ."""
    refused: "tuple[Refusal, ...]" = ()
    """What lay among the scans and is none."""
    failed: "tuple[Refusal, ...]" = ()
    """What should have been written; `failed.jsonl` lists it."""
    warnings: tuple[str, ...] = ()


def of_one(volume: "Volume", files: tuple[str, ...]) -> ConvertResult:
    """One scan, and the files it was written to."""
    return ConvertResult(
        files=files,
        shape=volume.shape,
        spacing=volume.spacing,
        orientation=volume.orientation,
        hu=(float(volume.hu.min()), float(volume.hu.max())),
    )


def write_failed(path: Path, failed: "Sequence[Refusal]") -> None:
    """`failed.jsonl`: a line for each scan that failed; no file if none did."""
    if not failed:
        path.unlink(missing_ok=True)
        return
    with whole(path) as partial:
        partial.write_text("".join(json.dumps(asdict(one)) + "\n" for one in failed), encoding="utf-8")
