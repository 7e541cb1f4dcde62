"""Resampling: what must stay as it is stays, what a coarser grid cannot hold is gone, places do not move."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tomogen.cases.resample import Line, bands, resample, resample_array, resample_whole
from tomogen.intensity import HU_FLOOR
from tomogen.volume import Volume, affine_of

steps = st.floats(0.2, 6.0)
sizes = st.integers(1, 40)


def volume(hu: NDArray[np.int16], spacing: Sequence[float] = (1, 1, 1)) -> Volume:
    return Volume(hu, affine_of(spacing, origin=(-7.0, 11.0, 30.0)))


def weights(line: Line, size: int) -> NDArray[np.float64]:
    """All bands as one dense matrix (count, size)."""
    dense = np.zeros((line.count, size))
    for band in bands(line, size):
        dense[band.start : band.stop, band.low : band.low + band.weights.shape[1]] = band.weights
    return dense


@given(size=sizes, count=st.integers(1, 80), step=steps, first=st.floats(-20, 20))
def test_weights_are_means_inside_the_field_and_nothing_outside(
    size: int, count: int, step: float, first: float
) -> None:
    dense = weights(Line(first, step, count), size)
    centres = first + step * np.arange(count)
    inside = (centres >= -0.5) & (centres <= size - 0.5)
    assert (dense >= 0).all()
    np.testing.assert_allclose(dense[inside].sum(axis=1), 1, atol=1e-6)
    outside = (centres < -0.5 - 1e-5) | (centres > size - 0.5 + 1e-5)
    assert not dense[outside].any()


@given(step=st.floats(0.2, 1.0), first=st.floats(0, 3))
def test_a_finer_grid_is_linear_interpolation(step: float, first: float) -> None:
    line = Line(first, step, int((20 - first) / step))
    centres = line.first + line.step * np.arange(line.count)
    values = np.random.default_rng(0).normal(0, 300, 22)
    np.testing.assert_allclose(weights(line, 22) @ values, np.interp(centres, np.arange(22), values), atol=1e-3)


@given(step=st.floats(1.0, 6.0), offset=st.floats(0, 1))
def test_on_a_coarser_grid_ramps_stay_ramps_to_a_tenth_of_an_input_voxel(step: float, offset: float) -> None:
    # A sampled triangle is symmetric about an output only for some phases; its centre of mass is off by at most
    # 0.086 of an input voxel, in torch's filter as here.
    line = Line(7 + offset, step, 8)
    centres = line.first + line.step * np.arange(line.count)
    found = weights(line, 70) @ np.arange(70.0)
    np.testing.assert_allclose(found, centres, atol=0.09)


@given(
    value=st.integers(HU_FLOOR, 3000),
    shape=st.tuples(sizes, sizes, sizes),
    spacing=st.tuples(steps, steps, steps),
)
@settings(max_examples=30)
def test_constants_stay_constant(value: int, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    found = resample_whole(volume(np.full(shape, value, dtype=np.int16)), spacing)
    assert (found.hu == value).all()
    np.testing.assert_allclose(found.spacing, spacing)


@pytest.mark.parametrize("factor", [2, 3, 4, 7.3])
def test_a_checkerboard_becomes_its_mean(factor: float) -> None:
    board = (np.indices((57, 57, 57)).sum(axis=0) % 2 * 2000 - 1000).astype(np.int16)
    found = resample_whole(volume(board), (factor,) * 3).hu[1:-1, 1:-1, 1:-1]
    assert np.abs(found).max() <= 60  # without a filter it would be 1000 everywhere


@given(spacing=st.tuples(st.floats(0.4, 3), st.floats(0.4, 3), st.floats(0.4, 3)), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_a_blob_keeps_its_place_in_the_patient(spacing: tuple[float, float, float], seed: int) -> None:
    middle = np.random.default_rng(seed).uniform(14, 18, 3)
    index = np.indices((33, 33, 33)).transpose(1, 2, 3, 0)
    blob = (3000 * np.exp(-((index - middle) ** 2).sum(axis=-1) / (2 * 3.0**2))).astype(np.int16)
    before = volume(blob, (1.5, 0.8, 1.1))
    after = resample_whole(before, spacing)
    mass = after.hu.astype(float).clip(30)
    mass -= 30
    found = after.world(np.indices(after.shape).transpose(1, 2, 3, 0)).reshape(-1, 3).T @ mass.ravel() / mass.sum()
    reach = np.maximum(after.spacing, before.spacing)[::-1]  # LPS runs against (depth, height, width)
    assert (np.abs(found - before.world(middle)) <= 0.1 * reach).all()


@given(
    shape=st.tuples(st.integers(2, 9), st.integers(2, 9), st.integers(2, 9)),
    first=st.tuples(*[st.integers(-4, 10)] * 3),
    out=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)),
)
def test_whole_steps_are_a_crop_with_the_floor_outside(
    shape: tuple[int, int, int], first: tuple[int, int, int], out: tuple[int, int, int]
) -> None:
    before = volume(np.random.default_rng(1).integers(-1000, 2000, shape).astype(np.int16), (2, 0.7, 0.7))
    after = resample(before, before.spacing, out, first)
    wanted = before.crop(first, out, fill=HU_FLOOR)
    np.testing.assert_array_equal(after.hu, wanted.hu)
    np.testing.assert_allclose(after.affine, wanted.affine, atol=1e-9)


@pytest.mark.parametrize("size", [40, 97, 180, 333])
def test_values_are_those_of_torchs_antialiasing(size: int) -> None:
    import torch

    # In float64: torch's weights in float32 are themselves off by 0.03 HU on noise of 4000 HU.
    hu = np.random.default_rng(2).integers(-1024, 3000, (5, 200, 230)).astype(np.int16)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(hu.astype(np.float64))[None], size=(size, size), mode="bilinear", antialias=True
    )[0].numpy()
    lines = [Line(0.0, 1.0, 5), *(Line(n / size / 2 - 0.5, n / size, size) for n in hu.shape[1:])]
    assert np.abs(resample_array(hu, lines) - wanted).max() <= 0.5 + 0.002


def test_resampling_leaves_torchs_threads_as_they_were() -> None:
    import torch

    before = torch.get_num_threads()
    resample_whole(volume(np.zeros((4, 4, 4), dtype=np.int16)), (2, 2, 2))
    assert torch.get_num_threads() == before


def test_a_grid_beside_the_field_is_all_floor() -> None:
    found = resample(volume(np.zeros((4, 4, 4), dtype=np.int16)), (1, 1, 1), (3, 3, 3), (50, 0, 0))
    assert (found.hu == HU_FLOOR).all()
