"""Moments under windows: equal to the definition window by window, at every edge and size, whatever the tiles."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from tomogen.evaluation import local, structure
from tomogen.evaluation.local import Edges, gaussian, moments, smooth, tiled, uniform

shapes = st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple)
edges_of = st.sampled_from(["inside", "reflect", "mirror"])


def image(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 300, shape)


@given(shape=shapes, taps=st.sampled_from([1, 3, 7, 11]), edges=edges_of)
def test_smoothing_equals_a_filter_axis_by_axis(shape: tuple[int, ...], taps: int, edges: Edges) -> None:
    x, weights, radius = image(shape), gaussian(1.5, taps), taps // 2
    expected = x
    for axis in range(x.ndim):
        expected = ndimage.correlate1d(expected, weights, axis=axis, mode="reflect" if edges == "inside" else edges)
    if edges == "inside":
        if min(shape) < taps:
            assert smooth(x, weights, edges).size == 0
            return
        expected = expected[tuple(slice(radius, size - radius) for size in shape)]
    np.testing.assert_allclose(smooth(x, weights, edges), expected, atol=1e-10)


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("weights", [gaussian(1.5, 5), uniform(5)])
def test_moments_are_those_of_each_window(weights: np.ndarray, sample: bool) -> None:
    x, y = image((9, 7, 8)), image((9, 7, 8), 1)
    found = moments(x, y, weights, sample=sample)
    assert found.cov.shape == (5, 3, 4)
    w = np.einsum("i,j,k->ijk", weights, weights, weights)
    factor = 125 / 124 if sample else 1
    for k, j, i in np.ndindex(5, 3, 4):
        a, b = x[k : k + 5, j : j + 5, i : i + 5], y[k : k + 5, j : j + 5, i : i + 5]
        ma, mb = (w * a).sum(), (w * b).sum()
        expected = [
            ma, mb, *(factor * (w * c).sum() for c in ((a - ma) ** 2, (b - mb) ** 2, (a - ma) * (b - mb)))
        ]  # fmt: skip
        np.testing.assert_allclose([one[k, j, i] for one in found], expected, rtol=1e-9)


def test_integers_are_not_squared_as_integers() -> None:
    x = np.full((12, 12, 12), 3000, dtype=np.int16)
    x[::2] = -1000
    np.testing.assert_allclose(moments(x, x, uniform(3)).var_x, moments(x * 1.0, x * 1.0, uniform(3)).var_x)


@given(shape=st.tuples(*[st.integers(1, 60)] * 3), edges=edges_of, block=st.integers(1, 40))
def test_tiles_cover_each_window_once(shape: tuple[int, int, int], edges: Edges, block: int) -> None:
    seen = np.zeros(local.windows(shape, uniform(5), edges), dtype=int)

    def work(place: local.Place, tiles: list[np.ndarray], under: local.Smooth) -> None:
        seen[place] += 1
        assert under(tiles[0][None].astype(float)).shape[1:] == seen[place].shape

    tiled([np.zeros(shape)], uniform(5), edges, work)
    assert (seen == 1).all()
    bands = list(local.bands(shape[0], uniform(5), edges, block))
    assert [band.start for band in bands[1:]] == [band.stop for band in bands[:-1]]
    for band in bands:
        np.testing.assert_allclose(band.weights.sum(dim=1), 1)


def test_the_number_of_threads_changes_no_bit_and_is_left_as_it_was() -> None:
    x, y = image((40, 50, 60)), image((40, 50, 60), 1)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(structure.means(x, y, gaussian(1.5, 11), 4024.0))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_even_windows_and_four_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="odd number of taps"):
        smooth(np.zeros((9, 9, 9)), uniform(4))
    with pytest.raises(ValueError, match="1 to 3 axes"):
        smooth(np.zeros((9, 9, 9, 9)), uniform(3))


@pytest.mark.parametrize("shape", [(30,), (20, 30), (13, 20, 30)])
@pytest.mark.parametrize("edges", ["inside", "mirror"])
def test_means_of_similarity_are_those_of_its_maps(shape: tuple[int, ...], edges: Edges) -> None:
    x, y = 1000 + image(shape), 1000 + image(shape, 1)
    where = image(shape, 2) > 0
    found = structure.means(x, y, gaussian(1.5, 11), 4024.0, edges=edges, sample=True, where=where)
    m = moments(x, y, gaussian(1.5, 11), edges, sample=True)
    c1, c2 = 40.24**2, 120.72**2
    luminance = (2 * m.mean_x * m.mean_y + c1) / (m.mean_x**2 + m.mean_y**2 + c1)
    contrast = (2 * m.cov + c2) / (m.var_x + m.var_y + c2)
    centres = where[(slice(5, -5),) * len(shape)] if edges == "inside" else where
    expected = [one[centres].mean() for one in (luminance * contrast, luminance, contrast)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
