"""The variational autoencoder: its loss by closed forms, its code, its prior, tiles, and each published defect.

Defects of the published system that cannot occur here, without a test of their own: groups of slices of one patient on
both sides of a split (patients are split when cases are prepared, see test_split.py), the group splitter that moves
files while it globs (a feed draws boxes from whole volumes), "best on test" (no score chooses weights here), a window
that saturates lung and bone (`[data] window`, see the recipes), a crop that assumes 512 x 512 (see test_prepare.py).
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tiny
from tomogen.batch import Batch
from tomogen.errors import RecipeMismatch
from tomogen.evaluation.local import gaussian
from tomogen.evaluation.structure import means
from tomogen.layers.activity import Activity
from tomogen.layers.posterior import Posterior
from tomogen.layers.prior import CodePrior
from tomogen.layers.residual import Residual
from tomogen.layers.warmup import Warmup
from tomogen.losses.latent import divergence, kl_loss
from tomogen.losses.similarity import ssim, ssim_loss
from tomogen.models.vae import CERTAIN, Config, Model
from tomogen.recipe import Recipe, names
from tomogen.run import Run
from tomogen.synthesizer import Turn

SLIM: dict[str, Any] = {"doublings": 2, "width": 4, "widest": 8, "fine": 3, "latent": 2, "rank": 3, "kl_steps": 10}
SOLID = Config(shape=(8, 16, 12), **SLIM)
FLAT = Config(shape=(4, 16, 12), flat=True, **SLIM)
SLICE = Config(shape=(16, 12), **SLIM)
RECIPES = sorted(name for name in names() if name.startswith("vae"))
PLAY = Turn("autoencoder")
TINY = """# A VAE of a few hundred weights.
[model]
name = "vae"
shape = [8, 8, 8]
doublings = 1
width = 4
fine = 2
latent = 2
rank = 2
kl_steps = 4

[training]
steps = 6
batch = 4
average = 0.9
checkpoint_every = 2
preview_every = 2

[optimizer]
lr = 1e-3
betas = [0.9, 0.999]
"""


def built(config: Config, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return Model(config)


def images(shape: tuple[int, ...], count: int = 2, seed: int = 1) -> Tensor:
    return torch.rand(count, 1, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batch_for(model: Model, count: int = 2, seed: int = 1) -> Batch:
    return Batch(images(model.shape, count, seed), {}, tuple(range(seed, seed + count)))


def posteriors(count: int, *shape: int, seed: int = 0) -> Posterior:
    draws = torch.Generator().manual_seed(seed)
    return Posterior(*(torch.randn(count, *shape, generator=draws) for _ in range(2)))


# The loss.


def test_the_divergence_is_that_of_torch() -> None:
    posterior = posteriors(2, 3, 4)
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(posterior.mean, posterior.deviation), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(divergence(*posterior), theirs)


def test_the_divergence_keeps_its_digits_near_the_prior() -> None:
    tiny_bit = torch.tensor([1e-5])
    assert divergence(torch.zeros(1), tiny_bit).item() == pytest.approx(1e-10 / 4, rel=1e-2)


def test_without_free_bits_the_kl_is_the_sum_over_the_code() -> None:
    posterior = posteriors(3, 2, 4, 5)
    assert kl_loss(*posterior).item() == pytest.approx(divergence(*posterior).sum().item() / 3, rel=1e-5)


def test_a_channel_below_its_free_bits_costs_just_these_and_is_not_pulled() -> None:
    mean = torch.zeros(2, 2, 10)
    mean[:, 1] = 2.0  # KL 2 nats a number; channel 0 has none
    mean.requires_grad_()
    loss = kl_loss(mean, torch.zeros(2, 2, 10), free_bits=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(10 * (0.5 + 2.0))
    assert mean.grad is not None
    assert not mean.grad[:, 0].any()
    assert mean.grad[:, 1].all()


def test_free_bits_do_not_depend_on_how_a_batch_is_cut() -> None:
    posterior = posteriors(4, 3, 5)
    parts = [kl_loss(*(part[rows] for part in posterior), 0.7) for rows in (slice(0, 1), slice(1, 2), slice(2, 4))]
    assert kl_loss(*posterior, 0.7).item() == pytest.approx(float(parts[0] + parts[1] + 2 * parts[2]) / 4, rel=1e-5)


@pytest.mark.parametrize("shape", [(21, 17), (13, 15, 14)])
def test_similarity_is_that_of_the_scores(shape: tuple[int, ...]) -> None:
    x, y = images(shape, seed=1), images(shape, seed=2) * 0.3
    for ours, a, b in zip(ssim(x, y), x, y, strict=True):
        arrays = [((image[0] + 1) / 2).double().numpy() for image in (a, b)]
        assert ours.item() == pytest.approx(means(*arrays, gaussian(1.5, 11), 1.0).ssim, abs=2e-5)


def smooth(shape: tuple[int, ...]) -> Tensor:
    """An image with structure at the window's scale."""
    grid = torch.meshgrid(*[torch.linspace(0, 6, size) for size in shape], indexing="ij")
    return torch.stack([part.sin() for part in grid]).mean(0)[None, None]


def test_every_second_window_gives_nearly_the_same_similarity() -> None:
    x = smooth((24, 26, 28))
    y = x + 0.1 * images((24, 26, 28), 1)
    assert ssim(x, y, stride=2).item() == pytest.approx(ssim(x, y).item(), abs=2e-3)


def test_the_loss_of_equal_images_is_nothing_and_grows_with_noise() -> None:
    x = smooth((12, 14, 16))
    losses = [ssim_loss(x + level * images((12, 14, 16), 1), x).item() for level in (0.0, 0.1, 0.3, 1.0)]
    assert losses[0] == 0
    assert losses == sorted(losses)


def test_the_gradient_of_similarity_is_that_of_differences() -> None:
    x, y = smooth((13, 12)).double().float(), images((13, 12), 1).requires_grad_()
    (gradient,) = torch.autograd.grad(ssim(x, y).sum(), y)
    way = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    step = 1e-2
    rise = (ssim(x, y + step * way) - ssim(x, y - step * way)).item() / (2 * step)
    assert (gradient * way).sum().item() == pytest.approx(rise, rel=2e-2)


@pytest.mark.parametrize("shape", [(4, 16, 16), (3, 5), (1, 12, 12)])
def test_a_window_is_no_longer_than_the_axis(shape: tuple[int, ...]) -> None:
    x = images(shape)
    assert ssim(x, x).tolist() == [1, 1]
    assert (ssim(x, -x) < 1).all()


def test_images_of_unlike_shapes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="unlike shapes"):
        ssim(images((12, 12)), images((12, 13)))


def test_the_loss_is_the_evidence_lower_bound_of_laplace_noise() -> None:
    config = replace(SOLID, ssim=0.0, free_bits=0.0, kl_steps=0, noise_scale=0.1)
    model = built(config)
    batch = batch_for(model)
    losses = model(PLAY, batch)
    posterior = model.encode(batch.image)
    decoded = model.autoencoder.decode(posterior.at(batch.normal("code", *config.code)))
    likelihood = torch.distributions.Laplace(decoded, 0.1).log_prob(batch.image).flatten(1).sum(1)
    bound = likelihood - divergence(*posterior).flatten(1).sum(1)
    voxels = math.prod(config.shape)
    expected = -0.1 * (bound.mean() / voxels + math.log(2 * 0.1))
    assert sum(losses.values()).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_kl_weighs_nothing_at_first_and_all_after_the_warm_up() -> None:
    model = built(SOLID)
    batch = batch_for(model)
    weights = []
    for _ in range(12):
        weights.append(model(PLAY, batch)["KL"].item())
        model.after(PLAY)
    assert weights[0] == 0
    np.testing.assert_allclose(np.array(weights[:11]) / weights[10], np.linspace(0, 1, 11), rtol=1e-5)
    assert weights[11] == weights[10]


def test_a_warm_up_of_no_moves_is_over() -> None:
    assert Warmup(0)().item() == 1


def test_losses_and_gradients_do_not_depend_on_micro_batches() -> None:
    gradients = []
    for cuts in ([4], [1, 3]):
        model = built(replace(SOLID, kl_steps=0))
        batch = batch_for(model, 4)
        first = 0
        for size in cuts:
            rows = slice(first, first + size)
            part = Batch(batch.image[rows], {}, batch.seeds[rows])
            (sum(model(PLAY, part).values()) * size / 4).backward()
            first += size
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


# The code.


@pytest.mark.parametrize("config", [SOLID, FLAT, SLICE], ids=["solid", "flat", "slice"])
def test_a_code_has_the_shape_that_the_strides_say(config: Config) -> None:
    model = built(config).eval()
    posterior = model.encode(images(config.shape))
    assert posterior.mean.shape == posterior.log_variance.shape == (2, *config.code)
    assert len(config.code) == 1 + len(config.shape)
    assert model.decode(posterior.mean).shape == (2, 1, *config.shape)


def test_a_new_encoder_is_certain_so_that_codes_are_learned_before_they_blur() -> None:
    posterior = built(SOLID).encode(images(SOLID.shape))
    assert posterior.log_variance.mean().item() == pytest.approx(CERTAIN, abs=1.5)


def test_alpha_0_is_the_reconstruction_and_1_a_draw_of_the_posterior() -> None:
    posterior = posteriors(2, 3, 4)
    noise = torch.randn(2, 3, 4)
    assert torch.equal(posterior.at(noise, 0.0), posterior.mean)
    torch.testing.assert_close(posterior.at(noise), posterior.mean + noise * (posterior.log_variance.exp()).sqrt())
    torch.testing.assert_close(posterior.at(noise, 0.5) * 2 - posterior.mean, posterior.at(noise))


def test_slabs_are_coded_each_by_itself() -> None:
    model = built(FLAT).eval()
    scan = images((12, 16, 12))
    whole = model.encode(scan).mean
    each = torch.cat([model.encode(slab).mean for slab in scan.split(4, dim=2)], dim=2)
    torch.testing.assert_close(whole, each)
    restored = torch.cat([model.decode(code) for code in whole.split(1, dim=2)], dim=2)
    torch.testing.assert_close(model.decode(whole), restored)


def test_slices_keep_their_order_in_a_slab() -> None:
    model = built(FLAT)
    slabs: list[Tensor] = []
    model.autoencoder.encoder.register_forward_pre_hook(lambda _, given: slabs.append(given[0]))
    scan = torch.arange(24.0).view(2, 1, 12, 1, 1).expand(2, 1, 12, 16, 12)
    model.encode(scan)
    assert slabs[0][:, :, 0, 0].flatten().tolist() == list(range(24))


@pytest.mark.parametrize("config", [SOLID, FLAT, SLICE], ids=["solid", "flat", "slice"])
def test_a_scan_that_the_strides_do_not_divide_is_refused_with_the_nearest_size(config: Config) -> None:
    wrong = (*config.shape[:-1], 14)
    with pytest.raises(RecipeMismatch, match=r"14 voxels is not a multiple of 4; nearest (12|16)"):
        built(config).encode(images(wrong))


# Tiles.


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("kind", ["solid", "flat"])
def test_an_encoded_tile_with_its_halo_is_as_the_whole(kind: str, blocks: int) -> None:
    config = replace(SOLID if kind == "solid" else FLAT, blocks=blocks)
    model, step = built(config).eval(), 4
    halo = model.halo.encode[-1]
    scan = images((*config.shape[:2], 2 * halo + 48), 1)
    whole = model.encode(scan)
    start, size = halo + 16, 16
    tile = model.encode(scan[..., start - halo : start + size + halo])
    core = slice(halo // step, (halo + size) // step)
    for ours, theirs in zip(tile, whole, strict=True):
        torch.testing.assert_close(
            ours[..., core], theirs[..., start // step : (start + size) // step], atol=1e-5, rtol=0
        )
    less = halo - step * blocks - step
    short = model.encode(scan[..., start - less : start + size + less]).mean
    core = slice(less // step, (less + size) // step)
    assert (short[..., core] - whole.mean[..., start // step : (start + size) // step]).abs().max() > 1e-5


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("kind", ["solid", "flat"])
def test_a_decoded_tile_with_its_halo_is_as_the_whole(kind: str, blocks: int) -> None:
    config = replace(SOLID if kind == "solid" else FLAT, blocks=blocks)
    model, step = built(config).eval(), 4
    halo = model.halo.decode[-1]
    code = torch.randn(1, *config.code[:-1], 2 * halo + 12, generator=torch.Generator().manual_seed(2))
    whole = model.autoencoder.decode(code)
    start, size = halo + 4, 4
    here = whole[..., step * start : step * (start + size)]

    def tile(halo: int) -> Tensor:
        made = model.autoencoder.decode(code[..., start - halo : start + size + halo])
        return made[..., step * halo : step * (halo + size)]

    torch.testing.assert_close(tile(halo), here, atol=1e-5, rtol=0)
    assert (tile(halo - 1) - here).abs().max() > 1e-7  # no more than is needed


def test_a_tile_at_the_border_needs_no_halo_there() -> None:
    model = built(SOLID).eval()
    halo = model.halo.encode[-1]
    scan = images((8, 16, halo + 24), 1)
    tile = model.encode(scan[..., : 8 + halo]).mean
    torch.testing.assert_close(tile[..., :2], model.encode(scan).mean[..., :2], atol=1e-5, rtol=0)


def test_no_norm_pools_over_space() -> None:
    """Every norm between image and image looks at a voxel alone: group norm makes each tile another brightness."""
    features = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    block = Residual(2, 8)
    changed = features.clone()
    changed[..., 5] += 100
    difference = (block(changed) - block(features)).abs().amax((0, 1, 2))
    assert not difference[: 5 - Residual.REACH].any()
    assert difference[5 - Residual.REACH :].all()


# Memory.


def test_checkpointing_changes_no_number() -> None:
    found = []
    for checkpointing in (False, True):
        model = built(replace(SOLID, checkpointing=checkpointing))
        losses = model(PLAY, batch_for(model))
        sum(losses.values()).backward()
        gradients = [weight.grad for weight in model.autoencoder.parameters()]
        found.append((sum(losses.values()).item(), gradients))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_checkpointing_keeps_less() -> None:
    def kept(checkpointing: bool) -> int:
        model = built(replace(SOLID, checkpointing=checkpointing, ssim=0.0))
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(PLAY, batch_for(model))
        return sum(sizes.values())

    assert kept(True) < 0.6 * kept(False)


# The prior.


def test_without_a_fit_the_prior_is_the_standard_normal() -> None:
    prior = CodePrior((2, 3, 4), rank=3)
    noise = torch.randn(5, prior.noise)
    assert not prior.fitted
    assert torch.equal(prior(noise), noise[:, :24].view(5, 2, 3, 4))


def test_a_fitted_prior_has_the_moments_of_the_codes() -> None:
    torch.manual_seed(0)
    count, shape = 40, (2, 3)
    shared = torch.randn(count, 1) * torch.tensor([3.0, 0, 2, 0, 1, 0])
    mean = (shared + 0.1 * torch.randn(count, 6) + torch.arange(6.0)).view(count, *shape)
    codes = Posterior(mean, torch.full((count, *shape), math.log(0.04)))
    prior = CodePrior(shape, rank=2)
    prior.fit(codes)
    drawn = prior(torch.randn(20_000, prior.noise)).flatten(1)
    assert prior.fitted
    torch.testing.assert_close(drawn.mean(0), mean.flatten(1).mean(0), atol=0.08, rtol=0)
    covariance = mean.flatten(1).T.cov() + 0.04 * torch.eye(6)
    torch.testing.assert_close(drawn.T.cov(), covariance, atol=0.3, rtol=0.05)


def test_each_number_has_the_variance_of_the_aggregate_posterior_exactly() -> None:
    codes = posteriors(9, 3, 4)
    prior = CodePrior((3, 4), rank=2)
    prior.fit(codes)
    variance = prior.deviation.square() + prior.factors.square().sum(0)
    torch.testing.assert_close(variance, codes.mean.var(0) + codes.log_variance.exp().mean(0))


def test_from_few_scans_follow_few_factors() -> None:
    prior = CodePrior((3, 4), rank=8)
    prior.fit(posteriors(3, 3, 4))
    assert [bool(factor.any()) for factor in prior.factors] == [True, True] + [False] * 6


def test_factors_are_the_principal_components() -> None:
    codes = posteriors(7, 5, 4)
    prior = CodePrior((5, 4), rank=3)
    prior.fit(codes)
    centred = (codes.mean - codes.mean.mean(0)).flatten(1)
    _, values, _ = torch.linalg.svd(centred)
    torch.testing.assert_close(prior.factors.flatten(1).norm(dim=1), values[:3] / math.sqrt(6), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_one_scan_has_no_spread(count: int) -> None:
    with pytest.raises(ValueError, match="at least two scans"):
        CodePrior((2, 3), rank=2).fit(posteriors(count, 2, 3))


def test_codes_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"each \(2, 3\)"):
        CodePrior((2, 3), rank=2).fit(posteriors(4, 2, 4))


def test_samples_of_a_fitted_prior_lie_where_the_codes_lie() -> None:
    model = built(SOLID).eval()
    shifted = Posterior(torch.randn(6, *SOLID.code) * 0.01 + 2, torch.full((6, *SOLID.code), -9.0))
    noise = torch.randn(model.noise_shape(2))
    before = model.generate(noise, {})
    model.fit_prior(shifted)
    made = model.generate(noise, {})
    assert not torch.equal(before, made)
    torch.testing.assert_close(made, model.decode(torch.full((2, *SOLID.code), 2.0)), atol=0.1, rtol=0)


def test_a_fitted_prior_travels_with_the_weights() -> None:
    first, second = built(SOLID, 0).eval(), built(SOLID, 1).eval()
    first.fit_prior(posteriors(4, *SOLID.code))
    second.load_state_dict(first.state_dict())
    noise = torch.randn(first.noise_shape(1))
    assert torch.equal(first.generate(noise, {}), second.generate(noise, {}))


# How much of the code is used.


def test_active_units_are_those_whose_mean_varies() -> None:
    activity = Activity((2, 2))
    draws = torch.Generator().manual_seed(0)
    for _ in range(200):
        mean = torch.zeros(4, 2, 2)
        mean[:, 0] = torch.randn(4, 2, generator=draws)
        mean[:, 1, 0] = 5.0  # large and constant: says nothing of an image
        activity.see(mean, torch.ones(4, 2, 2) * torch.tensor([[3.0], [0.5]]))
    assert activity.active().tolist() == [[True, True], [False, False]]
    assert activity.told() == pytest.approx({"active units": 0.5, "kl": 7.0, "kl 00": 6.0, "kl 01": 1.0})


@given(st.integers(1, 5))
def test_statistics_are_unbiased_from_the_first_batch(count: int) -> None:
    activity = Activity((1, 2))
    for _ in range(count):
        activity.see(torch.full((2, 1, 2), 0.5), torch.full((2, 1, 2), 0.25))
    assert activity.told()["kl"] == pytest.approx(0.5)
    assert activity.told()["active units"] == 0


def test_before_any_batch_nothing_is_active() -> None:
    assert Activity((1, 2)).told() == {"active units": 0, "kl": 0, "kl 00": 0}


def test_training_tells_what_of_the_code_is_used_and_evaluation_leaves_it() -> None:
    model = built(SOLID)
    model(PLAY, batch_for(model))
    told = model.told()
    assert told["kl"] == pytest.approx(
        divergence(*model.encode(batch_for(model).image)).flatten(1).sum(1).mean().item()
    )
    assert set(told) == {"active units", "kl", "kl 00", "kl 01"}
    model.eval()(PLAY, batch_for(model, seed=7))
    assert model.told() == told


# The adversary.


def judged(**changes: Any) -> Model:
    return built(replace(SOLID, shape=(8, 16, 8), adversary=0.5, adversary_start=2, adversary_width=4, **changes))


def test_the_discriminator_has_its_say_when_it_is_due() -> None:
    model = judged()
    assert list(model.turns(1)) == [PLAY]
    assert list(model.turns(2)) == [Turn("autoencoder", "judged"), Turn("discriminator", fresh=False)]


def test_the_discriminator_judges_the_reconstruction_of_the_turn_before() -> None:
    model = judged()
    batch = batch_for(model)
    first, second = model.turns(2)
    losses = model(first, batch)
    seen: list[Tensor] = []
    model.discriminator.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        for weight in model.autoencoder.parameters():
            weight += 1  # the step that lies between
    assert set(model(second, batch)) == {"real", "fake"}
    assert torch.equal(seen[0], batch.image)
    assert (seen[1] - batch.image).abs().mean().item() == pytest.approx(losses["L1"].item(), rel=1e-6)
    assert not seen[1].requires_grad


def test_without_an_adversary_there_is_one_player() -> None:
    assert built(SOLID).players == ("autoencoder",)
    assert judged().players == ("autoencoder", "discriminator")


def test_a_flat_adversary_sees_a_slab() -> None:
    model = built(replace(FLAT, shape=(4, 16, 16), adversary=0.5, adversary_start=0, adversary_width=4))
    batch = batch_for(model)
    for turn in model.turns(0):
        assert all(loss.isfinite() for loss in model(turn, batch).values())


# Settings and recipes.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": (8, 16, 14)}, "`shape`: 14 is not a multiple of 4; nearest 1[26]"),
        ({"shape": (16, 12), "flat": True}, "`flat`: 2 axes"),
        ({"width": 2}, "`width`: 2; at least 4"),
        ({"latent": 0}, "`latent`: 0; at least 1"),
        ({"noise_scale": -1.0}, "`noise_scale`: -1; a finite number, 0 or more"),
        ({"free_bits": math.inf}, "`free_bits`: inf; a finite number"),
        ({"kl_steps": -1}, "`kl_steps`: -1; at least 0"),
        ({"shape": (4, 16, 12), "adversary": 1.0}, "`shape`: 4; the adversary judges patches of at least 8"),
    ],
)
def test_a_setting_that_does_not_fit_is_named_with_what_does(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeMismatch, match=words):
        replace(SOLID, **changes)


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_is_published_as_slices_as_channels_but_those_that_say_so(name: str) -> None:
    """The published defect: no translation along z and a fixed count of slices; `vae2d*` keep it as what they are."""
    config = Recipe.load(name).config
    assert config.flat == name.startswith(("vae2d_small", "vae2d_large", "vae2d_slab"))
    assert max(config.pyramid.widths) in (config.widest, 64)


def test_the_solid_network_commutes_with_shifts_along_z_where_the_flat_one_does_not() -> None:
    scan = images((64, 8, 8), 1)
    moved = scan.roll(4, dims=2)
    solid = built(SOLID).eval()
    middle = solid.encode(scan).mean[:, :, 6:8]
    torch.testing.assert_close(solid.encode(moved).mean[:, :, 7:9], middle, atol=1e-5, rtol=0)
    flat = built(replace(FLAT, shape=(64, 8, 8))).eval()
    assert not torch.allclose(flat.encode(moved).mean, flat.encode(scan).mean, atol=1e-2)


def test_it_trains_resumes_exactly_and_samples(tmp_path: Path) -> None:
    tiny.cases(tmp_path / "cases")
    tiny.recipe(tmp_path, TINY)
    tiny.trained(tmp_path, "whole")
    tiny.trained(tmp_path, "parts", steps=2)
    tiny.trained(tmp_path, "parts", steps=6, resume=True)
    whole, parts = (Run.open(tmp_path / name) for name in ("whole", "parts"))
    assert (tmp_path / "whole/weights.safetensors").read_bytes() == (
        tmp_path / "parts/weights.safetensors"
    ).read_bytes()
    losses = [[{k: v for k, v in line.items() if "/" in k} for line in run.log()] for run in (whole, parts)]
    assert losses[0] == losses[1]
    assert losses[0][0]["autoencoder/KL"] == 0
    assert losses[0][-1]["autoencoder/KL"] > 0
