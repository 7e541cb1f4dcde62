"""Ways compared on the same held-out patients: each one's scores, and how much better one is than the next."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tomogen.cases.folder import CaseFolder
from tomogen.evaluation import interval
from tomogen.evaluation.score import Score

Told = dict[str, dict[str, dict[str, object]]]
"""By way, and by metric: value, interval and, of a difference, n."""


def told(found: Mapping[str, Mapping[str, Score]], pairs: Sequence[tuple[str, str]], cases: Path) -> Told:
    """Scores by way and metric as JSON takes them, and with them, for pairs of ways, how much the first is more.

    The intervals of differences are over the patients of the prepared folder `cases`.

    Raises:
        ValueError: two scores are not of one definition.
    """
    result: Told = {
        name: {metric: {"value": score.value, "interval": score.interval} for metric, score in scores.items()}
        for name, scores in found.items()
    }
    patients = {case.id: case.patient for case in CaseFolder.open(cases).cases}
    for better, worse in pairs:
        result[f"{better} less {worse}"] = {}
        for metric, one in found[better].items():
            other = found[worse][metric]
            one.compare(other)
            differences = {case: value - other.cases[case] for case, value in one.cases.items()}
            ends = interval.of_means(list(differences.values()), [patients[case] for case in differences])
            value = sum(differences.values()) / len(differences)
            result[f"{better} less {worse}"][metric] = {"value": value, "interval": ends, "n": len(differences)}
    return result


def cell(entry: Mapping[str, object], sign: str = "") -> str:
    """A value and its interval as tables have them."""
    ends = entry["interval"]
    within = f" [{ends[0]:{sign}.3g}, {ends[1]:{sign}.3g}]" if ends else ""  # type: ignore[index]
    return f"{entry['value']:{sign}.3f}{within}"


def table(figures: Told, words: Mapping[str, str], metrics: Sequence[str], head: str) -> str:
    """The figures in Markdown: a row for each way that `words` name, then one for each difference, in italics.

    `head` names the columns, the first of them what the rows are.
    """
    rows = [f"| {head} |", "|---|" + "--:|" * len(metrics)]
    for name, entries in figures.items():
        told, sign = (words[name], "") if name in words else (f"*{name}*", "+")
        rows.append(f"| {told} | {' | '.join(cell(entries[metric], sign) for metric in metrics)} |")
    return "\n".join(rows)
