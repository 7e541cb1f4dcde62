"""The loss plot of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tomogen.storage import whole

BOOKKEEPING = ("step", "images", "seconds", "memory")
SMOOTH = 200
"""Points to which a curve is reduced, each the mean of the steps around it."""


def losses(log: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw each loss term over the steps, one panel a term, into a PNG; whether there was anything to draw."""
    names = list(dict.fromkeys(name for line in log for name in line if name not in BOOKKEEPING))
    if len(log) < 2 or not names:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.9 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for panel, name in zip(panels, names, strict=True):
        known = [(line["step"], line[name]) for line in log if line.get(name) is not None]
        steps, values = [step for step, _ in known], [value for _, value in known]
        width = max(1, len(values) // SMOOTH)
        panel.plot(steps, values, color="0.8", linewidth=0.6)
        panel.plot(_means(steps, width), _means(values, width), color="tab:blue", linewidth=1.4)
        panel.set_ylabel(name.replace("/", "\n"), fontsize=8)
        panel.grid(color="0.92")
        panel.tick_params(labelsize=8)
    panels[-1].set_xlabel("step")
    with whole(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))
    return True


def _means(values: Sequence[float], width: int) -> list[float]:
    parts = [values[first : first + width] for first in range(0, len(values), width)]
    return [sum(part) / len(part) for part in parts]
