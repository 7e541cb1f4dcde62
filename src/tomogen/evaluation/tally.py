"""Tally: what metrics read off the scans of each subject, and the scores that it comes to."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tomogen._version import __version__
from tomogen.evaluation import bounds, interval
from tomogen.evaluation.definition import Definition
from tomogen.evaluation.pair import Reading
from tomogen.evaluation.score import Score

Key = tuple[str, str]
"""Convention and metric."""


@dataclass
class Tally:
    """The readings of one subject: by convention and metric, the definition and the value of each case."""

    values: dict[Key, dict[str, float]] = field(default_factory=dict)
    definitions: dict[Key, Definition] = field(default_factory=dict)
    unlike: dict[Key, str] = field(default_factory=dict)

    def add(self, case: str, readings: Iterable[Reading]) -> None:
        """What the metrics say of a case."""
        for definition, value in readings:
            key = (definition.convention, definition.metric)
            known = self.definitions.setdefault(key, definition)
            if differences := known.differences(definition):
                self.unlike.setdefault(key, f"unlike from scan to scan: {'; '.join(differences)}")
            self.values.setdefault(key, {})[case] = value


def scored(
    tallies: Mapping[str, Tally], patients: Mapping[str, str], masks: Mapping[str, str], before: str
) -> dict[str, list[Score]]:
    """For each subject a score of each metric: the mean over patients of the mean over a patient's scans.

    The same scans enter for every subject: those with a value for all subjects that have any; `n` counts them.
    `patients` tells whose a scan is, `masks` what masks are called in definitions, `before` what was done to scans.
    """
    entered = _entered(tallies.values())
    return {
        name: [_score(tally, key, entered[key], patients, masks, before) for key in tally.values]
        for name, tally in tallies.items()
    }


def _entered(tallies: Iterable[Tally]) -> dict[Key, set[str]]:
    """The scans that enter, by convention and metric."""
    told: dict[Key, list[set[str]]] = {}
    for tally in tallies:
        for key, cases in tally.values.items():
            told.setdefault(key, []).append({case for case, value in cases.items() if not math.isnan(value)})
    return {key: set.intersection(*(filter(None, sets) if any(sets) else sets)) for key, sets in told.items()}


def _score(
    tally: Tally,
    key: Key,
    entered: Collection[str],
    patients: Mapping[str, str],
    masks: Mapping[str, str],
    before: str,
) -> Score:
    first, values = tally.definitions[key], tally.values[key]
    definition = replace(
        first,
        n=(len(entered),),
        mask=masks.get(first.mask, first.mask),
        preprocessing="; ".join(word for word in (before, first.preprocessing) if word),
        versions={"tomogen": __version__, "numpy": np.__version__},
    )
    told = {case: value for case, value in values.items() if case in entered and not math.isnan(value)}
    note = tally.unlike.get(key, _left_out(values, told))
    if key in tally.unlike or not told:
        return Score(value=math.nan, interval=None, definition=definition, cases=values, note=note)
    by_patient: dict[str, list[float]] = {}
    for case, value in told.items():
        by_patient.setdefault(patients[case], []).append(value)
    return Score(
        value=float(np.mean([np.mean(group) for group in by_patient.values()])),
        interval=interval.of_means(
            list(told.values()), [patients[case] for case in told], bounds=bounds.of(first.metric)
        ),
        definition=definition,
        cases=values,
        note=note,
    )


def _left_out(values: Mapping[str, float], told: Mapping[str, float]) -> str:
    """A sentence on the scans that did not enter."""
    without = sum(math.isnan(value) for value in values.values())
    others = len(values) - len(told) - without
    words = [f"{without} of {len(values)} scans have no value"] if without else []
    words += [f"{others} of {len(values)} scans left out, where other subjects have no value"] if others else []
    return "; ".join(words)
