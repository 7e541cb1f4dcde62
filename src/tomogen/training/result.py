"""What `train` returns."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What training left behind; or, of a dry run, what it would do."""

    run: Path
    steps: int
    """Reached; of a dry run, wanted."""
    images: int
    """Taken from the cases, over all processes and steps."""
    seconds: float
    """Of training alone, over all sittings of an interrupted run."""
    losses: dict[str, float]
    """Of the last step."""
    weights: Path | None
    sha256: str | None
    """Of the weights."""
    recipe: str
    """Hash of the recipe."""
    parameters: dict[str, int]
    """By player."""
    cases: int
    """For training."""
    device: str
    processes: int
    threads: int
    checkpoint_bytes: int
    """Of one checkpoint."""
    dry_run: bool = False
