"""Curves and boxes: HU histograms, per-case scores, coherence profiles, what a model told in training."""

import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.reporting.parts import Picture, embedded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#1d2733", "#c9d1d9"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito's, apart for every common kind of colour vision; truth and real scans are drawn in ink."""
TRUE = ("truth", "real")
DASHES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)))
MARKS = ("o", "s", "^", "D", "v", "P")
"""Lines and points differ in shape too."""
BOXED = 4
"""Cases from which on a box is drawn; fewer are points alone."""
BINS = 160
"""Bins of a histogram that can be told apart at the width of the page."""
ACROSS = 3
"""Panels in a row."""
_WIDTH = 7.0
"""Inches: the width of the text on A4."""


def coarser(
    edges: NDArray[np.float64], counts: Mapping[str, NDArray[np.int64]]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.int64]]]:
    """The same counts in at most `BINS` bins, each of as many old ones; a last one that is not whole stays smaller."""
    step = max(1, math.ceil((len(edges) - 1) / BINS))
    first = np.arange(0, len(edges) - 1, step)
    return np.append(edges[first], edges[-1:]), {
        name: np.add.reduceat(np.asarray(values), first) if len(first) else np.asarray(values)
        for name, values in counts.items()
    }


def histograms(edges: NDArray[np.float64], counts: Mapping[str, NDArray[np.int64]]) -> Picture | None:
    """The part of voxels in each bin, on a logarithmic axis, one curve for each name; None if nothing was counted."""
    counted = {name: values for name, values in counts.items() if np.sum(values) > 0}
    if not counted:
        return None
    with _drawing(_WIDTH, 3.2) as (figure, content):
        axes = figure.subplots()
        for name, look in _looks(list(counted)).items():
            values = counted[name]
            total = int(np.sum(values))
            parts = np.where(np.asarray(values) > 0, np.asarray(values) / total * 100, np.nan)
            axes.stairs(
                parts, edges, baseline=None, label=f"{name} ({total:,} voxels)",
                color=look.colour, linestyle=look.dash, linewidth=look.width,
            )  # fmt: skip
        axes.set_yscale("log")
        used = np.flatnonzero(sum(np.asarray(values) for values in counted.values()))
        axes.set_xlim(edges[used[0]], edges[used[-1] + 1])
        axes.set_xlabel("HU")
        axes.set_ylabel("% of voxels in a bin")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        _dressed(axes)
        _legend(axes)
    return _picture(content, f"HU histograms of {' and '.join(counted)}, logarithmic")


def profiles(curves: Mapping[str, NDArray[np.float64]], label: str) -> Picture | None:
    """A value for each distance of 1, 2, ... slices, one curve for each name; None without a finite value."""
    told = {name: np.asarray(values, dtype=np.float64) for name, values in curves.items()}
    told = {name: values for name, values in told.items() if np.isfinite(values).any()}
    if not told:
        return None
    with _drawing(_WIDTH, 2.9) as (figure, content):
        axes = figure.subplots()
        for name, look in _looks(list(told)).items():
            values = told[name]
            shown = np.where(np.isfinite(values), values, np.nan)
            axes.plot(
                np.arange(1, len(values) + 1), shown, label=name, marker=look.mark, markersize=4,
                color=look.colour, linestyle=look.dash, linewidth=look.width,
            )  # fmt: skip
        axes.set_xticks(range(1, max(len(values) for values in told.values()) + 1))
        axes.set_xlabel("distance in slices")
        axes.set_ylabel(label)
        _dressed(axes)
        _legend(axes)
    return _picture(content, f"Inter-slice coherence over the distance, of {', '.join(told)}")


def boxes(panels: Sequence[tuple[str, Mapping[str, Sequence[float]]]]) -> Picture | None:
    """A panel for each score: every case a point, with a box from `BOXED` cases on. None where no two can be compared.

    A panel is a title and, by subject, the values of the cases; what is not finite is left out and counted.
    """
    told = [panel for panel in panels if any(len(_finite(values)) > 1 for values in panel[1].values())]
    if not told:
        return None
    subjects = list(dict.fromkeys(name for _, values in told for name in values))
    rows = math.ceil(len(told) / ACROSS)
    with _drawing(_WIDTH, rows * (0.68 + 0.2 * len(subjects))) as (figure, content):
        figure.set_layout_engine("constrained", h_pad=0.08)
        grid = figure.subplots(rows, ACROSS, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place < len(told):
                _boxes(axes, *told[place], subjects)
            else:
                axes.set_axis_off()
        grid[0, 0].set_yticks(range(len(subjects)), subjects)
        grid[0, 0].set_ylim(len(subjects) - 0.4, -0.6)
    return _picture(content, f"Scores of single cases: {', '.join(title for title, _ in told)}")


def spread(
    values: Sequence[tuple[str, float, tuple[float, float] | None]], label: str, standard: str
) -> Picture | None:
    """One number under many definitions, by label: points with intervals, from the least; None if none is finite.

    The definition named `standard` is drawn in ink, with a line through all others.
    """
    told = sorted((value for value in values if math.isfinite(value[1])), key=lambda value: (value[1], value[0]))
    if not told:
        return None
    with _drawing(_WIDTH, 0.6 + 0.165 * len(told)) as (figure, content):
        axes = figure.subplots()
        for place, (name, value, interval) in enumerate(told):
            colour = INK if name == standard else COLOURS[0]
            if name == standard:
                axes.axvline(value, color=INK, linewidth=0.8, linestyle="--")
            if interval is not None and all(math.isfinite(end) for end in interval):
                axes.plot(interval, (place, place), color=colour, linewidth=1, alpha=0.6, solid_capstyle="butt")
            axes.plot([value], [place], "D" if name == standard else "o", color=colour, markersize=4)
        axes.set_yticks(range(len(told)), [name for name, _, _ in told])
        axes.set_ylim(-0.8, len(told) - 0.2)
        axes.set_xlabel(label)
        _dressed(axes)
        axes.tick_params(axis="y", labelsize=7)
    return _picture(content, f"{label} of the same scans under {len(told)} definitions")


def courses(told: Sequence[Mapping[str, Any]]) -> Picture | None:
    """What a model told of itself over training steps, a panel for each fact; None if no two steps told a number.

    Facts that differ in a last number alone, such as those of single channels, share a panel.
    """
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for event in told:
        for name, value in event.items():
            if name not in ("step", "event") and value is not None and math.isfinite(value):
                stem = re.sub(r" \d+$", "", name)
                group = stem if stem == name else f"{stem}, each"
                panels.setdefault(group, {}).setdefault(name, []).append((event["step"], value))
    panels = {group: curves for group, curves in panels.items() if max(map(len, curves.values())) > 1}
    if not panels:
        return None
    with _drawing(_WIDTH, 1.7 * len(panels) + 0.3) as (figure, content):
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (group, curves) in zip(grid, panels.items(), strict=True):
            for number, points in enumerate(curves.values()):
                colour = INK if len(curves) == 1 else COLOURS[number % len(COLOURS)]
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, alpha=1 if len(curves) == 1 else 0.7)
            axes.set_ylabel(group)
            if min(value for points in curves.values() for _, value in points) >= 0:
                axes.set_ylim(bottom=0)
            _dressed(axes)
        grid[-1].set_xlabel("step")
    return _picture(content, f"{', '.join(panels)} over training steps")


def _boxes(axes: "Axes", title: str, values: Mapping[str, Sequence[float]], subjects: Sequence[str]) -> None:
    lost = 0
    looks = _looks(subjects)
    for number, subject in enumerate(subjects):
        given = values.get(subject, ())
        finite = _finite(given)
        lost += len(given) - len(finite)
        if len(finite) >= BOXED:
            axes.boxplot(
                finite, orientation="horizontal", positions=[number], widths=0.6, whis=(0, 100), showfliers=False,
                manage_ticks=False, medianprops={"color": INK}, boxprops={"color": INK, "linewidth": 0.8},
                whiskerprops={"color": INK, "linewidth": 0.8}, capprops={"color": INK, "linewidth": 0.8},
            )  # fmt: skip
        # Points that share a value lie apart by a fixed zigzag; where they lie across the line says nothing.
        across = number + 0.18 * (np.arange(len(finite)) % 3 - 1) * (len(finite) > 1)
        look = looks[subject]
        axes.plot(finite, across, look.mark, markersize=3.5, color=look.colour, alpha=0.85, markeredgewidth=0)
    axes.set_title(title + (f"\n{lost} not finite" if lost else ""), fontsize=8, color=INK)
    _dressed(axes)
    axes.locator_params(axis="x", nbins=4)


def _finite(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values if math.isfinite(value)]


class _Look(NamedTuple):
    colour: str
    dash: Any
    mark: str
    width: float


def _looks(names: Iterable[str]) -> dict[str, _Look]:
    """Colour, dashes and points of each name: what is true in ink, the others in the order of their mention."""
    others = [name for name in names if name not in TRUE]
    looks = {name: _Look(INK, "-", ".", 1.6) for name in names if name in TRUE}
    for number, name in enumerate(others):
        at = number % len(COLOURS)
        looks[name] = _Look(COLOURS[at], DASHES[at], MARKS[at], 1.3)
    return looks


def _legend(axes: "Axes") -> None:
    """Above the curves, where it covers none."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8, borderaxespad=0, labelcolor=INK
    )


def _dressed(axes: "Axes") -> None:
    axes.grid(color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(INK)
    axes.tick_params(labelsize=8, colors=INK)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set(color=INK, fontsize=9)


@contextmanager
def _drawing(width: float, height: float) -> "Iterator[tuple[Figure, io.BytesIO]]":
    """A figure of so many inches to draw in; its SVG is in the buffer when the block ends."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tomogen", "font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        yield figure, content
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})


def _picture(content: io.BytesIO, alt: str) -> Picture:
    return Picture(embedded(content.getvalue(), "image/svg+xml"), alt, "plot")
