"""What the training of a run left to look at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tomogen.reporting import plots
from tomogen.reporting.parts import Figure, Kind, Picture, Section, embedded
from tomogen.reporting.words import shareable
from tomogen.run import Run

PICTURES: tuple[tuple[str, str, Kind], ...] = (
    (
        "losses.png",
        "Loss terms over training steps: each step in grey, means of neighbouring steps in colour; beside them a box "
        "for each tenth of training, its whiskers from the 5th to the 95th percentile.",
        "plot",
    ),
    (
        "validation.png",
        "Mean absolute error in HU of images with a truth, over training steps: boxes from the least to the greatest, "
        "their mean, and the history of the best mean.",
        "plot",
    ),
    ("progress.gif", "Samples at fixed noise, or of fixed inputs, over training.", "scan"),
)
"""Files of a run, what each shows, and its kind."""


def training_sections(run: Run) -> list[Section]:
    """Curves of losses and errors, samples over time, and what was said on the way; nothing where there is none."""
    figures = []
    for name, caption, kind in PICTURES:
        path = run.path / name
        if path.is_file():
            figures.append(Figure.of(file_picture(path, caption, kind), caption))
    events = run.events()
    if drawn := plots.courses([event for event in events if event["event"] == "told"]):
        caption = "What the model told of its state at each preview; of several, such as channels, a curve each."
        figures.insert(min(2, len(figures)), Figure.of(drawn, caption))
    facts = _best(events) + [
        (f"step {event['step']}: {event['event']}", shareable(event["message"]))
        for event in events
        if "message" in event
    ]
    return [Section("Training", figures=figures, facts=facts)] if figures or facts else []


def _best(events: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The best validation, in words."""
    seen = {event["step"]: event for event in events if event["event"] == "validation"}
    last = seen[max(seen)] if seen else None
    best = seen.get(last["best"]) if last else None
    if last is None or best is None:
        return []
    values = [value for value in best["mae"] if value is not None]
    images = "held-out" if best["split"] == "val" else "training"
    error = f"{sum(values) / len(values):.4g} HU off {len(values)} {images} images, mean absolute error"
    return [("best validation", f"step {best['step']} of {last['step']}: {error}")]


def file_picture(path: Path, alt: str, kind: Kind = "scan") -> Picture:
    """A PNG or GIF file as a picture of the page."""
    return Picture(embedded(path.read_bytes(), "image/gif" if path.suffix == ".gif" else "image/png"), alt, kind)
