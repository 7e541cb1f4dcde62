"""Against many: a set of made scans scored against a set of real ones, with real against real beside it.

Each distance stands twice: over all scans, with an interval; and, as `METRIC/equal n`, where the floor can stand beside
it. There some real patients are set apart, and both they and as many made scans are compared with the rest.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason, UsageFault
from tomogen.evaluation import bounds, interval, planes, sizes
from tomogen.evaluation.collection import Collection, Grid, Scan, collect, same_spacing
from tomogen.evaluation.distances import histogram
from tomogen.evaluation.features.network import FeatureNetwork
from tomogen.evaluation.parts import Part, over, parts
from tomogen.evaluation.score import Score
from tomogen.evaluation.set_metrics import Pool, SetMetric, metrics_of
from tomogen.evaluation.subjects import EQUAL, MADE, REAL
from tomogen.evaluation.view import Chosen
from tomogen.progress import Progress, silent

ROWS = 1024
"""Rows of features of a set in one plane, about: many scans give fewer slices each."""
_MERGED = 8
"""Groups of patients that are left out in turn where a statistic is dear."""
_LEFT_OUT = 20
"""Groups of patients that are left out in turn of all parts at once."""
_SHARES: dict[str, Literal["real", "made"]] = {"precision": "made", "recall": "real", "coverage": "real"}
"""Metrics that are a share, and whose scans they are a share of."""
_KIDS = ("kid/2.5d", "kid/axial", "kid/volume")
"""The first there is is the one by which the notes say whether n is enough."""


class Comparison(NamedTuple):
    """What two sets have to do with one another; the last three are for a report."""

    subjects: dict[str, list[Score]]
    notes: list[str]
    edges: NDArray[np.float64]
    """HU at the edges of the histograms' bins."""
    histograms: dict[str, NDArray[np.int64]]
    """Voxels in each bin, of `real` and `made`."""
    profiles: dict[str, NDArray[np.float64]]
    """Mean coherence profiles of `real` and `made`: log2 of the ratio at 1, 2, ... slices; none of slices."""


def compare(
    real: Iterable[Scan],
    made: Iterable[Scan],
    *,
    networks: Sequence[FeatureNetwork],
    slices: int = planes.MOST,
    seed: int = 0,
    progress: Progress = silent,
) -> Comparison:
    """Score made scans against real ones; each is seen once and not kept.

    `networks` holds one that sees slices, one that sees volumes, or both; `slices` are taken of a scan in each plane at
    most. Where one side has slices only (depth 1), slices of the other are its scans, and the axial plane is all there
    is. Which patients are set apart is a function of the seed.

    Raises:
        DataInvalid: a set is empty; NaN, a constant scan, unlike spacings, slices among volumes; the scan is named.
        UsageFault: two networks for the same, or none that can see what there is.
    """
    if not networks or len({network.dims for network in networks}) < len(networks):
        raise UsageFault(f"{len(networks)} feature networks; one for slices, one for volumes, or one of each expected")
    (first, reals), (other, mades) = _peeked(real, "real"), _peeked(made, "made")
    flat = min(first.shape[0], other.shape[0]) == 1
    if flat and not any(network.dims == 2 for network in networks):
        raise UsageFault("there are slices only, and no feature network that sees slices")
    same_spacing(first, other, ("real", "made"), flat=flat)
    before = collect(_told(reals, "real", progress), "real", networks, flat=flat, most=slices)
    after = collect(_told(mades, "made", progress), "made", networks, flat=flat, most=slices)
    most = max(1, min(slices, ROWS // max(len(before), len(after))))
    before, after = before.thinned(most), after.thinned(most)
    progress(0, None, "distances")
    pool = Pool.of(before, after, networks, most, flat=flat)
    drawn = parts(before.patients, len(after), seed)
    whole = list(_whole(pool))
    beside = list(_beside(pool, drawn, whole))
    subjects = {MADE: [*whole, *(score for score, _ in beside)]}
    if beside:
        subjects[REAL] = [floor for _, floor in beside]
    return Comparison(
        subjects=subjects,
        notes=list(_notes(before, after, pool, drawn, whole, beside)),
        edges=np.arange(histogram.LOW, histogram.HIGH + 1, dtype=np.float64),
        histograms={name: one.counts.sum(axis=0) for name, one in (("real", before), ("made", after))},
        profiles={}
        if flat
        else {name: pool.scans.profiles[one].mean(axis=0) for name, one in (("real", pool.real), ("made", pool.made))},
    )


def _peeked(scans: Iterable[Scan], what: str) -> tuple[Grid, Iterator[Scan]]:
    """The grid of the first scan, and all scans."""
    rest = iter(scans)
    first = next(rest, None)
    if first is None:
        raise DataInvalid(f"no {what} scans", reason=Reason.EMPTY, fix="another folder")
    return Grid.of(first), _again(first, rest)


def _again(first: Scan, rest: Iterator[Scan]) -> Iterator[Scan]:
    yield first
    del first  # itertools.chain would hold it to the end
    yield from rest


def _told(scans: Iterable[Scan], what: str, progress: Progress) -> Iterator[Scan]:
    for number, scan in enumerate(scans):
        progress(number, None, f"{what}: {scan.id}")
        yield scan


def _whole(pool: Pool) -> Iterator[Score]:
    """Every metric over all scans."""
    of_real, of_made = ([pool.scans.patients[scan] for scan in scans] for scans in (pool.real, pool.made))
    people = len(set(of_real)), len(set(of_made))
    alone = "" if min(people) > 1 else f"no interval: {people[0]} real and {people[1]} made patients"
    count = int(np.isnan(pool.scans.profiles).any(axis=1).sum())
    blank = f"no value: {count} scans have slices in which nothing changes" if count else ""
    for one in metrics_of(pool, pool.real, pool.made):
        definition = replace(
            one.definition, reduction=f"{one.definition.reduction}; interval: patients resampled or left out in turn"
        )
        if lacking := sizes.lacking(definition.metric, definition.n, people, pool.noun):
            yield Score(value=math.nan, interval=None, definition=definition, note=lacking)
            continue
        found = _between(one, pool, of_real, of_made)
        stiff = "" if found is None or found[0] < found[1] else "no interval: none left out, the value is the same"
        yield Score(
            value=one.statistic(pool.real, pool.made),
            interval=None if stiff else found,
            definition=definition,
            cases=_cases(one, pool),
            note=_joined(one.note, alone, stiff, blank if definition.metric == "coherence" else ""),
        )


def _between(one: SetMetric, pool: Pool, of_real: Sequence[str], of_made: Sequence[str]) -> tuple[float, float] | None:
    """The interval of a metric over all scans, from the patients of each side."""
    limits = bounds.of(one.definition.metric)
    if one.grams is not None:
        grams = one.grams(pool.real, pool.made)
        rows = ([str(row) for row in range(n)] for n in grams.cross.shape)
        return interval.of_pairs_kernel(grams.real, grams.made, grams.cross, *rows, bounds=limits)
    statistic = _shifted(one.statistic, len(pool.real))
    if counted := _SHARES.get(one.definition.metric.partition("/")[0]):
        return interval.of_share(statistic, of_real, of_made, counted=counted)
    groups = (_merged(names) if one.dear else names for names in (of_real, of_made))
    return interval.of_two_samples(statistic, *groups, bounds=limits)


def _shifted(statistic: Callable[[Chosen, Chosen], float], by: int) -> Callable[[Chosen, Chosen], float]:
    """With made scans counted from 0."""
    return lambda real, made: statistic(real, made + by)


def _merged(patients: Sequence[str], groups: int = _MERGED) -> list[str]:
    """Patients put into a few groups, by chance; the same ones each time."""
    names, of = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    group = np.random.default_rng(0).permutation(len(names)) % groups
    return [str(number) for number in group[of]]


def _cases(one: SetMetric, pool: Pool) -> dict[str, float]:
    """What each made scan has by itself against all real ones, of metrics that a single scan can have."""
    if one.definition.metric not in ("hu_histogram", "coherence"):
        return {}
    return {pool.scans.ids[scan]: one.statistic(pool.real, np.array([scan])) for scan in pool.made}


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _beside(pool: Pool, drawn: Sequence[Part], whole: Sequence[Score]) -> Iterator[tuple[Score, Score]]:
    """The made and the real at one n, where they have a value; nothing where nobody can be set apart."""
    if not drawn:
        return
    lots = [(part.reference, len(pool.real) + part.made, part.real) for part in drawn]
    patients = np.asarray(pool.scans.patients)
    people = [min(len(set(patients[lot[side]].tolist())) for lot in lots) for side in (0, 2)]
    given = {score.definition.metric for score in whole if not math.isnan(score.value)}
    for one in metrics_of(pool, drawn[0].reference, drawn[0].real):
        metric, n, name = one.definition.metric, min(one.definition.n), one.definition.metric.partition("/")[0]
        if metric not in given or n < min(sizes.LEAST[name], 2) or min(people) < sizes.PATIENTS.get(name, 1):
            continue
        definition = replace(
            one.definition,
            metric=f"{metric}{EQUAL}",
            reduction=(
                f"{one.definition.reduction}; mean over {len(drawn)} random parts of the real patients, interval: "
                "where 95 % of the parts lie"
            ),
        )
        few = f"n below {sizes.LEAST[name]}: of use beside the floor alone" if n < sizes.LEAST[name] else ""
        pairs = [(one.statistic(first, made), one.statistic(first, real)) for first, made, real in lots]
        of_made, of_real = (
            Score(value=value, interval=found, definition=definition, note=_joined(one.note, few))
            for value, found in (over(values) for values in zip(*pairs, strict=True))
        )
        yield of_made, of_real


def _notes(
    real: Collection,
    made: Collection,
    pool: Pool,
    drawn: Sequence[Part],
    whole: Sequence[Score],
    beside: Sequence[tuple[Score, Score]],
) -> Iterator[str]:
    """Sentences about the whole."""
    if real.shapes != made.shapes:
        yield (
            f"fields of unlike size: real {_shapes(real)}, made {_shapes(made)} voxels; that alone may set them apart"
        )
    for view, why in (real.too_small | made.too_small).items():
        yield f"no scores of the view {view}: {why}"
    noun = pool.noun
    if not drawn:
        yield f"{len(real)} {noun} of one real patient: nobody can be set apart, so there is no floor"
        return
    n, m = len(drawn[0].reference), len(drawn[0].real)
    yield (
        f"{EQUAL}: {m} real {noun} set apart and {m} made ones, each compared with {n} other real ones; a floor at "
        f"n = {len(real)} and {len(made)} would take {len(real) + len(made)} real {noun}, there are {len(real)}"
    )
    told = {score.definition.metric: score for score in whole}
    pairs = {pair[0].definition.metric.removesuffix(EQUAL): pair for pair in beside}
    kid = next((metric for metric in _KIDS if metric in pairs), None)
    chosen = {one.definition.metric: one for one in metrics_of(pool, pool.real, pool.made)}
    for metric in (kid, "coherence"):
        if metric in pairs:
            yield from sizes.telling(told[metric], *pairs[metric], _apart(chosen[metric], pool, drawn))


def _apart(one: SetMetric, pool: Pool, drawn: Sequence[Part]) -> tuple[float, float] | None:
    """Interval of how far the made lie above the floor at equal n.

    Of that very difference, over the same parts: patients are left out of all of them at once, so what both numbers
    owe to the real scans that they are held against counts once.
    Cautious: of 200 differences between two draws of one law at 16 and 30 patients none was told apart, the interval
    about 1.4 times as wide as need be.
    """

    def above(real: Chosen, made: Chosen) -> float:
        kept = np.concatenate([real, made + len(pool.real)])
        found = []
        for part in drawn:
            first, others, ours = (
                lot[np.isin(lot, kept)] for lot in (part.reference, part.real, part.made + len(pool.real))
            )
            if min(len(first), len(others), len(ours)) == 0:
                return math.nan
            found.append(one.statistic(first, ours) - one.statistic(first, others))
        return float(np.mean(found))

    groups = ([pool.scans.patients[scan] for scan in scans] for scans in (pool.real, pool.made))
    return interval.of_two_samples(above, *(_merged(names, _LEFT_OUT) for names in groups))


def _shapes(collection: Collection) -> str:
    shown = sorted(" x ".join(map(str, shape)) for shape in collection.shapes)
    return " and ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
