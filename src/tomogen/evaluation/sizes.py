"""Sizes: how many scans a distance between sets needs, and whether those there are can tell two models apart."""

import math
from collections.abc import Iterator, Sequence

from tomogen.evaluation.distances import frechet
from tomogen.evaluation.score import Score

LEAST = {
    "fid": 50, "fid_above_floor": 20, "kid": 2, "mmd": 2, "precision": 2, "recall": 2, "density": 2, "coverage": 2,
    "hu_histogram": 1, "coherence": 1,
}  # fmt: skip
"""Scans of each set from which a metric is given. Under 50 a Frechet distance is mostly bias: between two draws of one
law of 512 features it is 682 at n = 50, and 80 at n = 1000. Above its floor it has none, but halves of under 20 show
little of how covariances differ."""

PATIENTS = {"fid_above_floor": frechet.LEAST_GROUPS, "kid": 2, "mmd": 2}
"""Patients of each set that a metric takes at least."""

NEIGHBOURS = 5
"""k of precision, recall, density and coverage (Naeem et al. 2020, section 5)."""


def lacking(metric: str, n: Sequence[int], people: Sequence[int], noun: str = "scans") -> str:
    """Why a metric (`fid/axial`) has no value; nothing if there are enough.

    `n` and `people` are scans and patients, real and made.
    """
    name = metric.partition("/")[0]
    least = LEAST[name]
    if min(n) < least:
        why = ": a Frechet distance of so few is mostly bias; KID is given" if name == "fid" else ""
        return f"no value: {n[0]} real and {n[1]} made {noun}, {least} of each needed{why}"
    if min(people) < PATIENTS.get(name, 1):
        return f"no value: {noun} of {people[0]} real and {people[1]} made patients, {PATIENTS[name]} of each needed"
    return ""


def neighbours(rows: int) -> int:
    """Nearest neighbours that sets of at least `rows` feature rows bear: 5, or a quarter of the rows if fewer."""
    return max(1, min(NEIGHBOURS, rows // 4))


def telling(score: Score, made: Score, floor: Score, apart: tuple[float, float] | None) -> Iterator[str]:
    """Whether a score tells the made from the real at this n, with the numbers; nothing where it does so clearly.

    `score` is over all scans, `made` and `floor` are at the floor's n, and `apart` is the interval of how far the one
    lies above the other: half widths of numbers at another n tell nothing about it.
    """
    distance = made.value - floor.value
    if not math.isfinite(distance):
        return
    metric, unit = score.definition.metric, f" {score.definition.unit}" if score.definition.unit else ""
    side = "above" if distance >= 0 else "below"
    lies = f"{metric}: the made lie {abs(distance):.2g}{unit} {side} the floor at equal n"
    if apart is None:
        yield f"{lies}; too few patients to say how sure that is: it cannot tell the made from the real"
        return
    low, high = apart
    lies += f", made less floor in [{low:.2g}, {high:.2g}]"
    if low <= 0 <= high:
        yield f"{lies}; it cannot tell the made from the real: take more scans"
    elif high < 0:
        yield f"{lies}: nearer to real scans than other real ones are"
    if score.interval is not None:
        half = (score.interval[1] - score.interval[0]) / 2
        if low <= 0 or half >= abs(distance) / 4:
            real, others = score.definition.n
            # the difference of two independent scores varies by sqrt(2) as much as one
            yield (
                f"{metric}: with {real} real and {others} made, two models that differ by less than "
                f"{math.sqrt(2) * half:.2g}{unit} cannot be told apart"
            )
