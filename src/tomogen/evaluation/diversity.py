"""Diversity: how alike the scans of one set are to one another, made ones beside real ones.

MS-SSIM between samples tells whether a model makes the same scan again and again (Odena, Olah, Shlens 2017,
section 4.2, for images; Kwon, Han, Kim 2019 for volumes). The truth is what real scans have among themselves: above it
the made are more alike than people are, below it they are less of one kind.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tomogen._version import __version__
from tomogen.errors import DataInvalid, Reason
from tomogen.evaluation import bounds, interval
from tomogen.evaluation.definition import Definition
from tomogen.evaluation.gather import Source
from tomogen.evaluation.metrics import ms_ssim
from tomogen.evaluation.pair import HU, Pair
from tomogen.evaluation.score import Score
from tomogen.progress import Progress, silent

METRIC = "diversity/ms_ssim"
SAMPLES = 12
"""Scans of each set that are compared with one another, at most: 66 pairs."""
HELD = 2**30
"""Bytes of scans that are kept from one pair to the next."""


def diversity(
    real: Sequence[Source],
    made: Sequence[Source],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[Score, Score]:
    """MS-SSIM between made scans, and between as many real ones of as many patients: (made, real), of one definition.

    `samples` of each set are chosen by the seed, and every two of them compared. The interval is of scans left out in
    turn, not of pairs, which share scans. Slices (depth 1) have MS-SSIM in 2D. NaN, with a note, where a set has fewer
    than two patients, or where scans are too small or of unlike shapes.

    Raises:
        DataInvalid: a set is empty; NaN in a scan.
    """
    chosen = [_one_each(sources, what, seed) for sources, what in ((made, "made"), (real, "real"))]
    n = min(samples, *map(len, chosen))
    of_made, of_real = (
        _alike(sources[:n], what, progress) for sources, what in zip(chosen, ("made", "real"), strict=True)
    )
    if differences := of_made.definition.differences(of_real.definition):
        # One row holds one definition: what has no value takes the other's.
        if math.isnan(of_real.value):
            return of_made, replace(of_real, definition=of_made.definition)
        note = of_made.note or f"no value: made and real scans differ in {'; '.join(differences)}"
        of_made = Score(value=math.nan, interval=None, definition=of_real.definition, note=note)
    elif of_made.interval and of_real.interval and of_made.interval[0] > of_real.interval[1]:
        of_made = replace(of_made, note="the made scans are more alike than real ones are")
    return of_made, of_real


def _one_each(sources: Sequence[Source], what: str, seed: int) -> list[Source]:
    """A scan of each patient, in an order by the seed.

    Raises:
        DataInvalid: there are none.
    """
    if not sources:
        raise DataInvalid(f"no {what} scans", reason=Reason.EMPTY, fix="another folder")
    order = np.random.default_rng(seed).permutation(len(sources))
    return list({sources[index].patient: sources[index] for index in order}.values())


def _alike(sources: Sequence[Source], what: str, progress: Progress) -> Score:
    """The mean over every two of these scans."""
    n = len(sources)
    definition = Definition(
        metric=METRIC,
        n=(n,),
        reduction=f"MS-SSIM of every two of {n} scans, mean of {n * (n - 1) // 2}; interval: scans left out in turn",
        versions={"tomogen": __version__, "numpy": np.__version__},
    )
    if n < 2:
        return Score(value=math.nan, interval=None, definition=definition, note=f"no value: {n} patients, 2 needed")
    flat = len(sources[0].read().reorient().hu) == 1
    definition = replace(definition, axis="axial" if flat else "3d")
    read = _reader(sources)
    alike = np.full((n, n), np.nan)
    for first, second in combinations(range(n), 2):
        progress(0, None, f"diversity, {what}: {sources[first].name} and {sources[second].name}")
        a, b = read(first), read(second)
        if a.shape != b.shape:
            note = f"no value: scans of {_voxels(a)} and {_voxels(b)} voxels do not lie on one another"
            return Score(value=math.nan, interval=None, definition=definition, note=note)
        reading = next(iter(ms_ssim.measure(Pair(a, b))))
        alike[first, second] = alike[second, first] = reading.value
    definition = replace(definition, range=reading.definition.range, parameters=reading.definition.parameters)
    if np.isnan(alike[0, 1]):
        note = f"no value: {_voxels(read(0))} voxels are too few for a window"
        return Score(value=math.nan, interval=None, definition=definition, note=note)
    return Score(
        value=_mean(alike, np.arange(n)),
        interval=interval.of_statistic(
            functools.partial(_mean, alike), [source.name for source in sources], bounds=bounds.of(METRIC)
        ),
        definition=definition,
        cases={source.name: float(np.nanmean(row)) for source, row in zip(sources, alike, strict=True)},
    )


def _mean(alike: NDArray[np.float64], kept: NDArray[np.intp]) -> float:
    """Over every two of the scans kept."""
    pairs = alike[np.ix_(kept, kept)]
    return float(np.nanmean(pairs)) if len(kept) > 1 else math.nan


def _reader(sources: Sequence[Source]) -> Callable[[int], HU]:
    """Reads a scan turned to S, P, L, a slice as a stack of itself; as many are kept as `HELD` allows."""

    def read(index: int) -> HU:
        hu = sources[index].read().reorient().hu
        if hu.dtype.kind == "f" and not np.isfinite(hu).all():
            raise DataInvalid("NaN or infinity in a scan", reason=Reason.NOT_FINITE, at=sources[index].at)
        return _stacked(hu) if len(hu) == 1 else hu

    size = max(1, read(0).nbytes)
    return functools.lru_cache(maxsize=max(2, HELD // size))(read)


def _stacked(hu: HU) -> HU:
    """A slice repeated until it is as deep as its scales ask: moments and halves are then those of 2D."""
    scales = ms_ssim.fitting(hu.shape[1:])
    stack: HU = np.repeat(hu, ms_ssim.TAPS * 2 ** max(scales - 1, 0), axis=0)
    return stack


def _voxels(hu: HU) -> str:
    return " x ".join(map(str, hu.shape))
