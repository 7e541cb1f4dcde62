"""Against truth: scans and what was made to be like them, scored case by case, with floors beside."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tomogen import catalog
from tomogen._version import __version__
from tomogen.cases.steps import find_body
from tomogen.errors import DataInvalid, Reason, UsageFault
from tomogen.evaluation import interval
from tomogen.evaluation.definition import Definition
from tomogen.evaluation.distances import histogram
from tomogen.evaluation.evidence import SHOWN, Evidence, Shown
from tomogen.evaluation.floors import MeanScan, blurred
from tomogen.evaluation.gather import Source, called, gather
from tomogen.evaluation.grids import on_grid
from tomogen.evaluation.marks import marked
from tomogen.evaluation.metrics import cnr, error
from tomogen.evaluation.pair import HU, Metric, Pair, Reading
from tomogen.evaluation.score import Score
from tomogen.evaluation.scores import Scores
from tomogen.evaluation.subjects import BLURRED, INPUT, MADE, MEAN
from tomogen.formats import DEFAULT, ReadOptions
from tomogen.progress import Progress, silent
from tomogen.volume import Volume

BIN = 32
"""HU of a bin of the histograms."""
EDGES = np.arange(histogram.LOW, histogram.HIGH + BIN, BIN, dtype=np.float64)
"""HU at the edges of the bins."""


@dataclass(frozen=True)
class Asked:
    """How pairs are to be scored; each field is a parameter of `tomogen.evaluate.pairs`."""

    source: str | Path | None = None
    train: str | Path | None = None
    mask: str | Path | None = None
    structure: str | Path | None = None
    conventions: str = "all"
    resample: bool = False
    patients: str | Path | None = None
    options: ReadOptions = DEFAULT


@dataclass
class _Tally:
    """The readings of one subject: by metric and convention, the definition and the value of each case."""

    values: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    definitions: dict[tuple[str, str], Definition] = field(default_factory=dict)
    unlike: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, case: str, readings: Iterable[Reading]) -> None:
        for definition, value in readings:
            key = (definition.convention, definition.metric)
            known = self.definitions.setdefault(key, definition)
            if differences := known.differences(definition):
                self.unlike.setdefault(key, f"unlike from scan to scan: {'; '.join(differences)}")
            self.values.setdefault(key, {})[case] = value

    def scores(self, patients: Mapping[str, str]) -> list[Score]:
        """One score for each metric: the mean over patients of the mean over a patient's scans."""
        found = []
        for key, values in self.values.items():
            definition = replace(
                self.definitions[key], n=(len(values),), versions={"tomogen": __version__, "numpy": np.__version__}
            )
            if key in self.unlike:
                score = Score(
                    value=float("nan"), interval=None, definition=definition, cases=values, note=self.unlike[key]
                )
            else:
                score = _mean(values, patients, definition)
            found.append(score)
        return found


def score_pairs(
    truth: str | Path, made: str | Path, asked: Asked, progress: Progress = silent
) -> tuple[Scores, Evidence]:
    """Scores of the scans under `made` against those under `truth`, and what a report shows of them.

    Raises:
        InputMissing, DataInvalid: as `gather` and `on_grid` say; scans without a counterpart.
        UsageFault: a convention that there is not.
    """
    began = time.monotonic()
    modules = _modules(asked.conventions)
    truths = gather(truth, patients=asked.patients, options=asked.options)
    mades = _matched(truths, gather(made, options=asked.options), "made", made)
    inputs: Sequence[Source | None] = [None] * len(truths)
    if asked.source is not None:
        inputs = _matched(truths, gather(asked.source, options=asked.options), "input", asked.source)
    mean = None if asked.train is None else MeanScan(gather(asked.train, split="train", options=asked.options))
    tallies: dict[str, _Tally] = {MADE: _Tally()}
    notes: list[str] = []
    shown: list[Shown] = []
    counts = {name: np.zeros(len(EDGES) - 1, dtype=np.int64) for name in ("truth", "made")}
    for number, one in enumerate(truths):
        progress(number, len(truths), one.name)
        case, moved = _read(one, mades[number], inputs[number], resampled=asked.resample)
        notes += moved
        true = case.truth
        mask, mask_name = _mask(true, one, asked)
        for name, hu in _subjects(case, mean).items():
            pair = Pair(true.hu, hu, mask, mask_name, true.spacing, one.name, one.patient)
            tally = tallies.setdefault(name, _Tally())
            for convention, metric in modules:
                if name == MADE or convention == "standard":
                    tally.add(one.name, metric.measure(pair))
            if asked.structure is not None:
                tally.add(one.name, _of_structure(pair, true, asked.structure, asked.options))
        for name, hu in (("truth", true.hu), ("made", case.made.hu)):
            counts[name] += histogram.counts(hu, width=BIN)
        if len(shown) < SHOWN:
            shown.append(case)
    progress(len(truths), len(truths), "scored")
    patients = {one.name: one.patient for one in truths}
    people = len(set(patients.values()))
    if people < 2:
        notes.append("one patient: no interval can be given; nothing here tells how the method does on others")
    facts = {
        "truth": called(truth), "made": called(made), "scans": str(len(truths)),
        "patients": str(people), "seconds": f"{time.monotonic() - began:.1f}",
    }  # fmt: skip
    scores = Scores(
        kind="pairs",
        subjects={name: tally.scores(patients) for name, tally in tallies.items()},
        notes=notes,
        facts=facts,
    )
    return scores, Evidence(pairs=shown, edges=EDGES, histograms=counts)


def _read(one: Source, made: Source, start: Source | None, *, resampled: bool) -> tuple[Shown, list[str]]:
    """A truth, and on its grid what was made and what it was made from; a sentence for each that had to be moved."""
    truth = one.read()
    notes = []

    def placed(source: Source, what: str) -> Volume:
        scan, moved = on_grid(truth, source.read(), resampled=resampled, at=source.name)
        if moved:
            notes.append(f"{one.name}: the {what} was {moved}")
        return scan

    case = Shown(one.name, truth, placed(made, "made scan"), None if start is None else placed(start, "input"))
    return case, notes


def _subjects(case: Shown, mean: MeanScan | None) -> dict[str, HU]:
    """What is scored against the truth of a case: what was made, and the floors."""
    found: dict[str, HU] = {MADE: case.made.hu, BLURRED: blurred(case.truth.hu)}
    if case.source is not None:
        found[INPUT] = case.source.hu
    if mean is not None:
        found[MEAN] = mean.on(case.truth)
    return found


def _modules(conventions: str) -> list[tuple[str, Metric]]:
    """The standard metrics, and the conventions asked for: `all`, `standard` for none, or names by comma."""
    known = catalog.names("evaluation.conventions")
    wanted = [word.strip() for word in conventions.split(",") if word.strip()]
    if "all" in wanted:
        wanted = known
    for name in wanted:
        if name not in (*known, "standard"):
            raise UsageFault(f"no such convention {name!r}; there are: standard, {', '.join(known)}, all")
    rooms = [("standard", "metrics", name) for name in catalog.names("evaluation.metrics")]
    rooms += [(name, "conventions", name) for name in wanted if name != "standard"]
    return [(convention, cast(Metric, catalog.load(f"evaluation.{room}", name))) for convention, room, name in rooms]


def _matched(truths: Sequence[Source], others: Sequence[Source], what: str, path: str | Path) -> list[Source]:
    """For each truth the other scan of its name; where there is one of each, whatever their names.

    Raises:
        DataInvalid: scans without a counterpart, each named.
    """
    if len(truths) == len(others) == 1:
        return list(others)
    by_name = {source.name: source for source in others}
    lacking = [source.name for source in truths if source.name not in by_name]
    known = {source.name for source in truths}
    spare = [name for name in by_name if name not in known]
    if lacking or spare:
        parts = [f"no {what} scan for {_few(lacking)}"] if lacking else []
        parts += [f"no truth for {_few(spare)}"] if spare else []
        raise DataInvalid(
            "; ".join(parts), reason=Reason.UNPAIRED, at=path, fix="give both halves of a pair the same name"
        )
    return [by_name[source.name] for source in truths]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _mask(truth: Volume, one: Source, asked: Asked) -> tuple[NDArray[np.bool_] | None, str]:
    """Voxels that count: all, the body of the truth, or what a file of the same grid marks."""
    if asked.mask is None:
        return None, "none"
    if asked.mask == "body":
        return _body(truth), "body"
    return marked(asked.mask, one.name, truth, asked.options), f"given: {Path(asked.mask).name}"


def _of_structure(pair: Pair, truth: Volume, path: str | Path, options: ReadOptions) -> Iterator[Reading]:
    """Contrast of a structure, and the errors in HU within it, as `METRIC/structure`."""
    name = f"{cnr.STRUCTURE}{Path(path).name}"
    inside = replace(pair, mask=marked(path, pair.case, truth, options), mask_name=name)
    yield from cnr.measure(inside)
    for definition, value in error.measure(inside):
        if "/" not in definition.metric:
            yield Reading(replace(definition, metric=f"{definition.metric}/structure"), value)


def _body(truth: Volume) -> NDArray[np.bool_]:
    """The patient's voxels, found on the house's orientation."""
    upright = truth.reorient()
    body = Volume(find_body(upright).astype(np.int16), upright.affine)
    found: NDArray[np.bool_] = body.reorient(truth.orientation).hu > 0
    return found


def _mean(values: Mapping[str, float], patients: Mapping[str, str], definition: Definition) -> Score:
    """The mean over patients of the mean over scans, of the values that are numbers."""
    told = {case: value for case, value in values.items() if not np.isnan(value)}
    note = "" if len(told) == len(values) else f"{len(values) - len(told)} of {len(values)} scans have no value"
    if not told:
        return Score(value=float("nan"), interval=None, definition=definition, cases=values, note=note)
    by_patient: dict[str, list[float]] = {}
    for case, value in told.items():
        by_patient.setdefault(patients[case], []).append(value)
    value = float(np.mean([np.mean(group) for group in by_patient.values()]))
    between = interval.of_means(list(told.values()), [patients[case] for case in told])
    return Score(value=value, interval=between, definition=definition, cases=values, note=note)
