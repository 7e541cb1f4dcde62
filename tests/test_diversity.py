"""Diversity: a model that makes one scan is told from one that makes many; intervals are of scans, not of pairs."""

import functools
import math
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tomogen.errors import DataInvalid
from tomogen.evaluation.diversity import diversity
from tomogen.evaluation.gather import Source
from tomogen.evaluation.metrics import ms_ssim
from tomogen.evaluation.pair import Pair
from tomogen.evaluation.scores import Scores
from tomogen.volume import Volume, affine_of

SHAPE = (12, 16, 16)


def image(seed: int, shape: tuple[int, ...] = SHAPE, smooth: float = 2) -> NDArray[np.int16]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth)
    return (noise / noise.std() * 300).round().astype(np.int16)


def source(name: str, hu: NDArray[np.int16], patient: str | None = None) -> Source:
    return Source(name, patient or name, functools.partial(Volume, hu, affine_of((2, 1, 1))))


def sources(letter: str, images: list[NDArray[np.int16]]) -> list[Source]:
    return [source(f"{letter}{number}", hu) for number, hu in enumerate(images)]


REAL = sources("r", [image(seed) for seed in range(6)])


def test_a_collapsed_model_is_more_alike_than_real_scans_and_one_like_them_is_not() -> None:
    same = sources("m", [image(100) + np.int16(seed) for seed in range(6)])
    made, real = diversity(REAL, same)
    assert made.value > 0.99 > real.value
    assert "more alike" in made.note
    other, real = diversity(REAL, sources("m", [image(seed) for seed in range(100, 106)]))
    assert other.interval is not None
    assert other.interval[0] < real.value < other.interval[1]
    assert not other.note


def test_the_value_is_the_mean_of_all_pairs() -> None:
    made, _ = diversity(REAL, sources("m", [image(seed) for seed in (7, 8, 9)]))
    pairs = combinations([image(seed) for seed in (7, 8, 9)], 2)
    expected = np.mean([next(iter(ms_ssim.measure(Pair(a, b)))).value for a, b in pairs])
    assert made.value == pytest.approx(float(expected), abs=1e-12)
    assert made.definition.n == (3,)


def test_both_are_of_one_definition_and_as_many_scans() -> None:
    made, real = diversity(REAL, sources("m", [image(seed) for seed in range(100, 110)]), samples=4)
    made.compare(real)
    assert made.definition.n == (4,)
    assert len(real.cases) == 4


def test_scans_are_chosen_by_the_seed() -> None:
    made = sources("m", [image(seed) for seed in range(100, 110)])
    first, again, other = (diversity(REAL, made, samples=3, seed=seed)[0] for seed in (1, 1, 2))
    assert first == again
    assert set(first.cases) != set(other.cases)


def test_of_a_patient_with_many_scans_one_counts() -> None:
    twice = [source(f"r{number}", image(number // 2), f"p{number // 2}") for number in range(6)]
    _, real = diversity(twice, sources("m", [image(seed) for seed in range(100, 110)]))
    assert real.definition.n == (3,)
    assert real.value < 0.9


def test_slices_are_scored_as_2d() -> None:
    flat = [image(seed, (1, 32, 32)) for seed in range(3)]
    deep = [np.repeat(hu, 40, axis=0) for hu in flat]
    in_2d, _ = diversity(sources("r", flat), sources("m", flat))
    in_3d, _ = diversity(sources("r", deep), sources("m", deep))
    assert in_2d.value == pytest.approx(in_3d.value, abs=1e-9)
    assert in_2d.definition.axis == "axial"


def test_what_cannot_be_compared_has_a_sentence_and_no_value() -> None:
    made, _ = diversity(REAL, REAL[:1])
    assert math.isnan(made.value)
    assert "2 needed" in made.note
    made, _ = diversity(REAL, [*REAL[:1], *sources("m", [image(3, (12, 16, 20))])])
    assert math.isnan(made.value)
    assert "12 x 16 x 20" in made.note
    assert "12 x 16 x 16" in made.note
    small, _ = diversity(*[sources("m", [image(seed, (4, 8, 8)) for seed in range(3)])] * 2)
    assert math.isnan(small.value)
    assert "4 x 8 x 8 voxels are too few" in small.note


@pytest.mark.parametrize("swapped", [False, True])
def test_a_set_without_a_value_stands_beside_one_that_has_one(swapped: bool) -> None:
    mixed = [*REAL[:2], *sources("x", [image(3, (12, 16, 20))])]
    made, real = diversity(mixed, REAL) if not swapped else diversity(REAL, mixed)
    assert math.isnan((made if swapped else real).value)
    assert not math.isnan((real if swapped else made).value)
    (row,) = Scores(kind="sets", subjects={"made": [made], "real": [real]}).table()
    assert row.definition.range is not None


def test_slices_and_volumes_are_not_compared() -> None:
    flat = sources("s", [image(seed, (1, 16, 16)) for seed in range(3)])
    made, real = diversity(REAL, flat)
    assert math.isnan(made.value)
    assert "axis: axial against 3d" in made.note
    assert not math.isnan(real.value)
    assert made.definition == real.definition


def test_empty_sets_and_nan_are_refused() -> None:
    with pytest.raises(DataInvalid, match="no made scans"):
        diversity(REAL, [])
    broken = image(0).astype(np.float32)
    broken[3, 3, 3] = np.nan
    bad = Source("bad", "bad", functools.partial(Volume, broken, affine_of((2, 1, 1))))
    with pytest.raises(DataInvalid, match="NaN"):
        diversity(REAL, [bad, *REAL[:1]])
