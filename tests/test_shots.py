"""The feed of scans with their radiographs: what a model is told lies where the scan has it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from test_stream import make_folder
from tomogen.cases.folder import CaseFolder
from tomogen.cases.xrays import XRays, beam, shots
from tomogen.errors import DataInvalid
from tomogen.recipe import Data


def ball(where: tuple[int, int, int], size: int = 32) -> np.ndarray:
    """Air, a faint body and one dense ball at voxel `where`."""
    z, y, x = np.mgrid[:size, :size, :size]
    inside = (y - size / 2) ** 2 + (x - size / 2) ** 2 < (0.4 * size) ** 2
    hu = np.where(inside, -800, -1000)
    k, j, i = where
    return np.where((z - k) ** 2 + (y - j) ** 2 + (x - i) ** 2 < 9, 800, hu).astype(np.int16)


def brightest(picture: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(picture == picture.max())
    return float(rows.mean()), float(columns.mean())


@pytest.mark.parametrize("where", [(8, 16, 20), (24, 12, 10)])
def test_a_dense_ball_shows_at_its_height_and_on_its_side(where: tuple[int, int, int]) -> None:
    # Axes of a scan run to the head, the back and the left; rows of a picture run down, from the head.
    pa, lateral = shots(
        ball(where), (5.0, 5.0, 5.0), views=("pa", "lateral"), geometry="parallel", field="scan", size=32
    )
    k, j, i = where
    assert brightest(pa) == pytest.approx((31 - k, i), abs=0.6)
    assert brightest(lateral) == pytest.approx((31 - k, j), abs=0.6)


def test_a_beam_fitted_to_the_scan_sees_its_extent_and_the_published_one_cuts_it() -> None:
    scan = {"shape": (32, 32, 32), "spacing": (10.0, 10.0, 10.0), "views": ("pa",), "geometry": "x2ct", "size": 64}
    fitted, published = beam(field="scan", **scan), beam(field="detector", **scan)
    assert fitted.size == published.size == (64, 64)
    assert fitted.field_of_view(fitted.views[0]) == pytest.approx((320, 320))
    assert published.field_of_view(published.views[0]) == pytest.approx((285, 285), abs=0.1)


def test_the_feed_gives_the_radiographs_of_the_very_voxels_it_draws(tmp_path: Path) -> None:
    folder = CaseFolder.open(tiny.cases(tmp_path / "cases", size=16))
    data = Data(shift=3)
    feed = XRays(folder, (8, 8, 8), data, views=("pa", "lateral"), geometry="chest", field="scan")
    for number in range(4):
        sample = feed.draw(0, number)
        hu = feed.scans.hu(feed.scans.place(0, number))
        own = shots(hu, (4.0, 3.0, 3.0), views=("pa", "lateral"), geometry="chest", field="scan", size=8)
        assert np.array_equal(sample.condition["xrays"], 2 * own - 1)
        assert sample.image.shape == (1, 8, 8, 8)
        assert np.abs(sample.condition["xrays"]).max() <= 1
    again = feed.draw(0, 1)
    assert np.array_equal(again.condition["xrays"], feed.draw(0, 1).condition["xrays"])


def test_a_detector_that_sees_more_than_the_scans_is_refused_and_one_that_cuts_them_is_not(tmp_path: Path) -> None:
    folder = CaseFolder.open(tiny.cases(tmp_path / "cases", size=16))  # voxels of 4 x 3 x 3 mm
    with pytest.raises(DataInvalid, match="sees 285 mm at the isocentre, the scans have 48 mm") as caught:
        XRays(folder, (16, 16, 16), Data(), views=("pa",), geometry="x2ct")
    assert "model.field=scan" in str(caught.value.fix)
    XRays(folder, (16, 16, 16), Data(), views=("pa",), geometry="x2ct", field="scan")
    published = CaseFolder(folder.path, folder.preparation, tuple(wide(case) for case in folder.cases))
    XRays(published, (16, 16, 16), Data(), views=("pa",), geometry="x2ct")  # 320 mm in a beam of 285 mm
    with pytest.raises(DataInvalid, match="sees 500 mm"):
        XRays(published, (16, 16, 16), Data(), views=("pa",), geometry="chest")


def wide(case: Any) -> Any:
    return replace(case, spacing=(20.0, 20.0, 20.0))


def test_cases_of_unlike_spacing_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "cases", [(8, 8, 8)] * 2)
    first, second = folder.cases
    other = CaseFolder(folder.path, folder.preparation, (first, replace(second, spacing=(2.0, 2.0, 2.0))))
    with pytest.raises(DataInvalid, match="spacings from 2 x 1 x 1 to 2 x 2 x 2 mm") as caught:
        XRays(other, (8, 8, 8), Data(), views=("pa",), geometry="chest")
    assert "--spacing" in str(caught.value.fix)
