"""Losses of the adversarial game against their closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tomogen.losses.adversarial import fake_loss, generator_loss, real_loss

SCORES = torch.tensor([-3.0, -0.5, 0.0, 1.0, 4.0], dtype=torch.float32)
LOGITS = st.lists(st.floats(-30, 30), min_size=1, max_size=8).map(torch.tensor)


def test_at_a_draw_the_discriminator_pays_two_ln_2_and_the_generator_one() -> None:
    draw = torch.zeros(7)
    assert (real_loss(draw) + fake_loss(draw)).item() == pytest.approx(2 * math.log(2))
    assert generator_loss(draw).item() == pytest.approx(math.log(2))


def test_they_are_the_logarithms_that_the_paper_states() -> None:
    sure = SCORES.double().sigmoid()
    assert real_loss(SCORES).item() == pytest.approx(-sure.log().mean().item(), rel=1e-6)
    assert fake_loss(SCORES).item() == pytest.approx(-(1 - sure).log().mean().item(), rel=1e-6)
    assert generator_loss(SCORES).item() == pytest.approx(-sure.log().mean().item(), rel=1e-6)


@given(scores=LOGITS, smoothing=st.floats(0.01, 0.49))
def test_a_smoothed_label_gives_the_gradient_of_its_cross_entropy(scores: torch.Tensor, smoothing: float) -> None:
    ours, theirs = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    real_loss(ours, smoothing).backward()
    F.binary_cross_entropy_with_logits(theirs, torch.full_like(theirs, 1 - smoothing)).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@given(scores=LOGITS, smoothing=st.floats(0, 0.49))
def test_no_loss_is_below_0(scores: torch.Tensor, smoothing: float) -> None:
    assert real_loss(scores, smoothing) >= -1e-6
    assert fake_loss(scores) >= 0
    assert generator_loss(scores) >= 0


@pytest.mark.parametrize("smoothing", [0.05, 0.1, 0.3])
def test_a_smoothed_discriminator_is_best_where_it_is_as_sure_as_its_label(smoothing: float) -> None:
    best = torch.tensor([math.log((1 - smoothing) / smoothing)], requires_grad=True)
    loss = real_loss(best, smoothing)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert best.grad.item() == pytest.approx(0, abs=1e-6)
    assert real_loss(best.detach() + 3, smoothing) > 0.1, "certainty costs"


def test_without_smoothing_certainty_costs_nothing() -> None:
    assert real_loss(torch.tensor([40.0])).item() == pytest.approx(0, abs=1e-12)


def test_a_generator_that_is_never_believed_still_has_a_slope() -> None:
    """`log(1 - D)` would have none there: the reason for the form that does not saturate."""
    hopeless = torch.tensor([-20.0], requires_grad=True)
    generator_loss(hopeless).backward()
    assert hopeless.grad.item() == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("loss", [real_loss, fake_loss, generator_loss])
def test_they_are_finite_float32_whatever_the_scores(loss: object) -> None:
    extreme = torch.tensor([-1e4, 1e4], dtype=torch.bfloat16)
    value = loss(extreme)
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert value.shape == ()
