"""The style-based GAN: its layers in closed form, its game, its regularisers, its styles and its labels."""

import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

import tiny
from tomogen.batch import Batch
from tomogen.cases.folder import CaseFolder
from tomogen.cases.labels import Labelled, Labels, labelled
from tomogen.cases.stream import stream
from tomogen.errors import DataInvalid, InputMissing, RecipeMismatch, UsageFault
from tomogen.layers.equalised import EqualConv, EqualLinear
from tomogen.layers.minibatch import GroupDeviation
from tomogen.layers.resample import blurred, doubled, halved
from tomogen.layers.running import RunningMean
from tomogen.layers.style import StyledConv, StyledImage, mixed, truncated
from tomogen.losses.regularisers import path_lengths, path_penalty, r1_penalty
from tomogen.models.stylegan2 import Config, Model
from tomogen.recipe import Data, Recipe
from tomogen.run import Run
from tomogen.synthesizer import Turn
from tomogen.training.devices import fabric_of
from tomogen.training.trainer import Game

GENERATOR, DISCRIMINATOR = Turn("generator"), Turn("discriminator", fresh=False)
PATH, SLOPE = Turn("generator", "path", fresh=False), Turn("discriminator", "slope", fresh=False)
SLIM = {"doublings": 1, "width": 4, "widest": 6, "latent": 8, "mapping": 2}
FLAT, SOLID = Config(shape=(8, 8), **SLIM), Config(shape=(8, 16, 8), **SLIM)
CLASSED = Config(shape=(8, 8), classes=3, **SLIM)
TINY = """# A style-based GAN of a few hundred weights.
[model]
name = "stylegan2"
shape = [8, 8]
doublings = 1
width = 4
latent = 4
mapping = 2
group = 2
path_every = 2
penalty_every = 2

[training]
steps = 4
batch = 4
average = 0.9
checkpoint_every = 2
preview_every = 4

[optimizer]
lr = 2e-3
betas = [0.0, 0.99]
"""


def built(config: Config, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return Model(config)


def lively(config: Config, seed: int = 0) -> Model:
    """A model as training leaves it: noise has strength and biases are not 0."""
    model = built(config, seed).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("strength", "bias")):
            parameter.data += 0.3
    return model


def batch_for(model: Model, count: int = 4, seed: int = 1) -> Batch:
    draws = torch.Generator().manual_seed(seed)
    image = torch.rand(count, 1, *model.shape, generator=draws) * 2 - 1
    classes = model.config.classes
    label = {"label": F.one_hot(torch.arange(count) % classes, classes).float()} if classes else {}
    return Batch(image, label, tuple(range(seed, seed + count)))


def noise_for(model: Model, count: int = 4, seed: int = 2) -> Tensor:
    return torch.randn(model.noise_shape(count), generator=torch.Generator().manual_seed(seed))


# ---- layers in closed form ----


def test_an_equalised_layer_keeps_variance_and_learns_at_its_rate() -> None:
    torch.manual_seed(0)
    for rate in (1.0, 0.01):
        layer = EqualLinear(400, 500, rate=rate, bias=2.0)
        made = layer(torch.randn(300, 400))
        assert made.mean().item() == pytest.approx(2, abs=0.05)
        assert made.std().item() == pytest.approx(1, rel=0.03)
        assert layer.weight.std().item() == pytest.approx(1 / rate, rel=0.02)
        # A step of Adam moves a weight by the rate, so the sum of 400 by rate * 400 / sqrt(400).
        before = layer(torch.ones(1, 400))
        with torch.no_grad():
            layer.weight += 0.01
        assert (layer(torch.ones(1, 400)) - before).mean().item() == pytest.approx(0.01 * rate * 20, rel=1e-2)


@pytest.mark.parametrize("dims", [2, 3])
def test_an_equalised_convolution_keeps_variance_and_its_gain_takes_the_bias_along(dims: int) -> None:
    torch.manual_seed(0)
    layer = EqualConv(dims, 32, 48, gain=3.0)
    layer.bias.data += 1
    made = layer(torch.randn(4, 32, *[12] * dims))[(..., *[slice(1, -1)] * dims)]
    assert made.mean().item() == pytest.approx(3, abs=0.1)
    assert made.std().item() == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_styled_convolution_has_variance_1_whatever_the_style(dims: int, up: bool) -> None:
    """Before its leaky ReLU; the filter of `up` takes the high frequencies out of white noise, so constants go in."""
    torch.manual_seed(0)
    layer = StyledConv(dims, 24, 200, 8, up=up)
    layer.act = torch.nn.Identity()
    for scale in (0.01, 1.0, 100.0):
        w = scale * torch.randn(6, 8)
        level = torch.randn(6, 24, *[1] * dims).expand(-1, -1, *[8] * dims) if up else torch.randn(6, 24, *[8] * dims)
        made = layer(level, w, None)[(..., *[slice(3, -3)] * dims)] / math.sqrt(2)
        if not up:
            assert made.var().item() == pytest.approx(1, rel=0.15)
        else:
            plain = StyledConv(dims, 24, 200, 8)
            plain.load_state_dict(layer.state_dict())
            plain.act = torch.nn.Identity()
            expected = plain(level, w, None)[(..., *[slice(3, -3)] * dims)] / math.sqrt(2)
            torch.testing.assert_close(made.flatten(2).mean(2), expected.flatten(2).mean(2), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_one_shared_convolution_equals_a_weight_for_each_image(dims: int, up: bool) -> None:
    """The published form (Karras 2020, eqs. 1 to 3): weights modulated, then demodulated, one convolution an image."""
    torch.manual_seed(0)
    layer = StyledConv(dims, 5, 7, 8, up=up)
    layer.bias.data.normal_()
    layer.strength.data.fill_(0.5)
    features, w = torch.randn(3, 5, *[6] * dims), torch.randn(3, 8)
    noise = torch.randn(3, 1, *[12 if up else 6] * dims)
    style = layer.style(w)
    rows = []
    for image, own, grain in zip(features, style, noise, strict=True):
        weight = layer.weight * own.view(1, -1, *[1] * dims) * layer.scale
        weight = weight / (weight.square().flatten(1).sum(1) + 1e-8).sqrt().view(-1, *[1] * (dims + 1))
        conv = {2: (F.conv2d, F.conv_transpose2d), 3: (F.conv3d, F.conv_transpose3d)}[dims]
        if up:
            made = conv[1](image[None], weight.transpose(0, 1), stride=2)
            made = blurred(made, 1) * 2**dims
        else:
            made = conv[0](image[None], weight, padding=1)
        made = made + 0.5 * grain + layer.bias.view(1, -1, *[1] * dims)
        rows.append(F.leaky_relu(made, 0.2) * math.sqrt(2))
    torch.testing.assert_close(layer(features, w, noise), torch.cat(rows), rtol=1e-4, atol=1e-5)


def test_the_layer_to_the_image_is_a_modulated_convolution_of_one_voxel() -> None:
    torch.manual_seed(0)
    layer, features, w = StyledImage(6, 8), torch.randn(3, 6, 4, 5), torch.randn(3, 8)
    layer.bias.data += 0.7
    weight = layer.style(w) * layer.weight / math.sqrt(6)
    torch.testing.assert_close(layer(features, w), torch.einsum("bchw,bc->bhw", features, weight)[:, None] + 0.7)


@pytest.mark.parametrize("dims", [2, 3])
def test_resampling_leaves_a_constant_where_nothing_else_is_met(dims: int) -> None:
    flat = torch.full((1, 2, *[8] * dims), 3.0)
    inside = (..., *[slice(2, -2)] * dims)
    torch.testing.assert_close(blurred(flat, 2)[inside], torch.full((1, 2, *[5] * dims), 3.0))
    torch.testing.assert_close(halved(flat)[(..., *[slice(1, -1)] * dims)], torch.full((1, 2, *[2] * dims), 3.0))
    torch.testing.assert_close(doubled(flat), torch.full((1, 2, *[16] * dims), 3.0))


def test_the_filter_is_1_3_3_1_along_every_axis() -> None:
    point = torch.zeros(1, 1, 7, 7)
    point[..., 3, 3] = 64
    taps = torch.tensor([1.0, 3, 3, 1])
    torch.testing.assert_close(blurred(point, 1)[0, 0, 1:5, 1:5], taps[:, None] * taps)
    point = torch.zeros(1, 1, 4, 4)
    point[..., 2, 1] = 16
    torch.testing.assert_close(doubled(point)[0, 0, 3:7, 1:5], taps[:, None] * taps)


@pytest.mark.parametrize("dims", [2, 3])
def test_halving_has_its_true_gradient_twice(dims: int) -> None:
    image = torch.randn(1, 2, *[4] * dims, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(halved, image)
    assert torch.autograd.gradgradcheck(halved, image)


def test_the_deviation_of_a_group_is_that_of_its_images() -> None:
    features = torch.zeros(4, 3, 2, 2)
    features[1], features[3] = 2.0, 6.0  # groups (0, 2) and (0, 6): deviations 1 and 3
    made = GroupDeviation(2)(features)
    assert made.shape == (4, 4, 2, 2)
    torch.testing.assert_close(made[:, 3, 0, 0], torch.tensor([1.0, 1.0, 3.0, 3.0]))
    assert torch.equal(made[:, :3], features)


@pytest.mark.parametrize(("size", "count"), [(4, 6), (4, 1), (3, 7), (100, 5)])
def test_a_batch_that_the_group_does_not_divide_falls_into_smaller_groups(size: int, count: int) -> None:
    made = GroupDeviation(size)(torch.randn(count, 2, 2, 2))
    assert made.shape == (count, 3, 2, 2)
    assert made.isfinite().all()


def test_a_running_mean_is_the_mean_of_a_short_run_and_forgets_in_a_long_one() -> None:
    mean = RunningMean(0.01)
    for number in range(10):
        mean.see(torch.tensor([float(number)]))
        mean.see(torch.tensor([float(number), float(number)]))
        assert mean.value.item() == pytest.approx(max(0, number - 1) / 2), "it waits for the end of the turn"
        mean.settle()
    assert mean.value.item() == pytest.approx(4.5)
    for _ in range(1000):
        mean.see(torch.tensor([7.0]))
        mean.settle()
    assert mean.value.item() == pytest.approx(7, abs=0.05)


# ---- regularisers in closed form ----


def test_r1_of_a_linear_discriminator_is_half_its_squared_weight() -> None:
    weight = torch.randn(1, 4, 4, requires_grad=True)
    penalty = r1_penalty(lambda image: (image * weight).sum((1, 2, 3)), torch.randn(5, 1, 4, 4))
    assert penalty.item() == pytest.approx(weight.square().sum().item() / 2, rel=1e-5)
    penalty.backward()
    torch.testing.assert_close(weight.grad, weight.detach())


def test_r1_of_a_squared_distance_is_the_mean_squared_distance_times_2() -> None:
    image = torch.randn(6, 1, 3, 3)
    penalty = r1_penalty(lambda image: image.square().sum((1, 2, 3)), image)
    assert penalty.item() == pytest.approx(2 * image.square().sum((1, 2, 3)).mean().item(), rel=1e-5)


def test_path_lengths_of_a_linear_generator_are_those_of_its_matrix() -> None:
    """Image = A w summed over the layers: J^T y is A^T y in every layer."""
    matrix = torch.randn(9, 5, requires_grad=True)
    noise = torch.randn(4, 1, 3, 3)
    lengths = path_lengths(
        lambda w: (w.sum(1) @ matrix.T).view(-1, 1, 3, 3), torch.randn(4, 6, 5, requires_grad=True), noise
    )
    expected = (noise.flatten(1) / 3 @ matrix).norm(dim=1)
    torch.testing.assert_close(lengths, expected)
    penalty = path_penalty(lengths, torch.tensor(2.0))
    assert penalty.item() == pytest.approx((expected - 2).square().mean().item(), rel=1e-5)
    penalty.backward()
    assert matrix.grad is not None
    assert matrix.grad.any()


def test_the_path_turn_steers_towards_the_mean_length_of_the_turns_before() -> None:
    model = built(FLAT)
    batch = batch_for(model)
    first = model(PATH, batch)["path"].item()
    model.after(PATH)
    usual = model.path_length.value.item()
    assert usual > 0
    second = model(PATH, batch)["path"].item()
    weight = model.config.path * model.config.path_every
    # Of the same lengths: E l^2 - E (l - a)^2 = a^2, when a is their mean.
    assert (first - second) / weight == pytest.approx(usual**2, rel=1e-4)


def test_lazy_turns_come_as_often_as_they_weigh_more() -> None:
    model = built(Config(shape=(8, 8), penalty_every=6, path_every=2, penalty=3.0, **SLIM))
    turns = [turn for step in range(24) for turn in model.turns(step)]
    assert (turns.count(GENERATOR), turns.count(DISCRIMINATOR)) == (24, 24)
    assert (turns.count(PATH), turns.count(SLOPE)) == (12, 4)
    assert [turn.kind for turn in model.turns(1)] == ["play", "play"]
    batch = batch_for(model)
    slope = r1_penalty(model.discriminator, batch.image)
    assert model(SLOPE, batch)["slope"].item() == pytest.approx(3 * 6 * slope.item(), rel=1e-5)


def test_without_regularisers_there_are_two_turns() -> None:
    model = built(Config(shape=(8, 8), penalty_every=0, path_every=0, **SLIM))
    assert {turn for step in range(20) for turn in model.turns(step)} == {GENERATOR, DISCRIMINATOR}


@pytest.mark.parametrize(("player", "every"), [("generator", "path_every"), ("discriminator", "penalty_every")])
def test_the_recipes_rates_are_set_back_by_the_lazy_rule(player: str, every: str) -> None:
    recipe = Recipe.load("stylegan2")
    k = getattr(recipe.config, every)
    c = k / (k + 1)
    optimizer = recipe.optimizer_of(player)
    assert optimizer.lr == pytest.approx(0.0025 * c, rel=1e-3)
    assert optimizer.betas == pytest.approx((0.0, 0.99**c), rel=1e-5)


@pytest.mark.parametrize("name", ["stylegan2", "stylegan2_128", "stylegan2_256", "stylegan2_512"])
def test_the_recipes_follow_the_published_rules_of_their_size(name: str) -> None:
    recipe = Recipe.load(name)
    side, batch = recipe.config.shape[0], recipe.training.batch
    assert recipe.config.seed == (4, 4)
    assert batch == min(4096 // side, 32)
    assert recipe.config.penalty == pytest.approx(0.0002 * side**2 / batch)
    most = (32768 if side >= 512 else 16384) // side
    assert recipe.config.widths == [min(most << level, 512) for level in range(recipe.config.doublings + 1)]
    assert recipe.training.average == pytest.approx(0.5 ** (batch / (batch * 10_000 / 32)), abs=1e-4)


# ---- the game ----


@pytest.mark.parametrize("config", [FLAT, SOLID, CLASSED], ids=["flat", "solid", "classed"])
def test_micro_batches_and_processes_have_the_losses_of_one_batch(config: Config) -> None:
    """As long as the group, and 2, divide what each takes."""
    model = lively(Config(**{**vars(config), "group": 2}))
    whole = batch_for(model, 8)
    halves = [Batch(whole.image[i : i + 4], {k: v[i : i + 4] for k, v in whole.condition.items()},
                    whole.seeds[i : i + 4]) for i in (0, 4)]  # fmt: skip
    for turn in (GENERATOR, DISCRIMINATOR, PATH, SLOPE):
        losses, parts = model(turn, whole), [model(turn, half) for half in halves]
        for term, loss in losses.items():
            mean = sum(part[term].item() for part in parts) / len(parts)
            assert mean == pytest.approx(loss.item(), rel=1e-4), (turn, term)


def test_a_group_that_does_not_fit_changes_the_losses() -> None:
    """What the promise above stands on."""
    model = lively(Config(**{**vars(FLAT), "group": 4}))
    whole = batch_for(model, 4)
    parts = [Batch(whole.image[i : i + 2], {}, whole.seeds[i : i + 2]) for i in (0, 2)]
    together, *apart = [model(GENERATOR, batch)["adversarial"].item() for batch in (whole, *parts)]
    assert sum(apart) / 2 != pytest.approx(together, rel=1e-4)


def test_the_discriminator_plays_the_images_that_the_generator_made_before_it_moved() -> None:
    model = lively(FLAT)
    batch = batch_for(model)
    seen: list[Tensor] = []
    model.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    model(GENERATOR, batch)
    for parameter in model.generator.parameters():
        parameter.data += 0.1
    model(DISCRIMINATOR, batch)
    made, real, judged = seen
    assert torch.equal(made, judged)
    assert torch.equal(real, batch.image)


def test_most_training_images_are_mixed_of_two_styles_and_the_others_of_one() -> None:
    def switches(share: float) -> Tensor:
        model = lively(Config(**{**vars(FLAT), "mixing": share}))
        w, _ = model._drawn(batch_for(model, 400), "image")
        return torch.stack([(a != b).any(1) for a, b in pairwise(w.unbind(1))], 1).sum(1)  # changes from layer to layer

    assert not switches(0.0).any()
    assert (switches(1.0) == 1).all()
    assert switches(0.9).float().mean().item() == pytest.approx(0.9, abs=0.05)


def test_an_image_is_a_function_of_its_noise_alone() -> None:
    model = lively(SOLID)
    noise = noise_for(model, 3)
    together = model.generate(noise, {})
    alone = torch.cat([model.generate(row[None], {}) for row in noise])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(together, model.generate(noise.clone(), {}))


def test_every_part_of_the_noise_tells() -> None:
    model = lively(FLAT)
    noise = noise_for(model, 1)
    plain = model.generate(noise, {})
    assert model.noise_shape(1)[1] == 8 + 16 + 64 + 64
    for first in (0, 8, 24, 88):
        other = noise.clone()
        other[:, first : first + 8] += 1
        assert not torch.equal(model.generate(other, {}), plain), first


def test_a_resumed_run_equals_the_unbroken_one_with_its_mean_path_length(tmp_path: Path) -> None:
    tiny.cases(tmp_path / "cases")
    tiny.recipe(tmp_path, TINY)
    whole = Run.open(tiny.trained(tmp_path, "whole").run)
    tiny.trained(tmp_path, "parts", steps=2)
    parts = Run.open(tiny.trained(tmp_path, "parts", resume=True).run)
    weights = load_file(whole.weights)
    assert weights["path_length.turns"] == 2
    assert weights["path_length.value"] > 0
    assert parts.identifier == whole.identifier
    assert [line.get("generator/path") for line in parts.log()] == [line.get("generator/path") for line in whole.log()]


@pytest.mark.slow
def test_two_processes_have_the_losses_and_the_mean_path_length_of_one(tmp_path: Path) -> None:
    """Each takes half of every batch: the group, and 2, divide it. Double backward included."""
    tiny.cases(tmp_path / "cases")
    tiny.recipe(tmp_path, TINY)
    for count in ("1", "2"):
        command = [sys.executable, "-m", "tomogen", "train", "tiny.toml", "cases", count, "--devices", count]
        several = [*command, "--device", "cpu", "--set", "optimizer.eps=1e-4"]
        subprocess.run(
            several, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, capture_output=True
        )
    one, two = (Run.open(tmp_path / count) for count in ("1", "2"))
    for ours, its in zip(one.log(), two.log(), strict=True):
        losses = {name: value for name, value in ours.items() if "/" in name}
        assert {name: its[name] for name in losses} == pytest.approx(losses, rel=2e-5, abs=1e-6)
    weights = [load_file(run.weights) for run in (one, two)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=2e-5)


def test_a_step_under_bfloat16_moves_every_weight_and_stays_finite() -> None:
    recipe = Recipe.load("stylegan2_light", ["model.shape=[16,16]", "model.doublings=2", "training.batch=4"])
    torch.manual_seed(0)
    game = Game(recipe.build(), recipe, fabric_of("cpu", precision="bf16"))
    before = {name: parameter.detach().clone() for name, parameter in game.synthesizer.named_parameters()}
    batch = batch_for(game.synthesizer)  # type: ignore[arg-type]
    for index, turn in enumerate(game.synthesizer.turns(0)):
        losses = game.play(turn, batch, 0, index)
        assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    still = [name for name, value in game.synthesizer.named_parameters() if torch.equal(value, before[name])]
    assert still == []


# ---- styles ----


def test_truncation_0_gives_the_mean_scan_and_1_leaves_the_styles() -> None:
    model = lively(FLAT)
    w, middle = model.styles(noise_for(model), {}), model.middle({})
    assert torch.equal(truncated(w, middle, 1.0), w)
    images = model.synthesise(truncated(w, middle, 0.0))
    torch.testing.assert_close(images, model.synthesise(middle).expand_as(images), rtol=1e-4, atol=1e-5)
    half = truncated(w, middle, 0.5)
    torch.testing.assert_close(half - middle, (w - middle) / 2)


def test_the_middle_is_the_mean_of_the_styles_and_always_the_same() -> None:
    model = lively(FLAT)
    middle = model.middle({})
    assert middle.shape == (1, model.style_layers, 8)
    assert torch.equal(middle, model.middle({}))
    many = model.styles(noise_for(model, 4000), {})
    torch.testing.assert_close(many.mean(0, keepdim=True), middle, rtol=0, atol=6 * many.std().item() / math.sqrt(4000))


@pytest.mark.parametrize("truncation", [-0.1, 1.5, math.nan])
def test_a_truncation_out_of_range_names_the_nearest(truncation: float) -> None:
    w = torch.zeros(1, 4, 3)
    with pytest.raises(UsageFault, match="from 0"):
        truncated(w, w, truncation)


@pytest.mark.parametrize("crossover", range(5))
def test_mixing_takes_coarse_layers_of_one_and_fine_ones_of_the_other(crossover: int) -> None:
    a, b = torch.randn(2, 3, 4, 5)
    both = mixed(a, b, crossover)
    assert torch.equal(both[:, :crossover], a[:, :crossover])
    assert torch.equal(both[:, crossover:], b[:, crossover:])


def test_the_extremes_of_mixing_reproduce_the_two_parents_exactly() -> None:
    model = lively(SOLID)
    noise = noise_for(model, 2)
    first, second = (model.styles(row[None], {}) for row in noise)
    images = model.generate(noise, {})
    for crossover, parent in ((model.style_layers, 0), (0, 1)):
        child = model.synthesise(mixed(first, second, crossover), noise[parent : parent + 1])
        assert torch.equal(child[0], model.generate(noise[parent : parent + 1], {})[0])
    between = model.synthesise(mixed(first, second, 2), noise[:1])
    assert not torch.equal(between[0], images[0])
    assert not torch.equal(between[0], images[1])


@pytest.mark.parametrize("crossover", [-1, 5])
def test_a_crossover_out_of_range_names_the_layers(crossover: int) -> None:
    with pytest.raises(UsageFault, match="from 0 to the model's 4 layers"):
        mixed(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), crossover)


def test_styles_of_unlike_models_do_not_mix() -> None:
    with pytest.raises(UsageFault, match="cannot be mixed"):
        mixed(torch.zeros(1, 4, 3), torch.zeros(1, 6, 3), 2)


def test_noise_is_off_as_a_whole_or_layer_by_layer() -> None:
    model = lively(FLAT)
    noise = noise_for(model, 2)
    w = model.styles(noise, {})
    loud, off = model.synthesise(w, noise), model.synthesise(w)
    assert torch.equal(model.synthesise(w, noise, quiet=range(3)), off)
    kinds = [loud, off, *[model.synthesise(w, noise, quiet=[layer]) for layer in range(3)]]
    assert not any(torch.equal(a, b) for i, a in enumerate(kinds) for b in kinds[:i])


# ---- classes ----


def labels_csv(folder: Path, text: str) -> str:
    path = folder / "labels.csv"
    path.write_text(text)
    return str(path)


def of_patients(count: int = 6, header: str = "case,label") -> str:
    """Even patients are healthy."""
    rows = [f"patient-{number:04d},{('healthy', 'ill')[number % 2]}" for number in range(count)]
    return "\n".join([header, *rows]) + "\n"


def test_the_label_changes_image_and_judgement() -> None:
    model = lively(CLASSED)
    noise = noise_for(model, 1)
    labels = torch.eye(3)
    images = [model.generate(noise, {"label": label[None]}) for label in labels]
    assert not any(torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])
    scores = [model.discriminator(images[0], label[None]).item() for label in labels]
    assert len(set(scores)) == 3


def test_a_model_with_classes_picks_one_by_the_noise_where_none_is_given() -> None:
    model = lively(CLASSED)
    noise = noise_for(model, 3)
    noise[:, -1] = torch.tensor([-2.0, 0.0, 2.0])  # the lower, middle and upper third of a normal number
    torch.testing.assert_close(model.generate(noise, {}), model.generate(noise, {"label": torch.eye(3)}))


def test_each_class_has_its_mean_scan() -> None:
    model = lively(CLASSED)
    middles = model.middle({"label": torch.eye(3)})
    assert middles.shape == (3, model.style_layers, 8)
    assert not torch.equal(middles[0], middles[1])
    torch.testing.assert_close(model.middle({}), middles.mean(0, keepdim=True))


def test_the_feed_gives_each_image_the_class_of_its_patient(tmp_path: Path) -> None:
    folder = CaseFolder.open(tiny.cases(tmp_path / "cases"))
    model = built(Config(shape=(8, 8), classes=2, **SLIM))
    feed = model.feed(folder, Data(labels=labels_csv(tmp_path, of_patients())))
    assert isinstance(feed, Labelled)
    for number in range(40):
        case = feed.scans.place(3, number).item.case
        label = feed.draw(3, number).condition["label"]
        assert label.dtype.name == "float32"
        assert label.tolist() == [1 - int(case.patient[-1]) % 2, int(case.patient[-1]) % 2]
    assert next(stream(feed, batch=3, seed=0)).condition["label"].shape == (3, 2)


def test_a_case_may_differ_from_its_patient(tmp_path: Path) -> None:
    folder = CaseFolder.open(tiny.cases(tmp_path / "cases"))
    labels = Labels.read(labels_csv(tmp_path, of_patients() + "case-0000,ill\n"))
    labels.fit(folder, "train")
    assert [labels.number(case) for case in folder.cases] == [1, 1, 0, 1, 0, 1]


def test_a_run_with_labels_trains_from_its_csv(tmp_path: Path) -> None:
    tiny.cases(tmp_path / "cases")
    tiny.recipe(tmp_path, TINY)
    given = ["model.classes=2", f"data.labels={labels_csv(tmp_path, of_patients())}"]
    run = Run.open(tiny.trained(tmp_path, "run", set=given, steps=2).run)
    assert load_file(run.weights)["discriminator.label.weight"].shape == (8, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'case'"),
        ("case,class\na,b\n", "no column 'label'; the first line has: case,class"),
        ("case,label\n", "nothing to tell apart: the CSV has no rows"),
        ("case,label\na,x\nb,x\n", "nothing to tell apart: all are 'x'"),
        ("case,label\na,x\nb,\n", "line 3 has no label"),
        ("case,label\n,x\nb,y\n", "line 2 has no case"),
        ("case,label\na\nb,y\n", "line 2 has no label"),
        ("case,label\na,x\na,y\n", "line 3: a is 'x' and 'y'"),
    ],
)
def test_a_csv_that_cannot_label_says_where_and_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataInvalid) as caught:
        Labels.read(labels_csv(tmp_path, text))
    assert message in caught.value.what
    assert caught.value.at == str(tmp_path / "labels.csv")
    assert caught.value.fix


def test_labels_of_a_spreadsheet_are_read(tmp_path: Path) -> None:
    labels = Labels.read(labels_csv(tmp_path, "\ufeffLabel, Case ,note\r\nx, a ,1\r\n y,b,2\r\n"))
    assert labels.of == {"a": "x", "b": "y"}
    assert labels.classes == ["x", "y"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00case"])
def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises((InputMissing, DataInvalid), match=r"no labels|not a CSV"):
        Labels.read(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        (of_patients(7), "1 names are of no case in cases: patient-0006", "patient-000"),
        (of_patients(5), "1 of 6 cases in split 'train' have no label: case-0005", "case-0005,healthy"),
        (of_patients().replace("0003", "03"), "1 names are of no case in cases: patient-03", "patient-0003"),
    ],
)
def test_labels_and_cases_that_miss_one_another_are_named(tmp_path: Path, text: str, message: str, fix: str) -> None:
    folder = CaseFolder.open(tiny.cases(tmp_path / "cases"))
    with pytest.raises(DataInvalid) as caught:
        Labels.read(labels_csv(tmp_path, text)).fit(folder, "train")
    assert caught.value.what == message
    assert fix in str(caught.value.fix)


@pytest.mark.parametrize(
    ("classes", "given", "fix"),
    [
        (0, True, "--set model.classes=2"),
        (3, True, "--set model.classes=2"),
        (2, False, "--set data.labels=FILE.csv, or --set model.classes=0"),
    ],
)
def test_classes_and_labels_must_agree(tmp_path: Path, classes: int, given: bool, fix: str) -> None:
    folder = CaseFolder.open(tiny.cases(tmp_path / "cases"))
    model = built(Config(shape=(8, 8), classes=classes, **SLIM))
    data = Data(labels=labels_csv(tmp_path, of_patients()) if given else None)
    with pytest.raises(RecipeMismatch) as caught:
        model.feed(folder, data)
    assert caught.value.fix == fix


def test_labels_belong_to_scans() -> None:
    assert labelled("no scans", None, None, 0) == "no scans"  # type: ignore[arg-type]


# ---- what cannot work ----


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": (60, 64)}, "`shape`: 60 is not a multiple of 16; nearest 64"),
        ({"latent": 0}, "`latent`: 0; at least 1"),
        ({"mapping": 0}, "`mapping`: 0; at least 1"),
        ({"group": 0}, "`group`: 0; at least 1"),
        ({"classes": -1}, "`classes`: -1; 0 for none, or more"),
        ({"classes": 1}, "`classes`: 1 tells nothing apart; 0 for none, or 2 and more"),
        ({"mixing": 1.5}, "`mixing`: 1.5; from 0 to 1, usually 0.9"),
        ({"penalty": 0.0}, "`penalty`: 0; above 0, or `penalty_every` = 0 for none"),
        ({"path": math.inf}, "`path`: inf; above 0, or `path_every` = 0 for none"),
    ],
)
def test_a_config_that_cannot_work_says_what_would(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeMismatch) as caught:
        Config(**fields)
    assert caught.value.what == message


def test_one_image_at_a_time_trains_too() -> None:
    model = built(SOLID)
    for turn in (GENERATOR, DISCRIMINATOR, PATH, SLOPE):
        assert all(loss.isfinite() for loss in model(turn, batch_for(model, 1)).values())
