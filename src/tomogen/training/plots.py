"""The plots of a run: its losses, and how far from the truth it was."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomogen.storage import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOOKKEEPING = ("step", "images", "seconds", "memory")
SMOOTH = 200
"""Points to which a curve is reduced, each the mean of the steps around it."""
PARTS = 10
"""Parts of training of which each has a box."""
BOXED = 4
"""Values from which on a box is drawn; fewer are points alone."""
BOXES = 40
"""Validations that are drawn as boxes, at most; the curves pass through all."""
MARGINS = (0.85, 0.1, 0.45, 0.3)
"""Inches on the left, the right, below and above the panels."""
INK, FAINT, BLUE, RED = "#1d2733", "0.92", "tab:blue", "#d55e00"


def losses(log: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw each loss term over the steps into a PNG; whether there was anything to draw.

    A row a term: on the left each step and means of neighbours, on the right a box for each tenth of training
    (median, quartiles; the whiskers hold all but one in twenty on either side), which a few wild steps do not flatten.
    """
    names = list(dict.fromkeys(name for line in log for name in line if name not in BOOKKEEPING))
    if len(log) < 2 or not names:
        return False
    with _drawn(path, (10, 1.9 * len(names))) as figure:
        panels = figure.subplots(len(names), 2, sharex=True, squeeze=False)
        for (curve, boxes), name in zip(panels, names, strict=True):
            known = [(line["step"], line[name]) for line in log if line.get(name) is not None]
            steps, values = [step for step, _ in known], [value for _, value in known]
            width = max(1, len(values) // SMOOTH)
            curve.plot(steps, values, color="0.8", linewidth=0.6)
            curve.plot(_means(steps, width), _means(values, width), color=BLUE, linewidth=1.4)
            curve.set_ylabel(name.replace("/", "\n"), fontsize=8)
            _boxes(boxes, *_parts(steps, values, log[-1]["step"]), whiskers=(5, 95))
            for panel in (curve, boxes):
                _dressed(panel)
        for panel, head in zip(panels[0], ("each step, means", "tenths of training"), strict=True):
            panel.set_title(head, fontsize=8)
        for panel in panels[-1]:
            panel.set_xlabel("step", fontsize=8)
    return True


def validation(events: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw the errors of validation images over the steps into a PNG, the best marked; whether there were any.

    A box is the images of one preview, from the least to the greatest error.
    """
    found = [(event["step"], _known(event["mae"]), event) for event in events if event["event"] == "validation"]
    found = [entry for entry in found if entry[1]]
    if not found:
        return False
    steps, values, last = [step for step, _, _ in found], [mae for _, mae, _ in found], found[-1][2]
    means = [sum(mae) / len(mae) for mae in values]
    bests = [min(means[: number + 1]) for number in range(len(means))]
    best = steps.index(last["best"]) if last["best"] in steps else means.index(min(means))
    every = -(-len(found) // BOXES)
    some = [number for number in range(len(found)) if (len(found) - 1 - number) % every == 0 or number == best]
    with _drawn(path, (7, 3.6)) as figure:
        panel = figure.subplots()
        _boxes(panel, [steps[number] for number in some], [values[number] for number in some], whiskers=(0, 100))
        panel.plot(steps, means, color=BLUE, linewidth=1.2, label="mean over images")
        panel.step(steps, bests, where="post", color=RED, linestyle="--", linewidth=1.2, label="best mean so far")
        what = f"best: step {steps[best]}, {means[best]:.4g} HU"
        panel.plot(steps[best], means[best], "*", color=RED, markersize=12, label=what, zorder=5)
        held = {"val": "held-out images", "train": "training images (none are held out)"}
        panel.set_title(f"Mean absolute error of {len(last['mae'])} {held[last['split']]}", fontsize=9)
        panel.set_ylabel("HU", fontsize=8)
        panel.set_xlabel("step", fontsize=8)
        if min(min(mae) for mae in values) > 0:
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            panel.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
        panel.legend(fontsize=8, frameon=False)
        _dressed(panel)
    return True


@contextmanager
def _drawn(path: Path, inches: tuple[float, float]) -> "Iterator[Figure]":
    """A figure to draw in, written when the block ends."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    (width, height), (left, right, bottom, top) = inches, MARGINS
    figure = Figure(figsize=inches)
    # Margins by hand: a layout that looks for them takes as long as all else.
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height, wspace=0.16, hspace=0.1)
    yield figure
    with whole(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


def _boxes(
    panel: "Axes", places: Sequence[float], values: Sequence[Sequence[float]], whiskers: tuple[float, float]
) -> None:
    """A box at each place for the values there, points where they are few."""
    gaps = [after - before for before, after in itertools.pairwise(places)]
    width = 0.6 * min(gaps, default=1)
    for place, some in zip(places, values, strict=True):
        if len(some) < BOXED:
            panel.plot([place] * len(some), some, "o", color=INK, markersize=2.5)
            continue
        line = {"color": INK, "linewidth": 0.8}
        panel.boxplot(
            some, positions=[place], widths=width, whis=whiskers, showfliers=False, manage_ticks=False,
            medianprops={"color": BLUE}, boxprops=line, whiskerprops=line, capprops=line,
        )  # fmt: skip


def _parts(steps: Sequence[int], values: Sequence[float], last: int) -> tuple[list[float], list[list[float]]]:
    """Middles of the tenths of the steps up to `last`, and the values in each; those without any are left out."""
    found: dict[int, list[float]] = {}
    for step, value in zip(steps, values, strict=True):
        found.setdefault((step - 1) * PARTS // last, []).append(value)
    return [(part + 0.5) * last / PARTS for part in found], list(found.values())


def _dressed(panel: "Axes") -> None:
    panel.grid(color=FAINT)
    panel.set_axisbelow(True)
    panel.tick_params(which="both", labelsize=8)


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _means(values: Sequence[float], width: int) -> list[float]:
    parts = [values[first : first + width] for first in range(0, len(values), width)]
    return [sum(part) / len(part) for part in parts]
