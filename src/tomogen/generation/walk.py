"""A walk: from one sample to the next through what lies between them, as an animated picture."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tomogen import formats
from tomogen.errors import UsageFault
from tomogen.formats import Provenance, pictures
from tomogen.generation import codes
from tomogen.generation.knobs import Knobs, Tuned
from tomogen.generation.load import Loaded, load
from tomogen.generation.sample import code_of, placed
from tomogen.progress import Progress, silent
from tomogen.storage import free
from tomogen.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

    from tomogen.intensity import Window

Leg = tuple[int, int, float]
"""From which station to which, and how far: 0 is the first of them."""

SIDES = (256, 512)
"""Pixels along the longest side of a frame: smaller scans are drawn larger, larger ones smaller."""


@dataclass(frozen=True)
class WalkResult:
    """What was drawn."""

    out: Path
    run: str
    """Identifier of the run."""
    frames: int
    width: int
    height: int
    """Of a frame in pixels."""


def walk(
    run: str | Path,
    out: str | Path,
    *,
    seeds: Sequence[int] = (),
    scans: tuple[str | Path, str | Path] | None = None,
    frames: int = 24,
    truncation: float | None = None,
    label: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = silent,
) -> WalkResult:
    """Draw the way through the samples of `seeds` and back to the first, in the run's window, as the GIF `out`.

    Stations are the first samples of the seeds, as `sample` makes them; `frames` is how many lead from one to the
    next. A run of stylegan2 goes straight from style to style, its noise that of the first seed throughout, with
    `truncation` and `label` as in `sample`. All others go along the great circle between two noises, as their length
    is what the model knows (Shoemake 1985; White 2016). With `scans` instead, two scans or codes, a run of a VAE goes
    straight from the one's code to the other's, on the grid of the first. A frame is a slice, or three planes.

    Raises:
        UsageFault: fewer than two stations, seeds and scans together, no GIF, or `out` is there and `overwrite` is not
            given; a knob out of its range.
        RecipeMismatch: a run that makes scans of something else than noise, or has no such knob; and as `load` says.
        InputMissing, DataInvalid, DependencyMissing: as `load` and `formats.read` say.
    """
    knobs, out = Knobs(truncation=truncation, label=label), Path(out)
    _check(out, seeds, scans, frames)
    free(out, overwrite)
    loaded = load(run, device)
    tuned = Tuned(loaded, knobs)
    shown = _between_scans(loaded, scans) if scans else _between_seeds(tuned, seeds)
    pages: list[Image] = []
    stations = len(scans or seeds)
    legs = list(way(stations, frames))
    for number, leg in enumerate(legs):
        progress(number, len(legs), f"frame {number + 1}")
        volume = shown(*leg)
        pages.append(_drawn(volume, loaded.run.window))
    if stations == 2:
        pages += pages[-2:0:-1]  # the way back is the way there
    told = "two scans" if scans else f"seeds {', '.join(map(str, seeds))}"
    source = ", ".join(filter(None, [f"a walk through {told}", knobs.spelled()]))
    model, identifier = loaded.run.recipe.model, loaded.run.identifier
    note = formats.origin(volume, Provenance(model=model, run=identifier, seed=0, index=1, source=source))
    pictures.save(pages, out, note)
    progress(len(legs), len(legs), "written")
    return WalkResult(out, identifier, len(pages), pages[0].width, pages[0].height)


def way(stations: int, frames: int) -> Iterator[Leg]:
    """The frames of a closed walk, `frames` from each station to the next; of two stations the way there alone.

    Every station is a frame, and the last is not the first again, so that the film turns without a halt.
    """
    for station in range(stations if stations > 2 else 1):
        yield from ((station, (station + 1) % stations, frame / frames) for frame in range(frames))
    if stations == 2:
        yield 0, 1, 1.0


def arc(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The point at `share` of the great circle between two vectors (Shoemake 1985); its length goes evenly too."""
    a, b = first.double().flatten(), second.double().flatten()
    angle = torch.acos(torch.clamp(a @ b / (a.norm() * b.norm()), -1, 1))
    if angle.sin() < 1e-6:
        return torch.lerp(first, second, share)
    ends = torch.sin((1 - share) * angle) / angle.sin(), torch.sin(share * angle) / angle.sin()
    return (ends[0] * a + ends[1] * b).view_as(first).to(first.dtype)


def _check(out: Path, seeds: Sequence[int], scans: Sequence[str | Path] | None, frames: int) -> None:
    if out.suffix.lower() != ".gif":
        raise UsageFault("a walk is drawn as a GIF", at=out, fix=str(out.with_suffix(".gif")))
    if seeds and scans:
        raise UsageFault("a walk leads through seeds or between scans, not both", fix="--seeds 1 2 3, or --scans A B")
    if scans and len(scans) != 2:
        raise UsageFault(f"a walk between scans has two, not {len(scans)}", fix="--scans A B")
    if not scans and len(seeds) < 2:
        raise UsageFault(f"a walk needs two seeds or more, not {len(seeds)}", fix="--seeds 1 2 3")
    if not scans and min(seeds) < 0:
        raise UsageFault(f"seed {min(seeds)}: 0 or more", fix="--seeds 1 2 3")
    if frames < 2:
        raise UsageFault(f"{frames} frames from one station to the next; at least 2", fix="--frames 2")


def _between_seeds(tuned: Tuned, seeds: Sequence[int]) -> Callable[[int, int, float], Volume]:
    """A scan at a share of the way between two of the seeds."""
    if tuned.styled is not None:
        styles, noise = [tuned.style(seed, 1) for seed in seeds], tuned.noise(seeds[0], 1)
        return lambda a, b, share: placed(tuned.loaded, tuned.shown(torch.lerp(styles[a], styles[b], share), noise))
    noises = [tuned.noise(seed, 1) for seed in seeds]
    return lambda a, b, share: placed(tuned.loaded, tuned.made(arc(noises[a], noises[b], share)))


def _between_scans(loaded: Loaded, scans: Sequence[str | Path]) -> Callable[[int, int, float], Volume]:
    """A scan at a share of the way between two scans' codes."""
    first = code_of(loaded, scans[0])
    second = code_of(loaded, scans[1], like=first)
    return lambda a, b, share: codes.between(loaded, first, second, share)


def _drawn(volume: Volume, window: "Window") -> "Image":
    size = min(SIDES[1], max(SIDES[0], *volume.shape))
    if volume.shape[0] == 1:
        return pictures.fly_through(volume, window, size=size)[0]
    return pictures.three_planes(volume, window, size=size)
