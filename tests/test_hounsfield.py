"""What counts as Hounsfield units, and what becomes of padding, types and scales."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomogen import hounsfield
from tomogen.errors import DataInvalid, Reason

SCAN = np.random.default_rng(0).integers(-1000, 1500, (6, 20, 20)).astype(np.int16)


def reason_of(values: np.ndarray) -> Reason:
    with pytest.raises(DataInvalid) as refused:
        hounsfield.check(values, at="here")
    assert refused.value.at == "here"
    return refused.value.reason


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float32, np.float64, ">i2", ">f4"])
def test_whole_hu_become_int16_and_are_kept(dtype: type) -> None:
    hu = hounsfield.check(SCAN.astype(dtype))
    assert hu.dtype == np.int16
    assert np.array_equal(hu, SCAN)


def test_fractions_become_float32() -> None:
    hu = hounsfield.check(SCAN.astype(np.float64) + 0.25)
    assert hu.dtype == np.float32
    assert np.array_equal(hu, SCAN + np.float32(0.25))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
@pytest.mark.parametrize("padding", [-2000, -3024, -32768])
def test_padding_becomes_the_floor(dtype: type, padding: int) -> None:
    padded = SCAN.astype(dtype)
    padded[:, :5] = padding
    hu = hounsfield.check(padded)
    assert (hu[:, :5] == -1024).all()
    assert np.array_equal(hu[:, 5:], SCAN[:, 5:])


def test_padding_does_not_make_shifted_values_hu() -> None:
    shifted = SCAN + np.int16(1024)
    shifted[:, :5] = -2000
    assert reason_of(shifted) is Reason.HU_RANGE


def test_metal_is_allowed_and_mri_is_not() -> None:
    metal = SCAN.copy()
    metal[2, :3, :3] = 20000
    assert hounsfield.check(metal).max() == 20000
    assert reason_of(SCAN * np.int16(8)) is Reason.HU_RANGE


def test_a_scan_of_three_values_is_a_scan_and_labels_of_sixty_are_labels() -> None:
    phantom = np.array([-1000, -800, 40], dtype=np.int16)[np.arange(600) % 3].reshape(6, 10, 10)
    assert np.array_equal(hounsfield.check(phantom.copy()), phantom)
    labels = (np.arange(6000) % 60).reshape(6, 10, 100).astype(np.int16)
    assert reason_of(labels) is Reason.MASK
    assert reason_of(np.where(phantom > 0, 1000, -1000)) is Reason.MASK


def test_colours_and_complex_numbers_are_no_voxels() -> None:
    assert reason_of(SCAN.astype(np.complex64)) is Reason.DIMENSIONS


def test_what_is_said_to_be_hu_is_not_doubted_as_far_as_it_fits() -> None:
    soft = (SCAN // 100).astype(np.int16)
    assert np.array_equal(hounsfield.check(soft, assume_hu=True), soft)
    with pytest.raises(DataInvalid, match="range"):
        hounsfield.check(SCAN.astype(np.int32) * 100, assume_hu=True)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
def test_checking_takes_no_more_than_the_result_and_a_few_blocks(dtype: type) -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, (80, 300, 300)).astype(dtype)
    tracemalloc.start()
    try:
        hounsfield.check(values, assume_hu=True)
    except DataInvalid:
        assert dtype == np.uint16
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * values.size + 2 * 8 * 2**22


@given(
    slope=st.sampled_from([1.0, 2.0, 0.5, 0.1, -1.0, 3.7]),
    intercept=st.sampled_from([0.0, -1024.0, -8192.0, 0.5]),
    seed=st.integers(0, 99),
)
def test_a_rescale_is_exact_where_the_result_is_whole_and_rounded_once_otherwise(
    slope: float, intercept: float, seed: int
) -> None:
    stored = np.random.default_rng(seed).integers(-2000, 4000, (3, 4, 5)).astype(np.int16)
    found = hounsfield.rescaled(stored, slope, intercept)
    assert np.array_equal(found, (stored * slope + intercept).astype(found.dtype))
    assert found.dtype == (np.int16 if slope.is_integer() and intercept.is_integer() else np.float32)
