"""What the training of a run left to look at."""

from pathlib import Path

from tomogen.reporting.parts import Figure, Kind, Picture, Section, embedded
from tomogen.reporting.words import shareable
from tomogen.run import Run


def training_sections(run: Run) -> list[Section]:
    """Loss curves, samples over time, and what was said on the way; nothing where there is none of it."""
    figures = []
    pictures: tuple[tuple[str, str, Kind], ...] = (
        (
            "losses.png",
            "Loss terms over training steps: each step in grey, means of neighbouring steps in colour.",
            "plot",
        ),
        ("progress.gif", "Samples at fixed noise over training.", "scan"),
    )
    for name, caption, kind in pictures:
        path = run.path / name
        if path.is_file():
            figures.append(Figure.of(file_picture(path, caption, kind), caption))
    words = [
        (f"step {event['step']}: {event['event']}", shareable(event["message"]))
        for event in run.events()
        if "message" in event
    ]
    return [Section("Training", figures=figures, facts=words)] if figures or words else []


def file_picture(path: Path, alt: str, kind: Kind = "scan") -> Picture:
    """A PNG or GIF file as a picture of the page."""
    return Picture(embedded(path.read_bytes(), "image/gif" if path.suffix == ".gif" else "image/png"), alt, kind)
