"""Losses against closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tomogen.losses import least_squares
from tomogen.losses.wasserstein import clip_weights, critic_loss, generator_loss, gradient_penalty


def test_the_critic_minimises_the_fakes_mean_score_less_the_reals() -> None:
    real, fake = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0.5, 0.5, 2.0])
    assert critic_loss(real, fake).item() == pytest.approx(1.0 - 3.0)
    assert generator_loss(fake).item() == pytest.approx(-1.0)


def test_means_of_scores_are_taken_in_float32() -> None:
    scores = torch.full((4096,), 257.0).bfloat16()  # 257 itself is no bfloat16: stored as 256
    assert critic_loss(scores, scores + 2).dtype == torch.float32
    assert critic_loss(scores, scores + 2).item() == pytest.approx(2.0)


@given(shape=st.sampled_from([(6,), (4, 5), (2, 3, 4)]), length=st.floats(0.1, 30), seed=st.integers(0, 99))
def test_a_linear_critics_penalty_is_its_weights_norm_less_1_squared(
    shape: tuple[int, ...], length: float, seed: int
) -> None:
    """The slope of `w . x` is `w` everywhere, so the penalty is `(|w| - 1)^2` whatever the images are."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, *shape, generator=draw)
    weight *= length / weight.norm()
    real, fake = torch.randn(2, 3, 1, *shape, generator=draw)

    def critic(image: Tensor) -> Tensor:
        return (image * weight).flatten(1).sum(1)

    penalty = gradient_penalty(critic, real, fake, torch.rand(3, generator=draw))
    assert penalty.item() == pytest.approx((length - 1) ** 2, rel=1e-4, abs=1e-6)


def test_the_slope_is_taken_where_the_shares_say() -> None:
    """The critic `x^2 / 2` has slope `x`: the penalty shows the point, 3/4 of the way from the fake to the real."""
    real, fake = torch.full((1, 1, 1, 1), 8.0), torch.zeros(1, 1, 1, 1)
    penalty = gradient_penalty(lambda x: x.square().flatten(1).sum(1) / 2, real, fake, torch.tensor([0.75]))
    assert penalty.item() == pytest.approx((6 - 1) ** 2)


def test_the_penalty_is_a_mean_over_samples_each_with_its_own_norm() -> None:
    real = torch.tensor([1.0, 3.0]).view(2, 1, 1)
    penalty = gradient_penalty(lambda x: x.square().flatten(1).sum(1) / 2, real, torch.zeros_like(real), torch.ones(2))
    assert penalty.item() == pytest.approx(((1 - 1) ** 2 + (3 - 1) ** 2) / 2)


def test_the_penaltys_gradient_reaches_the_critic_and_not_the_images() -> None:
    critic = nn.Sequential(nn.Flatten(), nn.Linear(8, 1, bias=False), nn.Flatten(0))
    real, fake = torch.randn(2, 4, 1, 8, requires_grad=True)
    gradient_penalty(critic, real, fake, torch.rand(4)).backward()
    weight = critic[1].weight
    length = weight.norm()
    expected = 2 * (length - 1) * weight / length
    torch.testing.assert_close(weight.grad, expected.detach())


def test_the_penalty_is_computed_in_float32_whatever_precision_surrounds_it() -> None:
    seen = []

    def critic(image: Tensor) -> Tensor:
        scores = nn.functional.conv2d(image, torch.ones(1, 1, 3, 3)).flatten(1).sum(1)
        seen.append(scores.dtype)
        return scores

    with torch.autocast("cpu", torch.bfloat16):
        gradient_penalty(critic, torch.randn(2, 1, 4, 4).bfloat16(), torch.randn(2, 1, 4, 4), torch.rand(2))
    assert seen == [torch.float32]


def test_clipping_presses_every_weight_into_the_bound_and_leaves_the_rest() -> None:
    layer = nn.Linear(50, 50)
    before = layer.weight.detach().clone()
    clip_weights(layer.parameters(), 0.01)
    assert all(parameter.abs().max() <= 0.01 for parameter in layer.parameters())
    small = before.abs() < 0.01
    assert small.any()
    torch.testing.assert_close(layer.weight[small], before[small], rtol=0, atol=0)


def test_the_penalty_at_a_flat_critic_is_1_and_its_gradient_finite() -> None:
    critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.Flatten(0))
    nn.init.zeros_(critic[1].weight)
    penalty = gradient_penalty(critic, torch.randn(2, 1, 4), torch.randn(2, 1, 4), torch.rand(2))
    penalty.backward()
    assert penalty.item() == 1
    assert math.isfinite(critic[1].weight.grad.abs().max().item())


def test_least_squares_of_scores_in_any_shape() -> None:
    scores = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    assert least_squares.real_loss(scores).item() == pytest.approx((0 + 4 + 1 + 1) / 4)
    assert least_squares.fake_loss(scores).item() == pytest.approx((1 + 9) / 4)
    assert least_squares.generator_loss(scores).item() == pytest.approx((0 + 4 + 1 + 1) / 4)
    assert least_squares.fake_loss(scores.bfloat16()).dtype == torch.float32
