"""The steps of one scan: the body stays and the table goes, grids lie where they should, orientation is no matter."""

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tomogen.cases.preparation import Preparation
from tomogen.cases.steps import (
    Box,
    body_box,
    cases_of,
    find_body,
    grids,
    slices_with_body,
    straight,
    upright,
)
from tomogen.errors import DataInvalid, UsageFault
from tomogen.intensity import HU_FLOOR
from tomogen.volume import Volume, affine_of

SPACING = (5.0, 2.5, 2.5)
ORIENTATIONS = [
    "".join(letters) for axes in permutations([("L", "R"), ("P", "A"), ("S", "I")]) for letters in product(*axes)
]


def chest(shape: tuple[int, int, int] = (40, 110, 150), spacing: tuple[float, float, float] = SPACING) -> Volume:
    """An oval body with two lungs, a spine and a marker on its left, on a table 5 mm thick; in air."""
    k, j, i = (np.arange(n) * mm for n, mm in zip(shape, spacing, strict=True))
    z, y, x = np.meshgrid(k, j - j.mean(), i - i.mean(), indexing="ij")
    hu = np.full(shape, -1000.0)
    body = (x / 160) ** 2 + (y / 100) ** 2 < 1
    hu[body] = 40
    for side in (-1, 1):
        hu[((x - side * 75) / 55) ** 2 + (y / 65) ** 2 < 1] = -850
    hu[(x / 18) ** 2 + ((y - 70) / 18) ** 2 < 1] = 400
    hu[((x - 120) / 8) ** 2 + ((y + 20) / 8) ** 2 + ((z - 60) / 8) ** 2 < 1] = 1200
    hu[(y > 105) & (y < 110) & (np.abs(x) < 170)] = 300  # the table, 5 mm below the back
    hu[:3] = np.where(body[:3], -1000, hu[:3])  # three slices with the table alone
    return Volume(hu.astype(np.int16), affine_of(spacing, origin=(-180, -130, -400)))


@pytest.fixture(scope="module")
def scan() -> Volume:
    return chest()


@pytest.fixture(scope="module")
def body(scan: Volume) -> NDArray[np.bool_]:
    return find_body(scan)


def test_the_table_goes_and_body_and_lungs_stay(scan: Volume, body: NDArray[np.bool_]) -> None:
    table = (scan.hu == 300) & (np.arange(110) > 94)[None, :, None]
    assert table.any()
    assert not (body & table).any()
    inside = (scan.hu == 40) | (scan.hu == -850) | (scan.hu == 400) | (scan.hu == 1200)
    assert (body & inside).sum() >= 0.999 * inside.sum()


def test_slices_without_body_are_cut_off_at_the_ends(body: NDArray[np.bool_]) -> None:
    assert not body[:2].any()
    assert body[3:].any(axis=(1, 2)).all()
    assert body_box(body).low[0] >= 1.5


def test_a_table_that_touches_the_back_goes_too() -> None:
    scan = chest()
    scan.hu[5:35, 94:97, 60:90] = 30  # skin and clothes down to the table
    body = find_body(scan)
    assert not body[10:30, 96:98, :55].any()
    assert not body[10:30, 96:98, 95:].any()


def test_two_legs_are_both_kept() -> None:
    hu = np.full((30, 60, 100), -1000, dtype=np.int16)
    hu[:, 20:40, 15:40] = 40
    hu[:, 20:40, 60:82] = 40
    body = find_body(Volume(hu, affine_of((3, 3, 3))))
    assert body[:, 22:38, 17:38].all()
    assert body[:, 22:38, 62:80].all()


@pytest.mark.parametrize("cut", [5, 15, 25, 38])
def test_lungs_that_the_field_cuts_open_are_kept(cut: int) -> None:
    whole = chest()
    scan = whole.crop((0, 0, cut), (40, 110, 150 - 2 * cut))
    lungs = scan.hu == -850
    assert lungs[5:, 30:80, 0].any() == (cut > 20)
    assert (find_body(scan) & lungs).sum() >= 0.999 * lungs.sum()


def test_nothing_but_air_is_no_body() -> None:
    with pytest.raises(DataInvalid, match="no body: nothing above -500 HU, the highest value is -990"):
        cases_of(Volume(np.full((8, 8, 8), -990, dtype=np.int16), np.eye(4)), Preparation())


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 30, 30), (2, 3, 4), (30, 1, 30)])
def test_tiny_scans_pass(shape: tuple[int, int, int]) -> None:
    (case,) = cases_of(Volume(np.full(shape, 40, dtype=np.int16), np.eye(4)), Preparation(shape=(8, 8, 8)))
    assert case.hu.max() == 40


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_orientation_of_the_file_changes_no_voxel(orientation: str, scan: Volume) -> None:
    wanted, found = (cases_of(one, Preparation(shape=(20, 32, 40)))[0] for one in (scan, scan.reorient(orientation)))
    np.testing.assert_array_equal(found.hu, wanted.hu)
    np.testing.assert_allclose(found.affine, wanted.affine, atol=1e-6)


def test_prepared_volumes_run_up_back_and_left(scan: Volume) -> None:
    (case,) = cases_of(scan, Preparation(shape=(40, 64, 80)))
    assert case.orientation == "SPL"
    marker = np.argwhere(case.hu > 900).mean(axis=0)
    assert marker[2] > 50  # the patient's left, on the right of the picture
    np.testing.assert_allclose(case.world(marker), scan.world(np.argwhere(scan.hu == 1200).mean(axis=0)), atol=1.5)


def test_alone_a_shape_is_filled_by_the_body_with_its_proportions(scan: Volume) -> None:
    (case,) = cases_of(scan, Preparation(shape=(64, 64, 64)))
    assert case.shape == (64, 64, 64)
    assert case.spacing == pytest.approx([case.spacing[0]] * 3)
    inside = [np.flatnonzero((case.hu > -900).any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    assert (inside[2][0], inside[2][-1]) == (0, 63)  # the widest axis touches both ends
    middle = [(span[0] + span[-1]) / 2 for span in inside]
    assert middle == pytest.approx([31.5] * 3, abs=1)
    assert (case.hu[0] == HU_FLOOR).all()


def test_stretching_fills_every_axis(scan: Volume) -> None:
    (case,) = cases_of(scan, Preparation(shape=(64, 64, 64), fit="stretch"))
    for axes in ((1, 2), (0, 2), (0, 1)):
        span = np.flatnonzero((case.hu > -900).any(axis=axes))
        assert span[0] <= 1
        assert span[-1] >= 62
    assert len({round(mm, 3) for mm in case.spacing}) == 3


def test_spacing_alone_keeps_the_size_of_the_body(scan: Volume) -> None:
    (case,) = cases_of(scan, Preparation(spacing=(4, 4, 4)))
    assert case.spacing == pytest.approx((4, 4, 4))
    extent = np.array(case.shape) * 4
    assert extent == pytest.approx([185, 200, 320], abs=13)


def test_with_neither_the_scans_own_voxels_stay(scan: Volume, body: NDArray[np.bool_]) -> None:
    (case,) = cases_of(scan, Preparation())
    assert case.spacing == pytest.approx(SPACING)
    index = scan.index(case.origin)
    np.testing.assert_allclose(index, np.rint(index), atol=1e-6)
    a = np.rint(index).astype(int)
    own = np.where(body, scan.hu, HU_FLOOR)[tuple(slice(n, n + m) for n, m in zip(a, case.shape, strict=True))]
    np.testing.assert_array_equal(case.hu, own)


def test_shape_and_spacing_cut_out_the_middle_of_the_body(scan: Volume) -> None:
    (case,) = cases_of(scan, Preparation(shape=(10, 40, 200), spacing=(3, 3, 3)))
    assert case.spacing == pytest.approx((3, 3, 3))
    assert case.centre[:2] == pytest.approx(chest().centre[:2] - (0, 0), abs=5)
    assert (case.hu[:, :, 0] == HU_FLOOR).all()  # wider than the body: padded
    assert (case.hu[:, 20, 100] > -900).all()


@pytest.mark.parametrize(("depth", "slab", "count"), [(64, 16, 4), (70, 16, 4), (73, 16, 5), (10, 16, 1), (24, 16, 2)])
def test_slabs_lie_end_to_end_about_the_middle(depth: int, slab: int, count: int) -> None:
    volume = Volume(np.zeros((depth, 9, 9), dtype=np.int16), affine_of((2, 1, 1)))
    box = Box((-0.5, -0.5, -0.5), (depth - 0.5, 8.5, 8.5))
    found = grids(volume, box, Preparation(slab=slab))
    assert [grid.shape[0] for grid in found] == [slab] * count
    starts = np.array([grid.first[0] for grid in found])
    np.testing.assert_allclose(np.diff(starts), slab)
    assert starts[0] + count * slab / 2 - 0.5 == pytest.approx((depth - 1) / 2, abs=0.51)


def test_slabs_of_a_shape_have_cubic_voxels_that_fit_the_body_in_plane(scan: Volume) -> None:
    cases = cases_of(scan, Preparation(slab=16, shape=(16, 64, 64)))
    assert [case.shape for case in cases] == [(16, 64, 64)] * 2
    assert cases[0].spacing == pytest.approx([5.08] * 3, abs=0.1)
    assert cases[1].origin[2] - cases[0].origin[2] == pytest.approx(16 * cases[0].spacing[0])


def test_the_window_clips_and_the_mask_can_be_left_out(scan: Volume) -> None:
    (case,) = cases_of(scan, Preparation(window=(-1000, 400), body_mask=False))
    assert (case.hu.min(), case.hu.max()) == (-1000, 400)
    assert case.shape[1:] == scan.shape[1:]
    assert (case.hu[:, 95:, :] == 300).any()  # the table is still there


def test_float_and_padding_values_become_rounded_hu_from_the_floor_up() -> None:
    hu = np.array([[[-3024.0, -0.6, 0.5, 1.5, 99.4, np.nan, 40000.0]]], dtype=np.float32)
    assert upright(Volume(hu, affine_of((1, 1, 1)))).hu.ravel().tolist() == [-1024, -1, 0, 2, 99, -1024, 32767]


@given(degrees=st.floats(3, 40), axis=st.integers(0, 2))
@settings(max_examples=8)
def test_oblique_scans_are_turned_and_nothing_moves_in_the_patient(degrees: float, axis: int) -> None:
    index = np.indices((30, 40, 44)).transpose(1, 2, 3, 0)
    hu = (1500 * np.exp(-(((index - (12, 24, 18)) * (2, 1.5, 1.5)) ** 2).sum(axis=-1) / (2 * 6.0**2)) - 1000).round()
    turn = np.eye(4)
    a, b = [n for n in range(3) if n != axis]
    turn[[a, a, b, b], [a, b, a, b]] = np.cos(np.radians(degrees)) * np.array([1, 0, 0, 1]) + np.sin(
        np.radians(degrees)
    ) * np.array([0, -1, 1, 0])
    scan = Volume(hu.astype(np.int16), turn @ affine_of((2, 1.5, 1.5)))
    found = straight(upright(scan))
    assert found.orientation == "SPL"
    assert np.abs(found.directions).max(axis=0) == pytest.approx([1, 1, 1])
    mass = (found.hu.astype(float) + 990).clip(0)
    place = found.world(np.indices(found.shape).transpose(1, 2, 3, 0)).reshape(-1, 3).T @ mass.ravel() / mass.sum()
    np.testing.assert_allclose(place, scan.world((12, 24, 18)), atol=0.3)


def test_a_scan_a_hair_off_the_axes_is_not_interpolated(scan: Volume) -> None:
    turn = np.eye(4)
    angle = np.radians(0.3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tilted = Volume(scan.hu, turn @ scan.affine)
    assert straight(tilted) is tilted


def test_slices_with_body_are_those_with_a_percent_of_tissue() -> None:
    hu = np.full((4, 10, 20), HU_FLOOR, dtype=np.int16)
    hu[1, 0, 0] = 40
    hu[2, 0, :2] = 40
    hu[3] = -800
    assert slices_with_body(Volume(hu, np.eye(4))) == [2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (0, 4, 4)}, "--shape"),
        ({"spacing": (1, 0, 1)}, "--spacing"),
        ({"spacing": (1, float("inf"), 1)}, "--spacing"),
        ({"slab": 0}, "--slab"),
        ({"slab": 8, "shape": (16, 4, 4)}, "--slab 8 cuts cases of 8 slices, --shape asks for 16"),
        ({"window": (400, -1000)}, "--window"),
        ({"fit": "cover"}, "--fit"),
        ({"fit": "stretch"}, "--fit stretch"),
    ],
)
def test_settings_that_make_no_grid_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageFault, match=message):
        Preparation(**settings)


@pytest.mark.parametrize("settings", [{}, {"shape": (4, 5, 6), "window": (-1000.0, 400.0)}, {"slab": 3}])
def test_a_preparation_survives_its_record(settings: dict[str, Any]) -> None:
    preparation = Preparation(**settings)
    assert Preparation.of_record(preparation.record()) == preparation
    assert preparation.differences(preparation) == []
    assert preparation.differences(Preparation(shape=(9, 9, 9)))[0].endswith("now 9 9 9")
