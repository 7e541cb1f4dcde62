"""One self-contained HTML page about a run: what it makes beside what it learnt from, curves, commands, recipe."""

import base64
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tomogen.errors import UsageFault
from tomogen.intensity import MEDIASTINUM, Window
from tomogen.progress import Progress, silent
from tomogen.run import Run
from tomogen.storage import whole
from tomogen.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

WIDE = Window(-1000, 400)
"""Shows lungs and soft tissue at once."""
SHOWN = 4
"""Scans in each montage."""


@dataclass(frozen=True)
class Figure:
    """A picture on the page."""

    source: str
    """As a data URI."""
    caption: str
    kind: str = "scan"


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    heading: str
    text: str = ""
    facts: Sequence[tuple[str, str]] = ()
    figures: Sequence[Figure] = ()
    listings: Sequence[tuple[str, str]] = ()
    """(name, text); a nameless one stands open, a named one folds."""
    side: bool = field(default=False)
    """Whether the figures stand side by side."""


def report(
    run: str | Path,
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    samples: str | Path | None = None,
    commands: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = silent,
) -> Path:
    """Write `index.html` into `out` (by default the run's `report` folder) and return its path.

    `data` is the prepared folder, for real cases beside the made ones; `samples` a folder that `sample` wrote NIfTI
    or pictures into; `commands` what was typed to get here.

    Raises:
        UsageFault: the page is there already and `overwrite` is not given.
        InputMissing: there is no run.
    """
    opened = Run.open(run)
    folder = Path(out) if out is not None else opened.path / "report"
    page = folder / "index.html"
    if page.exists() and not overwrite:
        raise UsageFault("the report is there already", at=page, fix="--overwrite, or another folder")
    sections: list[Section] = []
    for done, (what, make) in enumerate(
        (
            ("pictures", functools.partial(_made, data, samples)),
            ("training", functools.partial(_training, opened)),
            ("facts", functools.partial(_facts, opened)),
            ("commands", functools.partial(_how, opened, commands)),
        )
    ):
        progress(done, 4, what)
        sections += make()
    with whole(page) as partial:
        partial.write_text(_render(opened, sections), encoding="utf-8")
    progress(4, 4, "written")
    return page


def _made(data: str | Path | None, samples: str | Path | None) -> list[Section]:
    figures = []
    if data is not None:
        figures.append(Figure(_uri(_montage(_cases(Path(data)))), "What it learnt from: prepared cases. " + _LEGEND))
    made = _samples(Path(samples)) if samples is not None else []
    if made:
        figures.append(Figure(_uri(_montage(made)), "What it makes: samples. " + _LEGEND))
    for path in sorted(Path(samples).glob("*.gif"))[:1] if samples is not None else ():
        figures.append(Figure(_embed(path), "Fly-through of a sample, from the diaphragm up."))
    for path in sorted(Path(samples).glob("grid.png")) if samples is not None else ():
        figures.append(Figure(_embed(path), "Samples."))
    return [Section("Scans", figures=figures)] if figures else []


_LEGEND = "Three planes each; HU -1000 to 400 above, the mediastinal window (-160 to 240) below."


def _training(run: Run) -> list[Section]:
    figures = []
    for name, caption, kind in (
        ("losses.png", "Loss terms over training steps.", "plot"),
        ("progress.gif", "Samples at fixed noise over training.", "scan"),
    ):
        path = run.path / name
        if path.is_file():
            figures.append(Figure(_embed(path), caption, kind))
    words = [
        (f"step {event['step']}: {event['event']}", event["message"]) for event in run.events() if "message" in event
    ]
    if not figures and not words:
        return []
    return [Section("Training", figures=figures, facts=words)]


def _facts(run: Run) -> list[Section]:
    log = run.log()
    data, environment = run.data, run.environment
    cases = ", ".join(f"{count} {split}" for split, count in data["cases"].items())
    facts = [
        ("recipe", run.name),
        ("steps", str(log[-1]["step"]) if log else "0"),
        ("images seen", str(log[-1]["images"]) if log else "0"),
        ("cases", f"{cases}; {data['patients']} patients"),
        ("spacing", " x ".join(f"{mm:.2f}" for mm in run.spacing) + " mm (depth, height, width)"),
        ("window", f"{run.window.low:g} to {run.window.high:g} HU"),
        ("weights", run.identifier),
    ]
    facts += [
        (name, str(environment[name])) for name in ("command", "device", "processor", "threads") if name in environment
    ]
    facts += [("versions", ", ".join(f"{name} {version}" for name, version in environment["versions"].items()))]
    return [Section("Facts", facts=facts)]


def _how(run: Run, commands: Sequence[str]) -> list[Section]:
    listings = [("", "\n".join(f"$ {command}" for command in commands))] if commands else []
    listings.append(("the resolved recipe", (run.path / "recipe.toml").read_text(encoding="utf-8")))
    return [Section("How to make it again", listings=listings)]


def _cases(folder: Path) -> list[Volume]:
    from tomogen.cases.folder import CaseFolder

    opened = CaseFolder.open(folder)
    return [opened.volume(case) for case in opened.of(None)[:SHOWN]]


def _samples(folder: Path) -> list[Volume]:
    from tomogen import formats

    volumes = [formats.read(path) for path in sorted(folder.glob("sample-*.nii.gz"))[:SHOWN]]
    return [volume for volume in volumes if volume.shape[0] > 1]


def _montage(volumes: Sequence[Volume]) -> "Image":
    """Three planes of each volume side by side, one window above the other."""
    from PIL import Image

    from tomogen.formats import pictures

    rows = [[pictures.three_planes(volume, window) for volume in volumes] for window in (WIDE, MEDIASTINUM)]
    width = max(sum(tile.width for tile in row) for row in rows)
    heights = [max(tile.height for tile in row) for row in rows]
    sheet = Image.new("L", (width, sum(heights)))
    for row, top in zip(rows, (0, heights[0]), strict=True):
        left = 0
        for tile in row:
            sheet.paste(tile.convert("L"), (left, top))
            left += tile.width
    return sheet


def _uri(image: "Image") -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return _data(buffer.getvalue(), "image/png")


def _embed(path: Path) -> str:
    return _data(path.read_bytes(), "image/gif" if path.suffix == ".gif" else "image/png")


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _render(run: Run, sections: Sequence[Section]) -> str:
    from importlib.resources import files

    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(
        files("tomogen.reporting").joinpath("page.html").read_text(encoding="utf-8")
    )
    axes = "slices" if len(run.recipe.config.shape) == 2 else "volumes"
    size = " x ".join(str(n) for n in run.recipe.config.shape)
    return template.render(
        title=f"{run.name}: synthetic CT {axes}",
        lead=f"{size} voxels, from a model trained with tomogen. Every picture is inside this file.",
        sections=sections,
    )
