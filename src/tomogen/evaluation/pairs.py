"""Against truth: scans and what was made to be like them, scored case by case, with floors beside."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from tomogen import catalog
from tomogen.errors import DataInvalid, Reason, UsageFault
from tomogen.evaluation.distances import histogram
from tomogen.evaluation.evidence import SHOWN, Evidence, Shown
from tomogen.evaluation.floors import MeanScan, blurred
from tomogen.evaluation.gather import Source, called, gather, guessed
from tomogen.evaluation.grids import Box, cropped, on_grid, shared, size, whole
from tomogen.evaluation.marks import Marks
from tomogen.evaluation.metrics import cnr, error
from tomogen.evaluation.pair import HU, Metric, Pair, Reading
from tomogen.evaluation.score import Score
from tomogen.evaluation.scores import Scores
from tomogen.evaluation.subjects import BLURRED, INPUT, MADE, MEAN
from tomogen.evaluation.tally import Tally, scored
from tomogen.formats import DEFAULT, ReadOptions
from tomogen.progress import Progress, silent
from tomogen.volume import Volume

ENOUGH = 0.8
"""Share of the truth's voxels below which the little that is scored is told first."""
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


@dataclass(frozen=True)
class Sides:
    """What is scored against what: a made scan for each truth, and where there are some the scan it was made from."""

    truths: Sequence[Source]
    mades: Sequence[Source]
    inputs: Sequence[Source | None]
    mean: MeanScan | None = None
    """Of the training scans, as a floor."""


class Found(NamedTuple):
    """What scoring found."""

    subjects: dict[str, list[Score]]
    notes: list[str]
    """What the reader must know."""
    evidence: Evidence


More = Callable[[str, Volume], Iterator[Reading]]
"""Further readings of a scan on the grid of the truth of a name, beyond those against that truth."""


@dataclass
class _Case:
    """A truth on its own grid, and beside it, cut to the voxels that all have, what is scored."""

    whole: Volume
    box: Box
    shown: Shown
    notes: list[str]


def score_pairs(
    truth: str | Path, made: str | Path, asked: Asked, progress: Progress = silent
) -> tuple[Scores, Evidence]:
    """Scores of the scans under `made` against those under `truth`, and what a report shows of them.

    Raises:
        InputMissing, DataInvalid: as `gather` and `on_grid` say; scans without a counterpart.
        UsageFault: a convention that there is not.
    """
    began = time.monotonic()
    modules = metrics_of(asked.conventions)
    truths = gather(truth, patients=asked.patients, options=asked.options)
    mades = _matched(truths, gather(made, options=asked.options), "made", made)
    inputs: Sequence[Source | None] = [None] * len(truths)
    if asked.source is not None:
        inputs = _matched(truths, gather(asked.source, options=asked.options), "input", asked.source)
    mean = None if asked.train is None else MeanScan(gather(asked.train, split="train", options=asked.options))
    marks = Marks(asked.mask, asked.structure, asked.options)
    found = score_sides(Sides(truths, mades, inputs, mean), marks, modules, resampled=asked.resample, progress=progress)
    people = len({one.patient for one in truths})
    facts = {
        "truth": called(truth), "made": called(made), "scans": str(len(truths)), "patients": str(people),
        **({} if mean is None or asked.train is None else {"train": f"{called(asked.train)}: {mean.told}"}),
        "seconds": f"{time.monotonic() - began:.1f}",
    }  # fmt: skip
    scores = Scores(kind="pairs", subjects=found.subjects, notes=[*guessed(truths), *found.notes], facts=facts)
    return scores, found.evidence


def score_sides(
    sides: Sides,
    marks: Marks,
    modules: Sequence[tuple[str, Metric]],
    *,
    resampled: bool = False,
    more: More | None = None,
    progress: Progress = silent,
) -> Found:
    """Scores of what was made and of the floors against the truths, read one case at a time.

    `modules` are metrics by convention, as `metrics_of` gives them.

    Raises:
        InputMissing, DataInvalid: as `on_grid` says.
    """
    truths, mean = sides.truths, sides.mean
    tallies: dict[str, Tally] = {}
    moved: list[str] = []
    trained: list[str] = []
    shown: list[Shown] = []
    counts = {name: np.zeros(len(EDGES) - 1, dtype=np.int64) for name in ("truth", "made")}
    for number, one in enumerate(truths):
        progress(number, len(truths), one.name)
        case = _read(one, sides.mades[number], sides.inputs[number], resampled=resampled)
        moved += case.notes
        for name, readings in _readings(case, mean, marks, modules, more):
            tallies.setdefault(name, Tally()).add(one.name, readings)
        if mean is not None and mean.holds(case.whole):
            trained.append(one.name)
        for name, hu in (("truth", case.shown.truth.hu), ("made", case.shown.made.hu)):
            counts[name] += histogram.counts(hu, width=BIN)
        if len(shown) < SHOWN:
            shown.append(case.shown)
    progress(len(truths), len(truths), "scored")
    patients = {one.name: one.patient for one in truths}
    return Found(
        scored(tallies, patients, marks.names(), _MOVED if moved else ""),
        [*_cautions(len(truths), len(set(patients.values())), trained), *moved],
        Evidence(pairs=shown, edges=EDGES, histograms=counts),
    )


def _cautions(scans: int, people: int, trained: Sequence[str]) -> Iterator[str]:
    """What the reader must know of the scans."""
    if trained:
        yield (
            f"{len(trained)} of {scans} truths lie among the training scans ({_few(trained)}): the mean of training "
            "has seen them, and so has a method trained on them"
        )
    if people < 2:
        yield "one patient: no interval can be given; nothing here tells how the method does on others"


_MOVED = "scans of another grid resampled onto the truth's, linearly along each axis; voxels beyond them left out"


def _read(one: Source, made: Source, start: Source | None, *, resampled: bool) -> _Case:
    """A truth, what was made and what it was made from, on its grid; a sentence for each that had to be moved."""
    truth = one.read()
    box, notes = whole(truth), []
    placed: dict[str, Volume] = {}
    for what, source in (("made scan", made), ("input", start)):
        if source is None:
            continue
        scan = source.read()
        found = on_grid(truth, scan, resampled=resampled, at=source.at)
        placed[what], box = found.scan, shared(box, found.covered)
        if found.moved:
            apart = float(np.linalg.norm(scan.centre - truth.centre))
            notes.append(f"{one.name}: {_moved(what, found.moved, _share(found.covered, truth), apart)}")
    if 0 in size(box):
        raise DataInvalid(
            "no voxel is in truth, made scan and input alike", reason=Reason.UNPAIRED, at=one.at,
            fix="register them first",
        )  # fmt: skip
    cut = {what: cropped(scan, box) for what, scan in placed.items()}
    return _Case(truth, box, Shown(one.name, cropped(truth, box), cut["made scan"], cut.get("input")), notes)


def _moved(what: str, moved: str, share: float, apart: float) -> str:
    """How a scan came onto the truth's grid, and its share of that; a small one comes first, with mm of the centres."""
    if share < ENOUGH:
        return (
            f"WARNING: only {_percent(share)} of the truth's voxels are scored, the {what} reaches no more; centres "
            f"lie {apart:.0f} mm apart: do both show the same place, or are they to be registered? It was {moved}"
        )
    left = "" if share == 1 else f"; it reaches {_percent(share)} of the truth's voxels, only these are scored"
    return f"the {what} was {moved}{left}"


def _share(box: Box, scan: Volume) -> float:
    return math.prod(size(box)) / math.prod(scan.shape)


def _percent(share: float) -> str:
    """As `87 %`, never 100 of less than all."""
    digits = 0 if 0.01 <= share <= 0.99 else 2
    return f"{100 * min(share, 0.9999):.{digits}f} %"


def _readings(
    case: _Case,
    mean: MeanScan | None,
    marks: Marks,
    modules: Sequence[tuple[str, Metric]],
    more: More | None,
) -> Iterator[tuple[str, Iterator[Reading]]]:
    """What each metric says of each subject of a case; conventions only of what was made."""
    name = case.shown.case
    mask, structure = (of(case.whole, name, case.box) for of in (marks.counting, marks.structure))
    for subject, hu in _subjects(case, mean).items():
        pair = Pair(case.shown.truth.hu, hu, mask, marks.counted, case.whole.spacing, name)
        for convention, metric in modules:
            if subject == MADE or convention == "standard":
                yield subject, metric.measure(pair)
        if structure is not None:
            yield subject, _of_structure(replace(pair, mask=structure, mask_name=marks.structured))
        if more is not None and subject != BLURRED:
            yield subject, more(name, replace(case.shown.truth, hu=np.asarray(hu, dtype=np.float32)))


def _subjects(case: _Case, mean: MeanScan | None) -> dict[str, HU]:
    """What is scored against the truth of a case: what was made, and the floors."""
    found: dict[str, HU] = {MADE: case.shown.made.hu, BLURRED: blurred(case.whole.hu)[case.box]}
    if case.shown.source is not None:
        found[INPUT] = case.shown.source.hu
    if mean is not None:
        found[MEAN] = mean.on(case.whole)[case.box]
    return found


def metrics_of(conventions: str) -> list[tuple[str, Metric]]:
    """The standard metrics, and the conventions asked for: `all`, `standard` for none, or names by comma.

    Raises:
        UsageFault: there is no such convention.
    """
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


def _of_structure(inside: Pair) -> Iterator[Reading]:
    """Contrast of a structure, and the errors in HU within it, as `METRIC/structure`."""
    yield from cnr.measure(inside)
    for definition, value in error.measure(inside):
        if "/" not in definition.metric:
            yield Reading(replace(definition, metric=f"{definition.metric}/structure"), value)
