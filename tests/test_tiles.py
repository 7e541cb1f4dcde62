"""The tiler: what it gives is what the network gives, for any size, and the seam is told."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tomogen.errors import UsageFault
from tomogen.generation import tiles
from tomogen.generation.tiles import Axis, Grid, in_hu, tiled
from tomogen.intensity import Window


def same(tile: Tensor) -> Tensor:
    return tile


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 700, shape).astype(np.float32)


def plain(count: int, layers: int = 3) -> nn.Sequential:
    """Convolutions of kernel 3, one after the other: a result sees `layers` voxels to each side."""
    torch.manual_seed(0)
    widths = [count, *[6] * (layers - 1), 1]
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        parts += [nn.Conv3d(a, b, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*parts[:-1])


def whole(network: nn.Module, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return network(*(torch.from_numpy(each)[None] for each in inputs))[0].numpy()


sizes = st.tuples(*[st.integers(1, 23)] * 3)
lengths = st.tuples(*[st.integers(2, 12)] * 3)


@settings(max_examples=60)
@given(sizes, lengths, st.data())
def test_an_identity_network_returns_its_input_bit_for_bit_whatever_the_size(
    size: tuple[int, int, int], tile: tuple[int, int, int], data: st.DataObject
) -> None:
    overlap = tuple(data.draw(st.integers(0, length - 1)) for length in tile)
    values = noise(*size) * np.float32(1e-3)
    found = tiled(same, values, tile=tile, overlap=overlap, fill=-7.0)
    assert found.values.dtype == np.float32
    assert found.values.tobytes() == values.tobytes()
    assert found.seam is None or found.seam < 1e-9
    hu = values.astype(np.int16) - np.int16(900)
    through = tiled(in_hu(same, Window(-1024, 3071)), hu, tile=tile, overlap=overlap, fill=-1024)
    assert through.values.dtype == np.int16
    assert np.array_equal(through.values, hu)


@settings(max_examples=100)
@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 39), st.integers(0, 9), st.integers(1, 5))
def test_weights_of_an_axis_sum_to_exactly_one_and_are_never_negative(
    size: int, units: int, overlap: int, halo: int, align: int
) -> None:
    tile = units * align
    if overlap + 2 * halo > tile - align:
        return
    axis = Axis(size, tile, overlap, halo=halo, align=align)
    total = np.zeros(axis.padded)
    for span in axis.spans:
        assert span.start % align == 0
        assert span.weights.min() >= 0
        total[span.start : span.start + len(span.weights)] += span.weights
    assert np.array_equal(total, np.ones(axis.padded))
    for before, after in itertools.pairwise(axis.spans):
        assert before.start + axis.tile - after.start >= overlap + 2 * halo
        assert (before.weights[-halo:] == 0).all() or halo == 0
        assert (after.weights[:halo] == 0).all()


def test_blending_weights_rise_and_fall_smoothly_across_an_overlap() -> None:
    axis = Axis(48, 32, 16, halo=None, align=1)
    rise = axis.spans[1].weights[:16]
    assert rise[0] < 0.02
    assert rise[-1] > 0.98
    assert (np.diff(rise) >= 0).all()
    assert np.diff(rise).max() < 0.15


@pytest.mark.parametrize("size", [(20, 31, 17), (9, 40, 40), (5, 6, 41)])
def test_tiles_with_the_right_halo_equal_the_whole(size: tuple[int, int, int]) -> None:
    network, values = plain(1), noise(1, *size) / 700
    found = tiled(network, values, tile=(12, 16, 16), halo=3)
    assert found.tiles > 1
    assert np.abs(found.values - whole(network, values)).max() * 1000 < 0.01  # HU, were 1 a thousand
    spoilt = tiled(network, values, tile=(12, 16, 16), halo=1)
    assert np.abs(spoilt.values - whole(network, values)).max() * 1000 > 1


def test_a_halo_that_is_too_small_shows_in_the_seam() -> None:
    network, values = plain(1), noise(1, 24, 24, 24) / 700
    right, small = (tiled(network, values, tile=14, overlap=2, halo=halo).seam for halo in (3, 1))
    assert right is not None
    assert small is not None
    assert right < 1e-6 < 1e-3 < small


def test_a_network_with_strides_equals_the_whole_where_tiles_are_aligned() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(1, 4, 4, 2, 1), nn.Tanh(), nn.Conv3d(4, 4, 3, padding=1), nn.Tanh(), nn.ConvTranspose3d(4, 1, 4, 2, 1)
    )
    values = noise(1, 16, 36, 28) / 700
    found = tiled(network, values, tile=16, halo=6, align=2)
    assert found.tiles > 8
    assert np.allclose(found.values, whole(network, values), atol=1e-6)


@pytest.mark.parametrize(("up", "down"), [(1, 4), (4, 1)])
def test_grids_that_are_coarser_or_finer_than_the_input_equal_the_whole(up: int, down: int) -> None:
    torch.manual_seed(0)
    scaling: nn.Module = nn.AvgPool3d(4) if down > 1 else nn.Upsample(scale_factor=4)
    inner, outer = nn.Conv3d(2, 5, 3, padding=1), nn.Conv3d(5, 3, 3, padding=1)
    network = nn.Sequential(inner, nn.Tanh(), scaling, outer)
    values = noise(2, 24, 20, 28) / 700 if down > 1 else noise(2, 9, 11, 10) / 700
    found = tiled(network, values, tile=20 if down > 1 else 7, halo=5 if down > 1 else 2, up=up, down=down)
    assert found.tiles > 1
    assert found.values.shape == (3, *(n * up // down for n in values.shape[1:]))
    assert np.allclose(found.values, whole(network, values), atol=1e-5)


def test_a_scan_smaller_than_a_tile_is_padded_evenly_and_cropped_back() -> None:
    seen: list[Tensor] = []

    def look(tile: Tensor) -> Tensor:
        seen.append(tile)
        return tile

    values = noise(4, 6, 20)
    found = tiled(look, values, tile=(8, 10, 10), fill=-1024)
    assert {tile.shape for tile in seen} == {(1, 1, 8, 10, 10)}
    assert (seen[0][0, 0, :2] == -1024).all()
    assert (seen[0][0, 0, -2:] == -1024).all()
    assert np.array_equal(seen[0][0, 0, 2:6, 2:8].numpy(), values[:, :, :10])
    assert np.array_equal(found.values, values)


def test_several_inputs_of_one_grid_reach_the_network_together() -> None:
    first, second = noise(10, 12, 14), noise(2, 10, 12, 14, seed=1)
    found = tiled(lambda a, b: a + b[:, :1] - b[:, 1:], first, second, tile=6, overlap=2)
    assert np.allclose(found.values, first + second[0] - second[1], atol=1e-3)
    with pytest.raises(UsageFault, match="unlike grids"):
        tiled(same, first, second[:, 1:], tile=6)


def test_the_seam_is_the_mean_difference_of_tiles_where_they_overlap() -> None:
    count = itertools.count()
    found = tiled(lambda tile: tile * 0 + 10 * next(count), noise(4, 4, 12), tile=(4, 4, 8), overlap=(0, 0, 4))
    assert found.tiles == 2
    assert found.seam == pytest.approx(10)
    assert tiled(same, noise(4, 4, 4), tile=4).seam is None


def test_maps_on_disk_are_read_and_written_slab_by_slab(tmp_path: Path) -> None:
    hu = noise(30, 20, 20).astype(np.int16)
    np.save(tmp_path / "in.npy", hu)
    source = np.load(tmp_path / "in.npy", mmap_mode="r")
    target = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.int16, shape=hu.shape)
    written: list[int] = []

    def watch(done: int, total: int | None, what: str) -> None:
        written.append(int(np.asarray(target).any(axis=(1, 2)).sum()))

    found = tiled(lambda tile: tile + 0.4, source, tile=(8, 12, 12), overlap=2, out=target, progress=watch)
    assert found.values is target
    target.flush()
    assert np.array_equal(np.load(tmp_path / "out.npy"), hu)
    assert written[0] == 0
    assert 0 < written[len(written) // 2] < 30
    assert written[-1] == 30


def test_what_is_held_does_not_grow_with_the_number_of_slices() -> None:
    slabs = [tiles._Slab(Grid((depth, 20, 20), 8, overlap=2), 1).sum.nbytes for depth in (16, 1600)]
    assert slabs[0] == slabs[1] == 8 * 20 * 20 * 8


def test_whole_numbers_are_rounded_and_kept_within_their_type() -> None:
    hu = np.array([[[-40, 0, 40]]], dtype=np.int16)
    assert tiled(lambda tile: tile * 1000 + 0.5, hu, tile=(1, 1, 3)).values.tolist() == [[[-32768, 0, 32767]]]


def test_progress_counts_the_tiles() -> None:
    told: list[tuple[int, int | None]] = []
    tiled(same, noise(9, 9, 9), tile=5, progress=lambda done, total, what: told.append((done, total)))
    assert told == [(done, 8) for done in range(9)]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"tile": 8, "overlap": 8}, "never reach the end"),
        ({"tile": 8, "halo": 4}, "never reach the end"),
        ({"tile": 10, "align": 4}, "not a multiple of 4"),
        ({"tile": 6, "down": 4}, "not a multiple of 4"),
        ({"tile": 0}, "at least 1"),
        ({"tile": 8, "overlap": -1}, "at least 0"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(UsageFault, match=message):
        Grid((40, 40, 40), **numbers)


def test_a_network_of_another_shape_than_promised_is_refused() -> None:
    with pytest.raises(UsageFault, match=r"makes tiles of \(4, 4, 4\), not \(8, 8, 8\)"):
        tiled(nn.AvgPool3d(2), noise(16, 16, 16), tile=8)
    with pytest.raises(UsageFault, match="an output of"):
        tiled(same, noise(4, 4, 4), tile=4, out=np.empty((4, 4, 5)))
