"""Codes of scans: their grids, tiles as the whole, the way there and back, around and between, and what is refused."""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

import dicoms
import tiny
from tomogen import formats
from tomogen.batch import Batch
from tomogen.cli.encode import command
from tomogen.errors import DataInvalid, InputMissing, Reason, RecipeMismatch, TomogenError, UsageFault
from tomogen.generation import coder as tiling
from tomogen.generation import encode as module
from tomogen.generation import tiles
from tomogen.generation.coder import Coder
from tomogen.generation.codes import around, between, code_of, coded, decoded, encodes, shown
from tomogen.generation.encode import encode
from tomogen.generation.latent import KEY, read, write
from tomogen.generation.load import Loaded, load
from tomogen.generation.tiles import WORK, Grid, frugal
from tomogen.layers.posterior import Posterior
from tomogen.models.vae import Halo
from tomogen.recipe import Recipe
from tomogen.run import Run
from tomogen.synthesizer import Synthesizer, Turn
from tomogen.volume import Volume, affine_of

SPACING = (4.0, 3.0, 3.0)
SHAPES = {"solid": ([8, 16, 12], False), "slab": ([4, 16, 12], True), "slice": ([16, 12], False)}
RECIPE = """# A VAE of a few hundred weights.
extends = "vae3d_light"

[model]
shape = {}
flat = {}
doublings = 2
width = 4
widest = 8
fine = 3
latent = 2
rank = 3
"""


def untrained(folder: Path, text: str, **facts: Any) -> Path:
    """A run of a recipe that has not learnt anything."""
    folder.mkdir(exist_ok=True)
    recipe = Recipe.load(tiny.recipe(folder, text))
    data = {"spacing": SPACING, "orientation": "SPL", "shape": [8, 16, 12], "cases": {"train": 1}, "patients": 1}
    made = Run.create(folder / "r", recipe, data | facts)
    torch.manual_seed(0)
    save_file(recipe.build().state_dict(), made.path / "weights.safetensors")
    return made.path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        kind: untrained(folder / kind, RECIPE.format(shape, str(flat).lower()), body_mask=False)
        for kind, (shape, flat) in SHAPES.items()
    }


class Stub(Synthesizer):
    """A code that holds each block of 2 x 2 x 2 voxels as 8 channels, and so all of a scan; `change` is in HU."""

    players = ()
    shape = (8, 8, 8)
    stride, code, halo = (2, 2, 2), (8, 4, 4, 4), Halo((2, 2, 2), (1, 1, 1))

    def __init__(self, change: Callable[[Tensor], Tensor] = lambda hu: hu) -> None:
        super().__init__()
        self.change = change
        self.seen: list[Tensor] = []

    def turns(self, step: int) -> Iterator[Turn]:
        yield from ()

    def forward(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        return {}

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return count, 0

    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        raise NotImplementedError

    def encode(self, image: Tensor) -> Posterior:
        self.seen.append(image * 700 - 300)
        count, _, *space = image.shape
        d, h, w = (size // 2 for size in space)
        mean = image.reshape(count, d, 2, h, 2, w, 2).permute(0, 2, 4, 6, 1, 3, 5).reshape(count, 8, d, h, w)
        return Posterior(mean, torch.full_like(mean, math.log(0.01)))

    def decode(self, code: Tensor) -> Tensor:
        count, _, d, h, w = code.shape
        image = (
            code.reshape(count, 2, 2, 2, d, h, w).permute(0, 4, 1, 5, 2, 6, 3).reshape(count, 1, 2 * d, 2 * h, 2 * w)
        )
        return (self.change(image * 700 - 300) + 300) / 700


def stub(run: Path, change: Callable[[Tensor], Tensor] = lambda hu: hu) -> Loaded:
    """The run with another network."""
    return Loaded(Stub(change), Run.open(run), torch.device("cpu"))


def person(shape: tuple[int, int, int] = (19, 45, 51), seed: int = 0) -> NDArray[np.int16]:
    """An elliptic body with noise, on a table, in air."""
    k, j, i = np.indices(shape)
    _, height, width = shape
    random = np.random.default_rng(seed)
    hu = np.full(shape, -1000) + random.integers(-20, 20, shape)
    body = ((j - height / 2.2) / (height / 3)) ** 2 + ((i - width / 2) / (width / 2.6)) ** 2 < 1
    hu[body] = random.integers(-100, 300, shape)[body] + 5 * k[body]
    hu[:, -3:-1, 5:-5] = -100
    return hu.astype(np.int16)


def scan(orientation: str = "SPL", spacing: tuple[float, float, float] = SPACING) -> Volume:
    return Volume(person(), affine_of(spacing, (-70.123, -65.5, 101.25))).reorient(orientation)


def file(folder: Path, volume: Volume | None = None, name: str = "scan.nii.gz") -> Path:
    return formats.write(volume or scan(), folder / name)


def refused(error: type[TomogenError], match: str, *arguments: Any, **options: Any) -> Any:
    with pytest.raises(error, match=match) as caught:
        encode(*arguments, **options)
    return caught.value


# Tiles.


@pytest.mark.parametrize("size", [(5, 73, 30), (8, 16, 12), (1, 9, 30)])
@pytest.mark.parametrize("kind", SHAPES)
def test_tiles_are_as_the_whole_within_a_hundredth_of_a_hu(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: str, size: tuple[int, int, int]
) -> None:
    loaded, hu = load(runs[kind], "cpu"), np.random.default_rng(0).integers(-1100, 500, size).astype(np.int16)
    found: list[tuple[Posterior, NDArray[np.int16]]] = []
    calls: list[int] = []
    monkeypatch.setattr(tiles, "WORK", 100)
    for voxels in ({"solid": 25_000, "slab": 10_000, "slice": 2_500}[kind], 2**23):
        monkeypatch.setattr(tiling, "VOXELS", voxels)
        coder, count = Coder(loaded), [0]
        hook = loaded.synthesizer.autoencoder.decoder.register_forward_hook(  # type: ignore[union-attr,operator]
            lambda *_, count=count: count.__setitem__(0, count[0] + 1)
        )
        posterior = coder.encode(hu)
        found.append((posterior, coder.decode(posterior.mean, hu.shape)))
        hook.remove()
        calls.append(count[0])
    assert found[1][1].shape == size
    for ours, theirs in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    grid = np.multiply(found[1][0].mean.shape[2:], coder.stride)
    leads = (grid - size) // 2
    padded = np.pad(hu, [(a, n - s - a) for a, n, s in zip(leads, grid, size, strict=True)], mode="edge")
    image = loaded.run.window.to_unit(torch.from_numpy(padded))
    model: Any = loaded.synthesizer
    with torch.inference_mode():
        whole = model.reconstruct(image[:, None] if kind == "slice" else image[None, None])
    truth = loaded.run.window.to_hu(whole.reshape(*grid)).numpy()
    truth = truth[tuple(slice(a, a + n) for a, n in zip(leads, size, strict=True))]
    for _, made in found:
        assert np.abs(made - truth).max() <= 0.5 + 0.01
    if size[1] == 73:
        assert calls[1] == {"solid": 1, "slab": 2, "slice": 5}[kind]
        assert calls[0] > calls[1]


@settings(max_examples=40)
@given(st.tuples(*[st.integers(1, 30)] * 3), st.integers(0, 9), st.integers(1, 4), st.integers(1, 5000))
def test_frugal_tiles_reach_the_end_and_compute_no_voxel_too_often(
    size: tuple[int, int, int], halo: int, align: int, voxels: int
) -> None:
    tile = frugal(size, halo=halo, align=align, voxels=voxels)
    grid = Grid(size, tile, halo=halo, align=align)
    aligned = math.prod(-(-n // align) * align for n in size)
    assert len(grid) * math.prod(tile) <= WORK * aligned
    if halo == 0:
        assert tile == (align,) * 3


def test_of_tiles_of_enough_voxels_those_are_taken_that_compute_least() -> None:
    assert frugal((96, 96, 96), halo=8, align=4, voxels=10**6) == (96, 96, 96)
    tile = frugal((96, 96, 96), halo=8, align=4, voxels=200_000)
    assert math.prod(tile) <= 200_000
    assert len(Grid((96, 96, 96), tile, halo=8, align=4)) * math.prod(tile) < 2 * 96**3
    deep = frugal((9600, 96, 96), halo=8, align=4, voxels=200_000)
    assert deep[0] <= 4 * 200_000 // 96**2  # what is not yet written does not grow with the scan


def test_a_scan_of_the_trained_size_has_no_margin_and_others_have_half_a_stride_at_least(
    runs: dict[str, Path],
) -> None:
    solid, slab, slices = (Coder(load(runs[kind], "cpu")) for kind in SHAPES)
    assert solid.grid((8, 16, 12)) == (2, 4, 3)
    assert solid.grid((9, 17, 13)) == (4, 6, 5)
    assert solid.grid((12, 8, 1)) == (4, 3, 2)
    assert slab.grid((9, 16, 20)) == (3, 4, 6)  # slabs know nothing of each other
    assert slices.grid((9, 16, 20)) == (9, 4, 6)


def test_what_lies_outside_the_scan_continues_its_border(runs: dict[str, Path]) -> None:
    loaded = stub(runs["solid"])
    hu = np.random.default_rng(0).integers(-1000, 400, (5, 6, 8)).astype(np.int16)
    Coder(loaded).encode(hu)
    (seen,) = loaded.synthesizer.seen  # type: ignore[misc,union-attr]
    expected = np.pad(hu, [(1, 2), (1, 1), (0, 0)], mode="edge")
    np.testing.assert_allclose(seen[0, 0].numpy(), expected, atol=0.01)  # type: ignore[index]


# There and back.


@pytest.mark.parametrize("orientation", ["SPL", "IAR", "RSP"])
def test_a_code_that_holds_all_gives_the_scan_back_where_it_was(runs: dict[str, Path], orientation: str) -> None:
    loaded = stub(runs["solid"])
    back = decoded(loaded, coded(loaded, shown(loaded, scan(orientation))))
    assert np.array_equal(back.hu, scan().hu.clip(-1000, 400))
    assert np.allclose(back.affine, scan().affine)
    assert back.acquisition.synthetic


def test_a_run_that_learnt_with_a_body_mask_is_shown_the_body_alone(tmp_path: Path) -> None:
    loaded = stub(untrained(tmp_path, RECIPE.format([8, 16, 12], "false"), body_mask=True))
    seen = shown(loaded, scan()).volume
    assert (seen.hu[:, -2] == -1024).all()  # the table
    body = scan().hu > -500
    body[:, -3:] = False
    assert (seen.hu == scan().hu)[body].mean() > 0.97


def test_other_voxels_are_resampled_onto_the_runs_with_a_warning(runs: dict[str, Path]) -> None:
    loaded, fine = stub(runs["solid"]), scan(spacing=(2.0, 1.5, 1.5))
    fine.hu[...] = -900
    fine.hu[8:12, 20:24, 30:34] = 300
    with pytest.warns(UserWarning, match=r"2 x 1.5 x 1.5 mm .* learnt from 4 x 3 x 3 mm"):
        seen = shown(loaded, fine)
    assert seen.resampled
    assert seen.volume.spacing == pytest.approx(SPACING)
    place = seen.volume.world(np.argwhere(seen.volume.hu > -300).mean(0))
    assert np.abs(place - fine.world((9.5, 21.5, 31.5))).max() < 1.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not shown(loaded, scan(spacing=(4.2, 2.9, 3.1))).resampled


def test_a_network_of_slices_looks_at_rows_and_columns_alone(runs: dict[str, Path]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not shown(load(runs["slice"], "cpu"), scan(spacing=(1.0, 3.0, 3.0))).resampled


def test_tissue_beyond_what_the_run_learnt_is_warned_of_and_air_is_not(runs: dict[str, Path]) -> None:
    loaded = stub(runs["solid"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown(loaded, replace(scan(), hu=scan().hu - np.int16(10)))
    with pytest.warns(UserWarning, match=r"\d\d% of the tissue lies beyond the -1000 to 400 HU"):
        shown(loaded, replace(scan(), hu=scan().hu + np.int16(1024)))


@pytest.mark.parametrize(("share", "fate"), [(0.2, "fine"), (0.85, "warned"), (0.95, "refused")])
def test_a_scan_of_which_nothing_is_left_is_refused(
    runs: dict[str, Path], tmp_path: Path, share: float, fate: str
) -> None:
    hu = scan().hu.clip(None, 400)
    hu[(hu > -500) & (np.random.default_rng(0).random(hu.shape) < share)] = 900
    volume = replace(scan(), hu=hu)
    path = file(tmp_path, volume)
    if fate == "refused":
        said = rf"95% .* beyond the -1000 to 400 HU .* go from {hu.min()} to 900"
        error = refused(DataInvalid, said, runs["solid"], path, tmp_path / "z")
        assert (error.reason, error.at, error.exit_code) == (Reason.HU_RANGE, str(path), 4)
        assert not (tmp_path / "z").exists()
    else:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            encode(runs["solid"], path, tmp_path / "z")
        assert any("beyond" in str(one.message) for one in caught) == (fate == "warned")


@pytest.mark.filterwarnings("ignore:the scan's voxels")
@pytest.mark.parametrize(
    ("kind", "shape", "spacing", "size"),
    [  # trained: 32 x 48 x 36 mm, of slabs 16 mm deep
        ("solid", (20, 20, 20), (0.5, 0.5, 0.5), "small"),
        ("solid", (20, 20, 20), (4.0, 0.5, 3.0), "small"),
        ("slab", (20, 20, 20), (4.0, 0.5, 0.5), "small"),
        ("slice", (20, 20, 20), (4.0, 0.5, 0.5), "small"),
        ("solid", (10, 20, 20), (0.5, 3.0, 3.0), "small"),
        ("solid", (9, 20, 20), (17.0, 3.0, 3.0), "large"),
        ("solid", (9, 20, 20), (4.0, 13.0, 13.0), "large"),
        ("slice", (9, 20, 20), (4.0, 80.0, 80.0), "large"),
        ("solid", (1, 20, 20), (4.0, 3.0, 3.0), ""),  # a slice, and one of thin slices
        ("slice", (1, 20, 20), (0.5, 3.0, 3.0), ""),
        ("solid", (90, 20, 20), (4.0, 3.0, 3.0), ""),  # long
        ("solid", (300, 20, 20), (0.5, 3.0, 3.0), ""),  # long, of thin slices
        ("slab", (90, 20, 20), (0.5, 3.0, 3.0), ""),
        ("solid", (20, 80, 80), (4.0, 0.5, 0.5), ""),  # fine voxels of a usual field
    ],
)
def test_a_scan_of_a_field_that_the_run_never_saw_is_refused(
    runs: dict[str, Path], kind: str, shape: tuple[int, int, int], spacing: tuple[float, float, float], size: str
) -> None:
    loaded = load(runs[kind], "cpu")
    volume = Volume(np.zeros(shape, np.int16), affine_of(spacing))
    if not size:
        shown(loaded, volume)
        return
    with pytest.raises(
        DataInvalid, match=rf"field of [\d. x]+ mm .* mm, too {size} for a run .* 48 x 36 mm in voxels of"
    ) as caught:
        shown(loaded, volume)
    assert "--spacing" in str(caught.value.fix)


def test_the_source_is_judged_before_the_output(runs: dict[str, Path], tmp_path: Path) -> None:
    text, out = tmp_path / "notes.txt", tmp_path / "q.safetensors"
    text.write_text("no code")
    out.write_bytes(b"mine")
    for name in (out, tmp_path / "q.nii.gz"):
        assert refused(DataInvalid, "no format reads .txt", runs["solid"], text, name).at == str(text)
    code = tmp_path / "damaged.safetensors"
    code.write_text("no code")
    assert refused(DataInvalid, "the code is damaged", runs["solid"], code, out).at == str(code)


def test_the_error_is_that_of_the_scan_as_the_encoder_saw_it(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load", lambda path, device: stub(runs["solid"], lambda hu: hu + 7))
    volume = replace(scan(), hu=scan().hu.clip(-1100, 390))
    found = encode(runs["solid"], file(tmp_path, volume), tmp_path / "z")
    assert found.mae == pytest.approx(7, abs=1e-6)
    assert found.psnr == pytest.approx(20 * math.log10(1400 / 7), abs=1e-6)
    monkeypatch.setattr(module, "load", lambda path, device: stub(runs["solid"]))
    exact = encode(runs["solid"], file(tmp_path, volume), tmp_path / "y")
    assert (exact.mae, exact.psnr, exact.psnr_peak) == (0, None, 1400)


def test_the_divergence_and_the_active_channels_are_told(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load", lambda path, device: stub(runs["solid"]))
    striped = np.random.default_rng(0).integers(-303, -296, (8, 8, 8)).astype(np.int16)
    striped[0:4:2, ::2, ::2] = 330  # of the eight channels one is 0.9 in half of the slices, the others are 0
    found = encode(runs["solid"], file(tmp_path, Volume(striped, affine_of(SPACING))), tmp_path / "z")
    assert found.active == 1
    nothing = 64 * (0.01 - 1 - math.log(0.01)) / 2
    assert found.kl[1:] == pytest.approx([nothing] * 7, rel=1e-3)
    assert found.kl[0] == pytest.approx(nothing + 32 * 0.81 / 2, rel=1e-3)


@pytest.mark.parametrize("kind", SHAPES)
def test_encode_writes_a_code_and_of_a_code_its_scan(runs: dict[str, Path], tmp_path: Path, kind: str) -> None:
    source = file(tmp_path)
    there = encode(runs[kind], source, tmp_path / "z")
    assert there.out == tmp_path / "z"
    assert there.code[0] == 2
    assert len(there.kl) == 2
    back = encode(runs[kind], tmp_path / "z", tmp_path / "back.nii.gz")
    assert (back.shape, back.code, back.kl, back.run) == (there.shape, there.code, there.kl, there.run)
    assert back.mae is None
    volume, loaded = formats.read(tmp_path / "back.nii.gz"), load(runs[kind], "cpu")
    assert np.array_equal(volume.hu, decoded(loaded, code_of(loaded, source)).hu)
    assert np.allclose(volume.affine, scan().affine, atol=1e-3)
    assert volume.acquisition.synthetic
    encode(runs[kind], tmp_path / "z", tmp_path / "series")
    assert np.array_equal(formats.read(tmp_path / "series").hu, volume.hu)


def test_a_code_returns_from_its_file_as_it_was(runs: dict[str, Path], tmp_path: Path) -> None:
    loaded = load(runs["solid"], "cpu")
    code = code_of(loaded, file(tmp_path))
    again = code_of(loaded, write(code, tmp_path / "z"))
    for ours, theirs in zip(again.posterior, code.posterior, strict=True):
        assert torch.equal(ours, theirs)
    assert np.array_equal(again.affine, code.affine)
    for name in ("shape", "middle", "window", "run", "recipe", "source", "grid", "spacing"):
        assert getattr(again, name) == getattr(code, name)


# Around and between.


def test_alpha_0_is_the_reconstruction_and_draws_differ_by_seed_and_number(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    loaded = load(runs["solid"], "cpu")
    code = code_of(loaded, file(tmp_path))
    back = decoded(loaded, code).hu
    assert np.array_equal(around(loaded, code, 0.0, 5, 1).hu, back)
    draws = [around(loaded, code, 3.0, *which).hu for which in ((0, 1), (0, 2), (1, 1), (0, 1))]
    assert np.array_equal(draws[0], draws[3])
    assert len({draw.tobytes() for draw in [*draws, back]}) == 4


def test_draws_have_the_deviation_of_the_posterior(runs: dict[str, Path]) -> None:
    loaded = stub(runs["solid"])
    code = coded(loaded, shown(loaded, Volume(np.full((16, 20, 20), -300, np.int16), affine_of(SPACING))))
    made = [around(loaded, code, alpha, 0, 1).hu + 300.0 for alpha in (1.0, 2.0)]
    assert made[0].std() == pytest.approx(0.1 * 700, rel=0.03)
    assert np.abs(made[1] - 2 * made[0]).max() <= 1.5


@pytest.mark.parametrize("alpha", [-0.1, math.inf, math.nan])
def test_an_alpha_out_of_range_is_refused(runs: dict[str, Path], tmp_path: Path, alpha: float) -> None:
    loaded = load(runs["solid"], "cpu")
    with pytest.raises(UsageFault, match="alpha of"):
        around(loaded, code_of(loaded, file(tmp_path)), alpha, 0, 1)


def test_the_way_between_two_codes_goes_from_one_reconstruction_to_the_other(runs: dict[str, Path]) -> None:
    loaded = stub(runs["solid"])
    codes = [
        coded(loaded, shown(loaded, Volume(np.full((8, 8, 8), hu, np.int16), affine_of(SPACING)))) for hu in (-400, 100)
    ]
    levels = [between(loaded, *codes, share).hu for share in (0, 0.25, 1)]
    assert [set(level.ravel().tolist()) for level in levels] == [{-400}, {-275}, {100}]
    with pytest.raises(UsageFault, match=r"a share of 1.5"):
        between(loaded, *codes, 1.5)


def test_codes_of_unlike_grids_are_not_mixed_but_a_scan_is_put_on_the_grid_of_a_code(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    loaded = stub(runs["solid"])
    first = code_of(loaded, file(tmp_path))
    small = scan().crop((3, 4, 5), (11, 30, 31))
    path = file(tmp_path, small, "small.nii.gz")
    with pytest.raises(DataInvalid, match=r"19 x 45 x 51 voxels of 4 x 3 x 3 mm, and 11 x 30 x 31") as caught:
        between(loaded, first, code_of(loaded, path), 0.5)
    assert caught.value.reason == Reason.MIXED
    second = code_of(loaded, path, like=first)
    assert second.shape == first.shape
    placed = decoded(loaded, second).hu[4:15, 7:37, 10:41]
    assert (np.abs(placed - small.hu.clip(-1000, 400)) <= 150).mean() > 0.3
    assert np.array_equal(between(loaded, first, second, 1).hu, decoded(loaded, second).hu)
    whole = code_of(loaded, file(tmp_path), like=first)
    assert torch.equal(whole.posterior.mean, first.posterior.mean)


def test_a_body_is_put_where_the_other_one_is(tmp_path: Path) -> None:
    loaded = stub(untrained(tmp_path, RECIPE.format([8, 16, 12], "false"), body_mask=True))
    first = code_of(loaded, file(tmp_path, scan().crop((0, 0, 0), (19, 60, 70), -1000)))
    same = code_of(loaded, tmp_path / "scan.nii.gz", like=first)
    assert torch.equal(same.posterior.mean, first.posterior.mean)
    other = code_of(loaded, file(tmp_path, scan().crop((0, -8, -9), (19, 60, 70), -1000), "off.nii.gz"), like=first)
    assert (np.abs(decoded(loaded, other).hu - decoded(loaded, first).hu) > 1).mean() < 0.01


def test_between_lies_where_the_first_lies(runs: dict[str, Path]) -> None:
    loaded = stub(runs["solid"])
    first = coded(loaded, shown(loaded, scan()))
    moved = coded(loaded, shown(loaded, replace(scan(), affine=affine_of(SPACING, (1, 2, 3)))))
    assert np.array_equal(between(loaded, first, moved, 0.7).affine, first.affine)


# What is refused.


def damaged(change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> Callable[[Path, Path], None]:
    """Writes a code anew with its tensors and what it tells changed."""

    def rewrite(path: Path, out: Path) -> None:
        tensors, code = load_file(path), read(path)
        told: dict[str, Any] = {
            "schema": 1,
            "run": code.run,
            "recipe": code.recipe,
            "shape": code.shape,
            "affine": code.affine.tolist(),
            "middle": code.middle,
            "window": (-1000, 400),
            "source": code.source,
        }
        change(tensors, told)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out, {KEY: json.dumps(told)})

    return rewrite


def poke(tensors: dict[str, Tensor], value: float) -> None:
    tensors["log_variance"][0, 1, 0, 0] = value


DAMAGE: dict[str, tuple[Callable[[Path, Path], None], type[TomogenError], str]] = {
    "cut": (lambda path, out: out.write_bytes(path.read_bytes()[:-9]) and None, DataInvalid, "the code is damaged"),
    "header": (lambda path, out: out.write_bytes(path.read_bytes()[:40]) and None, DataInvalid, "the code is damaged"),
    "no mean": (damaged(lambda t, _: t.pop("mean").shape[:0] and None), DataInvalid, "the code lacks mean"),
    "NaN": (damaged(lambda t, _: poke(t, math.nan)), DataInvalid, "NaN or infinity in the code"),
    "unlike": (
        damaged(lambda t, _: t.update(mean=t["mean"][:1])), DataInvalid, r"mean and log_variance of \(1, .* and \(2,",
    ),
    "channels": (
        damaged(lambda t, _: t.update({name: part[:1] for name, part in t.items()})), DataInvalid, r"a code of \(1,",
    ),
    "grid": (damaged(lambda _, told: told.update(shape=(19, 45, 90))), DataInvalid, "19 x 45 x 90 voxels has one of"),
    "negative": (damaged(lambda _, told: told.update(shape=(-19, 45, 51))), DataInvalid, "has one of"),
    "affine": (damaged(lambda _, told: told.update(affine=[[0.0] * 4] * 4)), DataInvalid, "voxels of 0 x 0 x 0 mm"),
    "words": (damaged(lambda _, told: told.update(affine="here")), DataInvalid, "metadata is damaged"),
    "window": (damaged(lambda _, told: told.update(window=(400, -1000))), DataInvalid, "metadata is damaged"),
    "middle": (damaged(lambda _, told: told.update(middle=[0, math.nan, 0])), DataInvalid, "its middle is not finite"),
    "schema": (damaged(lambda _, told: told.update(schema=9)), DataInvalid, "schema 9, this version reads 1"),
    "no run": (damaged(lambda _, told: told.pop("run") and None), DataInvalid, "metadata lacks 'run'"),
    "other": (damaged(lambda _, told: told.update(run="0" * 16)), RecipeMismatch, "the code is of run 0{16} "),
    "pickle": (lambda path, out: torch.save({"mean": torch.zeros(3)}, out.with_suffix(".safetensors")), RecipeMismatch,
               "a pickle"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_code_and_that_of_another_run_are_refused(runs: dict[str, Path], tmp_path: Path, kind: str) -> None:
    spoil, error, match = DAMAGE[kind]
    encode(runs["solid"], file(tmp_path), tmp_path / "z")
    spoil(tmp_path / "z", tmp_path / "bad.safetensors")
    found = refused(error, match, runs["solid"], tmp_path / "bad.safetensors", tmp_path / "back.nii.gz")
    assert found.at == str(tmp_path / "bad.safetensors")
    assert not (tmp_path / "back.nii.gz").exists()


@settings(max_examples=15)
@given(st.data())
def test_a_code_with_any_byte_wrong_gives_a_scan_or_one_of_our_errors(
    runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    loaded = stub(runs["solid"])
    whole = bytearray(write(coded(loaded, shown(loaded, scan())), folder / "z").read_bytes())
    place = data.draw(st.integers(0, 700))
    whole[place] = data.draw(st.integers(0, 255))
    (folder / "bad.safetensors").write_bytes(whole)
    try:
        volume = decoded(loaded, code_of(loaded, folder / "bad.safetensors"))
    except TomogenError:
        return
    assert volume.shape == (19, 45, 51)


def test_weights_are_no_code(runs: dict[str, Path], tmp_path: Path) -> None:
    error = refused(DataInvalid, "no code of a scan", runs["solid"], runs["solid"] / "weights.safetensors", "b.nii")
    assert error.reason == Reason.CORRUPT


def test_a_run_of_another_kind_has_no_codes(runs: dict[str, Path], tmp_path: Path) -> None:
    other = untrained(tmp_path / "other", tiny.RECIPE)
    error = refused(RecipeMismatch, "which has no codes", other, file(tmp_path), tmp_path / "z")
    assert "vae3d_light" in error.fix
    assert not encodes(load(other, "cpu"))
    assert all(encodes(load(run, "cpu")) for run in runs.values())


def test_what_is_missing_or_in_the_way_is_told_before_the_work(runs: dict[str, Path], tmp_path: Path) -> None:
    run, source = runs["solid"], file(tmp_path)
    refused(InputMissing, "near names: scan.nii.gz", run, tmp_path / "scam.nii.gz", tmp_path / "z")
    refused(InputMissing, "no such run", tmp_path / "none", source, tmp_path / "z")
    error = refused(UsageFault, "a scan becomes a code", run, source, tmp_path / "b.nii.gz")
    assert error.fix == "b.safetensors, and from that tomogen encode RUN b.safetensors b.nii.gz"
    (tmp_path / "folder").mkdir()
    refused(UsageFault, "a code is one file", run, source, tmp_path / "folder", overwrite=True)
    encode(run, source, tmp_path / "z")
    before = (tmp_path / "z").read_bytes()
    refused(UsageFault, "there already", run, source, tmp_path / "z")
    refused(UsageFault, "the scan itself", run, tmp_path / "z", tmp_path / "z", overwrite=True)
    encode(run, source, tmp_path / "z", overwrite=True)
    assert (tmp_path / "z").read_bytes() == before
    refused(UsageFault, "a code goes back to a scan", run, tmp_path / "z", tmp_path / "y.safetensors")
    refused(UsageFault, "no format writes .xyz", run, tmp_path / "z", tmp_path / "back.xyz")
    refused(UsageFault, "there already", run, tmp_path / "z", source)


def test_a_scan_without_a_body_is_refused_by_a_run_that_learnt_from_bodies(tmp_path: Path) -> None:
    run = untrained(tmp_path, RECIPE.format([8, 16, 12], "false"))
    air = np.random.default_rng(0).integers(-1024, -900, (6, 20, 20)).astype(np.int16)
    source = file(tmp_path, Volume(air, affine_of(SPACING)))
    error = refused(DataInvalid, "no body", run, source, tmp_path / "z", options=formats.ReadOptions(assume_hu=True))
    assert error.at == str(source)
    assert not (tmp_path / "z").exists()


def test_a_network_that_makes_no_numbers_is_refused(runs: dict[str, Path]) -> None:
    loaded = stub(runs["solid"], lambda hu: hu * math.nan)
    with pytest.raises(RecipeMismatch, match="NaN or infinity"):
        decoded(loaded, coded(loaded, shown(loaded, scan())))


# The command.


def test_the_command_says_what_it_made_and_names_nobody(runs: dict[str, Path], tmp_path: Path) -> None:
    made = dicoms.slices(person(), spacing=(2.0, 3.0, 3.0))
    for dataset in made:
        dataset.PatientName, dataset.PatientID = "Canary^Kanarienvogel", "CANARY42"
    source = dicoms.save(tmp_path / "canary", made)
    arguments = [str(runs["solid"]), str(source), str(tmp_path / "z")]
    done = CliRunner().invoke(command, [*arguments, "--json"])
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["out"] == str(tmp_path / "z")
    assert said["resampled"] is True
    assert said["mae"] > 0
    assert said["psnr_peak"] == 1400
    for word in ("warning: the scan's voxels are 2 x 3 x 3 mm", "2 channels", "dB (peak 1400 HU", "nats"):
        assert word in done.stderr
    again = CliRunner().invoke(command, arguments)
    assert again.exit_code == 2
    assert "error: the output is there already" in again.stderr
    back = CliRunner().invoke(command, [arguments[0], arguments[2], str(tmp_path / "back.nii.gz")])
    assert back.stdout == f"{tmp_path / 'back.nii.gz'}\n"
    other = CliRunner().invoke(command, [arguments[0], str(tmp_path / "nothing"), str(tmp_path / "y")])
    assert other.exit_code == 3
    for path in (tmp_path / "z", tmp_path / "back.nii.gz"):
        assert b"canary" not in path.read_bytes().lower()


def test_flags_and_parameters_agree() -> None:
    import inspect

    flags = {parameter.name for parameter in command.params}
    assert {"run", "source", "out", "device", "overwrite", "series", "assume_hu"} <= flags
    assert set(inspect.signature(encode).parameters) - {"options", "progress"} <= flags
