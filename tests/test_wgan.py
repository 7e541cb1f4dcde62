"""The WGAN: its networks, its game, and a test for each defect of the published systems that it puts right."""

import copy
from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import nn

from tomogen.batch import Batch
from tomogen.errors import RecipeMismatch
from tomogen.intensity import Window
from tomogen.models.wgan import Config, Model
from tomogen.recipe import Recipe
from tomogen.synthesizer import Turn

CRITIC, GENERATOR = Turn("critic"), Turn("generator", fresh=False)
SMALL = Config(shape=(16, 16, 16), latent=8, doublings=2, width=4, widest=8)
FLAT = Config(shape=(16, 16), latent=8, doublings=2, width=4, widest=8, penalty=0, clip=0.01)
DENSE = Config(shape=(16, 16), latent=8, network="mlp", penalty=0, clip=0.01)


def built(config: Config, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return Model(config)


def batch_for(model: Model, count: int = 4, seed: int = 1) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    return Batch(torch.rand(count, 1, *model.shape, generator=draw) * 2 - 1, {}, tuple(range(seed, seed + count)))


def parameters(player: nn.Module) -> int:
    return sum(parameter.numel() for parameter in player.parameters())


# ---- the published numbers ----


def test_the_mlp_has_the_published_numbers_of_parameters() -> None:
    model = built(Recipe.load("wgan2d_mlp").config)
    assert parameters(model.generator) == 4_904_832
    assert parameters(model.critic) == 2_229_249


def test_the_3d_networks_are_the_published_ones_less_the_critics_norm_and_idle_bias() -> None:
    model = built(Recipe.load("wgan3d").config)
    assert parameters(model.generator) == 37_449_280
    batch_norm, bias_of_the_score = 2 * (128 + 256 + 512), 1
    assert parameters(model.critic) == 11_049_665 - batch_norm - bias_of_the_score


@pytest.mark.parametrize("name", ["wgan2d", "wgan2d_mlp"])
def test_the_2d_recipes_play_by_the_published_rules(name: str) -> None:
    recipe = Recipe.load(name)
    assert (recipe.optimizer.kind, recipe.optimizer.lr) == ("rmsprop", 5e-5)
    assert (recipe.config.clip, recipe.config.penalty, recipe.config.critic_turns) == (0.01, 0, 5)


@pytest.mark.parametrize("name", ["wgan3d", "wgan3d_slab"])
def test_the_3d_recipes_play_by_the_rules_of_the_gradient_penalty(name: str) -> None:
    recipe = Recipe.load(name)
    assert (recipe.optimizer.kind, recipe.optimizer.lr, recipe.optimizer.betas) == ("adam", 2e-4, (0.5, 0.9))
    assert (recipe.config.latent, recipe.config.penalty, recipe.config.clip) == (1000, 10, 0)
    assert recipe.data.window == (-1000, 400)


# ---- the published defects ----


@pytest.mark.parametrize("config", [SMALL, FLAT, DENSE])
def test_defect_data_on_another_range_than_the_generator(config: Config) -> None:
    """Data on 0..1 against a generator on -1..1: a critic need only look at the sign."""
    model, window = built(config), Window(-1000, 400)
    for layer in model.generator.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=10)
    images = model.generate(torch.randn(model.noise_shape(16)), {})
    assert images.min() < -0.9
    assert images.max() > 0.9
    assert images.abs().max() <= 1
    data = window.to_unit(torch.tensor([-2000.0, -1000.0, -300.0, 400.0, 3000.0]))
    assert data.tolist() == pytest.approx([-1, -1, 0, 1, 1])


def test_defect_penalty_norm_over_one_voxel_instead_of_the_whole_sample() -> None:
    """A linear critic of slope w: the norm over the channel axis alone would make the penalty mean (|w_i| - 1)^2."""
    model = built(SMALL)
    weight = torch.full((16, 16, 16), 0.5)  # norm over a sample: 0.5 * sqrt(4096) = 32

    class Linear(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return (image * weight).flatten(1).sum(1)

    model.critic = Linear()
    losses = model(CRITIC, batch_for(model))
    assert losses["penalty"].item() == pytest.approx(10 * (32 - 1) ** 2, rel=1e-4)


@pytest.mark.parametrize("config", [SMALL, FLAT, DENSE, Config(shape=(16, 32, 32), doublings=2, width=4)])
def test_defect_a_map_of_scores_summed_in_one_place_and_averaged_in_another(config: Config) -> None:
    model = built(config)
    assert model.critic(batch_for(model, 3).image).shape == (3,)


@pytest.mark.parametrize("name", ["wgan2d", "wgan2d_mlp", "wgan3d", "wgan3d_slab"])
def test_defect_five_generator_moves_per_critic_move(name: str) -> None:
    model = built(Recipe.load(name, ["model.width=1", "model.widest=1", "model.latent=1"]).config)
    for step in (0, 1, 1000):
        assert Counter(turn.player for turn in model.turns(step)) == {"critic": 5, "generator": 1}


@pytest.mark.parametrize("config", [SMALL, FLAT, DENSE])
def test_defect_batch_norm_in_a_critic_that_is_judged_sample_by_sample(config: Config) -> None:
    model = built(config)
    assert not [layer for layer in model.critic.modules() if "Norm" in type(layer).__name__]
    images = batch_for(model).image
    together, alone = model.critic(images), torch.cat([model.critic(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_defect_momentum_of_09_under_a_gradient_penalty() -> None:
    for name in ("wgan3d", "wgan3d_slab", "wgan3d_tiny"):
        assert Recipe.load(name).optimizer.betas[0] <= 0.5


def test_defect_a_2d_model_without_convolution() -> None:
    """Convolutions give neighbours shared weights: a shift of the image by a seed voxel shifts the features."""
    model = built(FLAT)
    image = torch.zeros(1, 1, 16, 16)
    image[..., 6:8, 6:8] = 1
    here, there = model.critic.body(image), model.critic.body(image.roll(4, -1))
    assert here.abs().max() > 0
    torch.testing.assert_close(here[..., 1:2], there[..., 2:3])


def test_defect_a_momentum_in_the_place_of_batch_norms_eps() -> None:
    norms = [layer for layer in built(DENSE).generator.modules() if isinstance(layer, nn.BatchNorm1d)]
    assert [norm.eps for norm in norms] == [1e-5] * 3


# ---- the game ----


@pytest.mark.parametrize("config", [SMALL, FLAT, DENSE])
def test_an_image_does_not_depend_on_those_made_beside_it(config: Config) -> None:
    model = built(config).eval()
    noise = torch.randn(model.noise_shape(4))
    together, alone = model.generate(noise, {}), torch.cat([model.generate(row[None], {}) for row in noise])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [SMALL, FLAT])
def test_training_images_do_not_depend_on_the_batch_either(config: Config) -> None:
    model = built(config).train()
    noise = torch.randn(model.noise_shape(4))
    together, alone = model.generate(noise, {}), torch.cat([model.generate(row[None], {}) for row in noise])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("turn", [CRITIC, GENERATOR])
@pytest.mark.parametrize("config", [SMALL, FLAT])
def test_halves_of_a_batch_average_to_the_whole(config: Config, turn: Turn) -> None:
    model = built(config)
    whole = batch_for(model)
    halves = [Batch(whole.image[rows], {}, whole.seeds[rows]) for rows in (slice(0, 2), slice(2, 4))]
    first, second = (model(turn, half) for half in halves)
    for name, term in model(turn, whole).items():
        assert term.item() == pytest.approx((first[name].item() + second[name].item()) / 2, rel=1e-4, abs=1e-6)


def test_a_turn_repeats_itself_with_the_same_seeds_and_not_with_others() -> None:
    model = built(SMALL)
    batch = batch_for(model)
    again, other = model(CRITIC, batch), model(CRITIC, batch._replace(seeds=(9, 8, 7, 6)))
    first = model(CRITIC, batch)
    assert first["adversarial"].item() == again["adversarial"].item() != other["adversarial"].item()


def test_the_generator_meets_other_noise_than_the_critic_did() -> None:
    model = built(SMALL)
    seen = []
    model.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = batch_for(model)
    model(CRITIC, batch)
    model(GENERATOR, batch)
    assert not torch.equal(*seen)


def test_the_critics_turn_builds_no_graph_through_the_generator() -> None:
    model = built(SMALL)
    sum(model(CRITIC, batch_for(model)).values()).backward()
    assert all(parameter.grad is None for parameter in model.generator.parameters())
    assert all(parameter.grad is not None for parameter in model.critic.parameters())


def test_clipping_follows_the_critics_moves_only_and_holds_its_weights() -> None:
    model = built(FLAT)
    before = copy.deepcopy(model.state_dict())
    model.after(GENERATOR)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model.after(CRITIC)
    assert max(parameter.abs().max() for parameter in model.critic.parameters()) <= 0.01
    assert all(torch.equal(before[f"generator.{name}"], t) for name, t in model.generator.state_dict().items())


def test_a_penalised_critic_is_not_clipped() -> None:
    model = built(SMALL)
    before = copy.deepcopy(model.state_dict())
    model.after(CRITIC)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_scores_and_images_are_float32_under_bfloat16() -> None:
    model = built(SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        images = model.generate(torch.randn(model.noise_shape(2)), {})
        scores = model.critic(images)
        losses = model(CRITIC, batch_for(model))
    assert {images.dtype, scores.dtype, *(loss.dtype for loss in losses.values())} == {torch.float32}


def test_the_critics_moves_raise_real_scores_over_fake_ones_and_hold_the_slope_near_1() -> None:
    model = built(Config(shape=(8, 8, 8), latent=8, doublings=1, width=8))
    batch = Batch(0.2 * torch.randn(16, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.5, {}, ())
    optimizer = torch.optim.Adam(model.critic.parameters(), 1e-2, (0.5, 0.9))
    torch.manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        losses = model(CRITIC, batch)
        sum(losses.values()).backward()
        optimizer.step()
    assert losses["adversarial"].item() < -5
    assert losses["penalty"].item() < 0.2 * -losses["adversarial"].item()


# ---- shapes ----


@pytest.mark.parametrize("shape", [(32, 16), (8, 8, 8), (8, 16, 32), (16, 32, 32)])
def test_any_shape_grows_from_its_seed_grid(shape: tuple[int, ...]) -> None:
    config = Config(shape=shape, latent=4, doublings=3, width=2)
    model = built(config)
    assert config.seed == tuple(size // 8 for size in shape)
    assert model.generate(torch.randn(model.noise_shape(2)), {}).shape == (2, 1, *shape)
    assert model.critic(torch.randn(2, 1, *shape)).shape == (2,)


def test_channels_double_with_every_halving_up_to_the_widest() -> None:
    assert Config(width=8, widest=40, doublings=4).widths == [8, 16, 32, 40]
    assert all(wide <= 2 * narrow for narrow, wide in pairwise(Config().widths))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": (60, 64, 64)}, "`shape`: 60 is not a multiple of 16; nearest 64"),
        ({"shape": (8, 64, 64)}, "`shape`: 8 is not a multiple of 16; nearest 16"),
        ({"shape": (64,)}, "`shape`: 1 axes; an image has 2 or 3"),
        ({"latent": 0}, "`latent`: 0; at least 1"),
        ({"critic_turns": 0}, "`critic_turns`: 0; at least 1"),
        ({"clip": 0.01}, "`penalty` 10 and `clip` 0.01: one of the two bounds the critic's slope"),
        ({"penalty": 0}, "`penalty` 0 and `clip` 0: one of the two bounds the critic's slope"),
        ({"penalty": -1, "clip": 1}, "`penalty` -1 and `clip` 1: one of the two bounds the critic's slope"),
    ],
)
def test_a_config_that_cannot_work_says_what_would(fields: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeMismatch) as caught:
        Config(**fields)
    assert caught.value.what == message


# ---- learning ----


@pytest.mark.slow
def test_the_tiny_recipe_learns_a_body_with_two_lungs() -> None:
    """After 300 steps, a quarter of the recipe: air around, tissue at the wall and in the middle, lungs beside it."""
    from tomogen.phantoms import chest
    from tomogen.training.devices import fabric_of
    from tomogen.training.trainer import Game, train

    recipe = Recipe.load("wgan3d_tiny", ["training.steps=300"])
    window = Window(*recipe.data.window)
    scans = torch.stack([window.to_unit(torch.from_numpy(chest(seed, (32, 32, 32)).hu))[None] for seed in range(24)])
    torch.manual_seed(0)
    game = Game(recipe.build(), recipe, fabric_of("cpu", precision=recipe.training.precision))
    draw = torch.Generator().manual_seed(0)
    batches = iter(lambda: Batch(scans[torch.randint(len(scans), (recipe.training.batch,), generator=draw)], {}), None)
    list(train(game, batches))
    made = game.generate(torch.randn(game.synthesizer.noise_shape(24), generator=draw), {})
    ours, theirs = made.mean(0).flatten(), scans.mean(0).flatten()
    assert torch.corrcoef(torch.stack([ours, theirs]))[0, 1] > 0.9
    middle = made[:, 0, 16].mean(0)  # an axial plane: rows from front to back, columns from right to left
    lungs = [middle[16:20, 7:11].mean(), middle[16:20, 22:26].mean()]
    tissue = [middle[14:18, 2:5].mean(), middle[20:24, 15:18].mean(), middle[14:18, 28:30].mean()]
    assert max(lungs) < min(tissue) - 0.3
    assert middle[0].mean() < -0.9
