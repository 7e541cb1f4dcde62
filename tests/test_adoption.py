"""Weights of X2CT-GAN's released code as runs: the same volumes, scores, losses and gradients as that code gives.

`reference/x2ct` holds what the released code computes from weights and inputs that its README gives as formulas.
"""

import functools
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tomogen.adoption import LARGEST, adopt, discriminator_names, fill, generator_names, read
from tomogen.batch import Batch
from tomogen.errors import InputMissing, RecipeMismatch, UsageFault
from tomogen.generation.load import load
from tomogen.layers.lift import whole
from tomogen.models.x2ct import Model
from tomogen.recipe import Recipe
from tomogen.reporting.page import report
from tomogen.run import Run
from tomogen.synthesizer import Turn

Entries = dict[str, torch.Tensor]
RECIPES = {"multiview": "x2ct", "singleview": "x2ct_single"}
NOTHING = 1e-10
"""Gradients below this are rounding: the published weight has no effect."""


@pytest.fixture(scope="session")
def reference(ctdata: Path) -> Path:
    """Folder of the reference values."""
    folder = ctdata.parent / "reference" / "x2ct"
    if not folder.is_dir():
        pytest.skip(f"no reference values at {folder}")
    return folder


def content(path: Path) -> Any:
    return json.loads(path.read_text())


def mixed(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    return h ^ (h >> np.uint32(16))


def drawn(name: str, shape: list[int]) -> torch.Tensor:
    """The README's fill formula."""
    seed = zlib.crc32(name.encode())
    k = np.arange(1, np.prod(shape) + 1, dtype=np.uint64)
    h = ((k * 0x9E3779B1 + seed) & 0xFFFFFFFF).astype(np.uint32)
    u = 2 * ((mixed(mixed(h) ^ np.uint32(seed))).astype(np.float64) + 0.5) / 2**32 - 1
    scale = 0.1 if len(shape) == 1 else np.sqrt(3 / np.prod(shape[1:]))
    return torch.from_numpy((u * scale).astype(np.float32).reshape(shape))


@functools.cache
def entries(reference: Path, network: str, which: str, size: int, device: str = "cpu") -> Entries:
    """A published state with the README's weights, or on the device `meta` with none."""
    found: Entries = {}
    for entry in content(reference / f"layout_{network}_{which}.json")["entries"]:
        name, shape = entry["name"], list(entry["shape"])
        if "base_link.0" in name:
            shape[0] = 256 * (size // 32) ** 3
        if device == "meta":
            found[name] = torch.empty(shape, device="meta")
        else:
            found[name] = drawn(name, shape) if entry["kind"] == "parameter" else torch.zeros(shape)
    return found


def inputs(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures `(1, 2, n, n)` and CT `(1, 1, n, n, n)` of the README's formulas."""
    line = np.arange(size) * 128 / size
    r, c = np.meshgrid(line, line, indexing="ij")
    d, h, w = np.meshgrid(line, line, line, indexing="ij")
    one = 0.5 + 0.30 * np.sin(0.11 * r + 0.05 * c) + 0.15 * np.sin(0.0021 * r * c) + 0.05 * np.cos(0.9 * c - 0.4 * r)
    two = 0.5 + 0.30 * np.cos(0.07 * r - 0.13 * c) + 0.15 * np.sin(0.0017 * r * (127 - c))
    two += 0.05 * np.cos(0.8 * r + 0.3 * c)
    ct = 0.5 + 0.25 * np.sin(0.09 * d + 0.05 * h) * np.cos(0.07 * w) + 0.15 * np.sin(0.0013 * h * w + 0.04 * d)
    ct += 0.1 * np.cos(0.12 * w - 0.06 * d + 0.03 * h)
    return torch.from_numpy(np.stack([one, two]).astype(np.float32))[None], torch.from_numpy(ct.astype(np.float32))[
        None, None
    ]


def built(reference: Path, which: str, size: int, **changes: object) -> Model:
    """The network with the README's weights."""
    changes = {"shape": [size] * 3, "dropout": 0.0, **changes}
    recipe = Recipe.load(RECIPES[which], [f"model.{name}={json.dumps(value)}" for name, value in changes.items()])
    with torch.device("meta"):
        model = recipe.build()
    assert isinstance(model, Model)
    model.to_empty(device="cpu")
    views = len(recipe.config.views)
    fill(model.generator, entries(reference, "generator", which, size), generator_names(5, views), Path("g"))
    fill(model.discriminator, entries(reference, "discriminator", which, size), discriminator_names(), Path("d"))
    return model


def published_frame(made: torch.Tensor, which: str) -> NDArray[np.float32]:
    """A volume as the reference stores it: single views in their own axis order."""
    volume = made[0, 0].float().numpy()
    return volume if which == "multiview" else volume.transpose(1, 0, 2)


# ---- the same numbers ----


def compared(reference: Path, which: str, size: int, dtype: torch.dtype) -> tuple[float, float, float]:
    """Largest and mean distance of the volume, largest of the discriminator's map."""
    model = built(reference, which, size).to(dtype)
    stored = np.load(reference / f"io_{which}_{size}.npz")
    pictures, ct = (x.to(dtype) for x in inputs(size))
    pictures = pictures[:, : len(model.config.views)]
    np.testing.assert_array_equal(stored["xray1"], pictures[0, 0].float())
    with torch.no_grad():
        made = published_frame(model.generator(pictures), which)
        scores = model.discriminator(pictures, ct)[0]
    step = size // 32
    name = "out_fused" if which == "multiview" else "out_view1_frame"
    apart = np.abs(made[::step, ::step, ::step] - stored[name])
    judged = np.abs(scores[0, 0].float().numpy() - stored["disc_real"])
    return float(apart.max()), float(apart.mean()), float(judged.max())


@pytest.mark.parametrize(
    ("which", "size"),
    [
        ("singleview", 64),
        ("multiview", 64),
        pytest.param("singleview", 128, marks=pytest.mark.slow),
        pytest.param("multiview", 128, marks=pytest.mark.slow),
    ],
)
def test_volumes_and_scores_are_those_of_the_released_code(reference: Path, which: str, size: int) -> None:
    largest, mean, judged = compared(reference, which, size, torch.float32)
    assert largest <= 5e-3
    assert mean <= 2e-4
    assert judged <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("which", RECIPES)
def test_in_float64_they_are_equal_to_the_digits_that_are_stored(reference: Path, which: str) -> None:
    largest, _, judged = compared(reference, which, 64, torch.float64)
    assert largest <= 1e-5
    assert judged <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("which", RECIPES)
def test_every_stage_is_that_of_the_released_code(reference: Path, which: str) -> None:
    model = built(reference, which, 64).double()
    stored = np.load(reference / f"io_{which}_64.npz")
    steps = {name: stage["step"] for name, stage in content(reference / f"io_{which}_64.json")["stages"].items()}
    apart: dict[str, float] = {}

    def see(name: str, made: torch.Tensor) -> None:
        if made.shape[-1] == 64 and made.ndim == 5:
            made = made[:, :, ::2, ::2, ::2]  # as they are stored
        sample = made.reshape(-1)[:: steps[name]][:512].float().numpy()
        apart[name] = float(np.abs(sample - stored[f"stage/{name}"]).max())

    for number, view in enumerate(model.generator.views, start=1):
        prefix = f"view{number}Model." if which == "multiview" else ""
        for level, part in enumerate(view.links):
            part.register_forward_hook(
                lambda _m, _i, o, name=f"{prefix}linker_layer{level}": see(name, whole(o, o.shape[-1]))
            )
        for level, part in enumerate(view.up):
            part.register_forward_hook(lambda _m, _i, o, name=f"{prefix}decoder_layer{level}": see(name, o))
        for level, part in enumerate(view.compress if which == "multiview" else ()):
            name = f"{prefix}decoder_compress_layer{level - 1}"
            part.register_forward_hook(lambda _m, _i, o, name=name: see(name, o))
    with torch.no_grad():
        model.generator(inputs(64)[0][:, : len(model.config.views)].double())
    assert len(apart) == (30 if which == "multiview" else 10)
    assert max(apart.values()) <= 1e-5, apart


@pytest.mark.slow
@pytest.mark.parametrize("which", RECIPES)
def test_losses_and_gradients_of_a_step_are_those_of_the_released_code(reference: Path, which: str) -> None:
    model = built(reference, which, 64).double()
    stored = content(reference / f"trainstep_{which}_64.json")
    pictures, ct = inputs(64)
    pictures = pictures[:, : len(model.config.views)]
    # To -1..1, feet first: the way that the house has scans.
    batch = Batch(2 * ct.flip(2).double() - 1, {"xrays": 2 * pictures.double() - 1})
    terms = model(Turn("generator"), batch)
    terms = {name: term.item() for name, term in _played(model, "generator", terms).items()}
    expected = stored["losses"]
    assert terms == pytest.approx(
        {"adversarial": expected["G"], "voxel": expected["idt"], "projection": expected["map_m"]}, rel=1e-5
    )
    judged = _played(model, "discriminator", model(Turn("discriminator", fresh=False), batch))
    assert sum(term.item() for term in judged.values()) == pytest.approx(expected["D"], rel=1e-5)
    for player, names in (
        ("generator", generator_names(5, len(model.config.views))),
        ("discriminator", discriminator_names()),
    ):
        gradients = stored[f"grad_{player[0].upper()}_norm_first_sum"]
        for name, parameter in model.get_submodule(player).named_parameters():
            norm, first, total = gradients[names[name]]
            found = parameter.grad
            assert found is not None
            assert norm > NOTHING, f"{name} is computed in vain"
            assert found.norm().item() == pytest.approx(norm, rel=1e-4), name
            assert found.flatten()[0].item() == pytest.approx(first, rel=1e-3, abs=1e-4 * norm), name
            assert found.sum().item() == pytest.approx(total, rel=1e-3, abs=1e-3 * norm), name


def _played(model: Model, player: str, terms: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    parameters = list(model.get_submodule(player).parameters())
    found = torch.autograd.grad(torch.stack(list(terms.values())).sum(), parameters)
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.grad = gradient
    return terms


@pytest.mark.parametrize("which", RECIPES)
def test_what_is_not_built_is_what_the_released_code_computes_in_vain(reference: Path, which: str) -> None:
    """All but weights without a gradient, or with one of rounding alone: biases before a norm, the views' outputs."""
    gradients = content(reference / f"trainstep_{which}_64.json")["grad_G_norm_first_sum"]
    layout = content(reference / f"layout_generator_{which}.json")
    sizes = {e["name"]: int(np.prod(e["shape"])) for e in layout["entries"] if e["kind"] == "parameter"}
    vain = {name for name in sizes if gradients[name] is None or gradients[name][0] < NOTHING}
    with torch.device("meta"):
        recipe = Recipe.load(RECIPES[which])
        generator = recipe.build().get_submodule("generator")
    names = generator_names(5, len(recipe.config.views))
    assert {names[name] for name, _ in generator.named_parameters()} == set(sizes) - vain
    ours = sum(parameter.numel() for parameter in generator.parameters())
    assert ours == layout["parameters"] - sum(sizes[name] for name in vain)
    heads = {name for name in vain if gradients[name] is None}
    assert sum(sizes[name] for name in heads) == (2 * 12_417 if which == "multiview" else 0)
    assert all(name.endswith(".bias") for name in vain - heads)


# ---- a run ----


@pytest.fixture(scope="session")
def weights(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of a single-view generator and discriminator as the released code writes them."""
    folder = tmp_path_factory.mktemp("released")
    for network in ("generator", "discriminator"):
        torch.save(entries(reference, network, "singleview", 64), folder / f"{network}.pth")
    return folder / "generator.pth", folder / "discriminator.pth"


def test_an_adopted_run_generates_what_the_released_weights_do(
    reference: Path, weights: tuple[Path, Path], tmp_path: Path
) -> None:
    run = adopt(weights[0], tmp_path / "run", weights[1])
    assert Run.open(run.path).spacing == (5.0, 5.0, 5.0)
    assert run.recipe.model == "x2ct"
    assert run.data["adopted"].keys() == {"generator", "discriminator"}
    loaded = load(run.path, "cpu")
    pictures = inputs(64)[0][:, :1]
    made = loaded.synthesizer.generate(torch.zeros(1, 0), {"xrays": 2 * pictures - 1})
    stored = np.load(reference / "io_singleview_64.npz")["out_view1_frame"].clip(0, 1)
    head_first = published_frame((made + 1).flip(2) / 2, "singleview")
    assert np.abs(head_first[::2, ::2, ::2] - stored).max() <= 5e-3


def test_without_a_discriminator_the_run_has_none_and_running_means_are_left_behind(
    weights: tuple[Path, Path], tmp_path: Path
) -> None:
    run = adopt(weights[0], tmp_path / "run")
    kept = load_file(run.weights)
    assert all(name.startswith("generator.") for name in kept)
    assert not any("running" in name for name in kept)
    assert load(run.path, "cpu").synthesizer.players == ("generator",)
    with pytest.raises(UsageFault):
        adopt(weights[0], tmp_path / "run")
    adopt(weights[0], tmp_path / "run", overwrite=True)


def test_an_adopted_run_has_a_page(weights: tuple[Path, Path], tmp_path: Path) -> None:
    run = adopt(weights[0], tmp_path / "run")
    page = report(run.path).read_text()
    assert run.identifier in page
    assert f"torch {torch.__version__}" in page


def test_names_of_weights_saved_from_several_devices_are_understood(tmp_path: Path) -> None:
    torch.save({"module.base_link.0.weight": torch.ones(2)}, tmp_path / "g.pth")
    assert list(read(tmp_path / "g.pth")) == ["base_link.0.weight"]


# ---- other files ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("linker_layer2.0.conv_block.0.weight"), r"missing: linker_layer2\.0\.conv_block\.0\.weight"),
        (lambda e: e.update({"decoder_layer9.0.weight": torch.zeros(1)}), r"unknown: decoder_layer9\.0\.weight"),
        (
            lambda e: e.update({"encoder_layer.1.weight": torch.empty(64, 3, 7, 7)}),
            r"another shape: encoder_layer\.1\.weight \[64, 3, 7, 7\], expected \[64, 1, 7, 7\]",
        ),
    ],
)
def test_weights_of_another_network_are_refused_entry_by_entry(reference: Path, change: Any, message: str) -> None:
    found = dict(entries(reference, "generator", "singleview", 64, "meta"))
    with torch.device("meta"):
        generator = Recipe.load("x2ct_single", ["model.shape=[64, 64, 64]"]).build().get_submodule("generator")
    fill(generator, found, generator_names(5, 1), Path("g.pth"))
    change(found)
    with pytest.raises(RecipeMismatch, match=message):
        fill(generator, found, generator_names(5, 1), Path("g.pth"))


def test_two_files_in_the_wrong_order_are_refused(weights: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeMismatch, match="generator"):
        adopt(weights[1], tmp_path / "run", weights[0])
    with pytest.raises(RecipeMismatch, match="discriminator: missing"):
        adopt(weights[0], tmp_path / "run", weights[0])
    assert not (tmp_path / "run").exists()


class Trap:
    """What must never run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo > trapped",)


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"base_link.0.weight": Trap()}, tmp_path / "g.pth")
    with pytest.raises(
        RecipeMismatch, match=r"it holds a program \((posix|nt)\.system\), which is never run"
    ) as caught:
        adopt(tmp_path / "g.pth", tmp_path / "run")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "trapped").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("empty", "no bytes"),
        ("text", "no weights that torch saved"),
        ("cut", "cut off"),
        ("tail", "cut off"),
        ("old", "cut off"),
        ("list", "something else than tensors by name"),
        ("numbers", "something else than tensors by name"),
        ("huge", "bytes; weights of X2CT-GAN have at most"),
    ],
)
def test_files_that_hold_no_weights_are_refused_in_our_words(tmp_path: Path, damage: str, told: str) -> None:
    path = tmp_path / "g.pth"
    torch.save({"base_link.0.weight": torch.zeros(2048, 704)}, path)
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("no weights\n")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "tail":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "old":
        torch.save({"base_link.0.weight": torch.zeros(2048)}, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "list":
        torch.save([torch.zeros(3)], path)
    elif damage == "numbers":
        torch.save({"base_link.0.weight": 3}, path)
    else:
        with path.open("r+b") as file:
            file.truncate(LARGEST + 1)
    with pytest.raises(RecipeMismatch, match=told) as caught:
        adopt(path, tmp_path / "run")
    assert "weights_only" not in str(caught.value)
    assert caught.value.fix
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_finite_are_refused_when_adopted_and_when_loaded(
    weights: tuple[Path, Path], tmp_path: Path
) -> None:
    found = torch.load(weights[0], weights_only=True)
    name = "linker_layer2.0.conv_block.0.weight"
    found[name] = found[name].clone().index_fill_(0, torch.tensor([1]), float("nan"))
    torch.save(found, tmp_path / "g.pth")
    with pytest.raises(RecipeMismatch, match=rf"NaN or infinity in {name}"):
        adopt(tmp_path / "g.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()

    run = adopt(weights[0], tmp_path / "run")
    kept = load_file(run.weights)
    broken = max(kept)
    kept[broken].view(-1)[0] = float("-inf")
    save_file(kept, run.weights)
    with pytest.raises(RecipeMismatch, match=f"NaN or infinity in 1 of {len(kept)} weights, the first {broken}"):
        load(run.path, "cpu")


def test_the_files_of_an_adopted_run_are_for_the_same_readers(weights: tuple[Path, Path], tmp_path: Path) -> None:
    run = adopt(weights[0], tmp_path / "run")
    assert {path.stat().st_mode & 0o777 for path in run.path.iterdir() if path.is_file()} == {
        (run.path / "recipe.toml").stat().st_mode & 0o777
    }


def test_an_occupied_output_is_refused_before_weights_are_read_with_what_adopt_can_do(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "note.txt").write_text("years of work")
    (tmp_path / "g.pth").write_text("no weights")
    with pytest.raises(UsageFault) as caught:
        adopt(tmp_path / "g.pth", tmp_path / "run")
    assert "--resume" not in str(caught.value)
    assert "--overwrite" in (caught.value.fix or "")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        adopt(tmp_path / "none.pth", tmp_path / "run")
