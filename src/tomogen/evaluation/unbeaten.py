"""Floors that what was made does not beat: a reader is to know them before any number."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tomogen.evaluation.planes import PLANES
from tomogen.evaluation.subjects import REAL
from tomogen.evaluation.words import title

if TYPE_CHECKING:
    from tomogen.evaluation.scores import Row


def averaged(metric: str) -> set[str]:
    """The metric that is the mean over the planes of one of a single plane: `fid/2.5d` of `fid/axial`."""
    return {metric.replace(f"/{plane}", "/2.5d") for plane in PLANES if f"/{plane}" in metric}


def unbeaten(rows: Sequence["Row"], subject: str) -> list[str]:
    """For each floor that `subject` does not beat everywhere, a sentence that names every score where it does not.

    Rows of published conventions say the same thing again and are passed over, and so is a single plane where the
    mean over the planes is named. Real scans are no floor to beat.
    """
    behind: dict[str, list[str]] = {}
    for row in rows:
        mine = row.scores.get(subject)
        if row.convention != "standard" or not row.definition.better or mine is None or math.isnan(mine.value):
            continue
        for name, other in row.scores.items():
            if name in (subject, REAL) or other is None or math.isnan(other.value):
                continue
            ahead = mine.value < other.value if row.definition.better == "lower" else mine.value > other.value
            if not ahead:
                behind.setdefault(name, []).append(row.metric)
    return [
        f'"{subject}" is no better than "{name}" in '
        f"{', '.join(title(metric) for metric in metrics if not averaged(metric) & set(metrics))}."
        for name, metrics in behind.items()
    ]
