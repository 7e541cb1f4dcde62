"""Layers give what the plain layers give, whichever way they compute, in values and in gradients."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.layers.activation import LeakyReLU
from tomogen.layers.conv import CHANNELS_LAST, CONV, Conv, UpConv
from tomogen.layers.instancenorm import InstanceNorm
from tomogen.layers.norm import VoxelNorm
from tomogen.layers.patch import PatchDiscriminator

SPACE = {2: (6, 10), 3: (4, 6, 10)}


def plain_conv(layer: Conv, image: Tensor) -> Tensor:
    return CONV[layer.dims](image, layer.weight, layer.bias, layer.stride, layer.padding)


def plain_up(layer: UpConv, image: Tensor) -> Tensor:
    doubled = F.interpolate(image, scale_factor=2)
    return CONV[layer.dims](doubled, layer.weight, layer.bias, 1, (layer.kernel - 1) // 2)


def everything(layer: nn.Module, forward: Callable[[Tensor], Tensor], image: Tensor) -> list[Tensor]:
    """The result, its gradients, and the gradients of a penalty on the slope: all that training asks of a layer."""
    image = image.clone().requires_grad_()
    parameters = list(layer.parameters())
    result = forward(image)
    weight = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape)
    (slope,) = torch.autograd.grad((result * weight).sin().sum(), image, create_graph=True)
    second = torch.autograd.grad(slope.square().sum(), [image, *parameters], allow_unused=True)
    first = torch.autograd.grad((forward(image) * weight).sum(), [image, *parameters])
    assert all(tensor is not None for tensor in second[: 1 + len(parameters)])
    return [result, slope, *second, *first]


CONVS = [
    (dims, inside, outside, kernel, stride, bias)
    for dims, (inside, outside, kernel, stride), bias in itertools.product(
        (2, 3), [(3, 4, 3, 1), (3, 1, 3, 1), (2, 1, 7, 1), (3, 1, 1, 1), (1, 4, 4, 2), (3, 4, 4, 2)], (True, False)
    )
]


@pytest.mark.parametrize(("dims", "inside", "outside", "kernel", "stride", "bias"), CONVS)
def test_a_convolution_equals_the_plain_one_in_values_and_in_first_and_second_gradients(
    dims: int, inside: int, outside: int, kernel: int, stride: int, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = Conv(dims, inside, outside, kernel, stride, bias).double()
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    image = torch.randn(2, inside, *SPACE[dims], dtype=torch.float64)
    ours = everything(layer, layer, image)
    theirs = everything(layer, lambda x: plain_conv(layer, x), image)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("outside", [1, 4])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("dims", [2, 3])
def test_doubling_and_convolving_in_one_equals_doing_so_in_two(dims: int, kernel: int, outside: int) -> None:
    torch.manual_seed(0)
    layer = UpConv(dims, 3, outside, kernel).double()
    nn.init.normal_(layer.bias)
    image = torch.randn(2, 3, *SPACE[dims], dtype=torch.float64)
    ours = everything(layer, layer, image)
    theirs = everything(layer, lambda x: plain_up(layer, x), image)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-11)


@given(dims=st.sampled_from([2, 3]), data=st.data())
def test_any_even_size_is_halved_and_any_size_doubled(dims: int, data: st.DataObject) -> None:
    half = data.draw(st.lists(st.integers(1, 5), min_size=dims, max_size=dims))
    image = torch.randn(1, 1, *[2 * size for size in half])
    assert Conv(dims, 1, 2, 4, 2)(image).shape == (1, 2, *half)
    assert UpConv(dims, 1, 2)(torch.randn(1, 1, *half)).shape == (1, 2, *image.shape[2:])


@pytest.mark.parametrize(("layer", "inside"), [(Conv(3, 8, 1), 8), (Conv(3, 1, 8, 4, 2), 1), (UpConv(3, 8, 8), 8)])
def test_bfloat16_stays_within_its_own_rounding_of_float32(layer: nn.Module, inside: int) -> None:
    image = torch.randn(2, inside, 8, 8, 8)
    exact = layer(image)
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(image)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [
        ((2, 8, 8), (3, 3, 3), 1, 1),
        ((4, 2, 2), (2, 4, 4), 2, (0, 1, 1)),
        ((2, 2, 2), (1, 4, 4), (1, 2, 2), (0, 1, 1)),
        ((3, 8, 8), (3, 3, 3), 1, 1),
    ],
)
def test_in_bfloat16_the_gradient_to_the_weight_is_that_of_float32(
    shape: tuple[int, ...], kernel: tuple[int, ...], stride: int | tuple[int, ...], padding: int | tuple[int, ...]
) -> None:
    image, weight = torch.randn(1, 64, *shape), torch.randn(64, 64, *kernel, requires_grad=True)
    exact = torch.autograd.grad(CONV[3](image, weight, None, stride, padding).square().sum(), weight)[0]
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made = CONV[3](image, weight, None, stride, padding)
        assert made.dtype == torch.bfloat16
        for size in range(8, 22):  # what is left unwritten shows what the memory held before
            torch.full((1 << size,), math.nan, dtype=torch.bfloat16)
        rough = torch.autograd.grad(made.float().square().sum(), weight)[0]
        assert (rough - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize("layer", [Conv(3, 4, 8), Conv(2, 4, 8, 4, 2), UpConv(3, 4, 8), UpConv(2, 4, 8)])
def test_features_stay_channels_last_from_layer_to_layer(layer: Conv | UpConv) -> None:
    features = layer(torch.randn(2, 4, *[8] * layer.dims))
    for step in (layer, VoxelNorm(8), nn.ReLU(), LeakyReLU()):
        if step is not layer:
            features = step(features)
        assert features.is_contiguous(memory_format=CHANNELS_LAST[layer.dims]), step


def test_weights_keep_their_plain_memory_order_so_that_nothing_else_need_know() -> None:
    for layer in (Conv(3, 8, 1), Conv(3, 1, 8, 4, 2), UpConv(3, 4, 8)):
        layer(torch.randn(1, layer.weight.shape[1], 4, 4, 4)).sum().backward()
        assert layer.weight.is_contiguous()
        assert layer.weight.grad is not None
        assert layer.weight.grad.is_contiguous()


@pytest.mark.parametrize(("kernel", "stride"), [(4, 1), (3, 2), (3, 3)])
def test_a_kernel_that_neither_keeps_nor_halves_a_size_is_refused(kernel: int, stride: int) -> None:
    with pytest.raises(ValueError, match="neither keeps nor halves"):
        Conv(2, 1, 1, kernel, stride)


def test_an_even_kernel_after_doubling_is_refused() -> None:
    with pytest.raises(ValueError, match="must be odd"):
        UpConv(2, 1, 1, 4)


def test_leaky_relu_equals_torchs_in_values_and_in_first_and_second_gradients() -> None:
    torch.manual_seed(0)
    image, linear = torch.randn(3, 5, dtype=torch.float64), nn.Linear(5, 4).double()
    ours = everything(linear, lambda x: LeakyReLU()(linear(x)), image)
    theirs = everything(linear, lambda x: F.leaky_relu(linear(x), 0.2), image)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_penalty_does_not_run_back_through_the_forward_pass() -> None:
    """Torch's own leaky ReLU gives the biases gradients of zeros: the sign that it did."""
    for activation, reached in ((LeakyReLU(), False), (nn.LeakyReLU(0.2), True)):
        first, second = Conv(2, 2, 3), Conv(2, 3, 3)
        image = torch.randn(1, 2, 4, 4, requires_grad=True)
        score = activation(second(activation(first(image)))).sum()
        (slope,) = torch.autograd.grad(score, image, create_graph=True)
        slope.square().sum().backward()
        for layer in (first, second):
            assert layer.weight.grad is not None
            assert layer.weight.grad.abs().max() > 0
            assert (layer.bias.grad is not None) == reached


@pytest.mark.parametrize("dims", [2, 3])
def test_a_voxels_features_have_mean_0_and_variance_1(dims: int) -> None:
    features = VoxelNorm(64)(5 + 3 * torch.randn(2, 64, *[4] * dims))
    torch.testing.assert_close(features.mean(1), torch.zeros(2, *[4] * dims), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.var(1, unbiased=False), torch.ones(2, *[4] * dims), atol=1e-4, rtol=0)


def test_the_norm_pools_over_neither_batch_nor_space() -> None:
    norm = VoxelNorm(8)
    features = torch.randn(3, 8, 4, 4, 4)
    torch.testing.assert_close(norm(features)[:1], norm(features[:1]))
    torch.testing.assert_close(norm(features)[..., :2], norm(features[..., :2]))


@pytest.mark.parametrize("dims", [2, 3])
def test_instance_norm_is_torchs_own_in_values_and_gradients(dims: int) -> None:
    image = torch.randn(2, 5, *SPACE[dims], generator=torch.Generator().manual_seed(0)) * 3 + 7
    plain = F.instance_norm
    ours, theirs = everything(InstanceNorm(), InstanceNorm(), image), everything(InstanceNorm(), plain, image)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_instance_norm_in_bfloat16_keeps_its_statistics_in_float32() -> None:
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 100
    rough = InstanceNorm()(image.bfloat16()).float()
    assert (rough - F.instance_norm(image.bfloat16().float())).abs().max() < 0.02


def test_a_score_of_the_patch_discriminator_sees_70_voxels() -> None:
    judge = PatchDiscriminator(2, 1, (4, 4, 4, 4))
    for block in judge.blocks:
        block.norm = None  # its mean sees the whole image
    image = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(judge(image)[-1][0, 0, 15, 15], image)
    rows = gradient[0, 0].abs().sum(1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 70


def test_the_patch_discriminator_gives_its_features_and_then_its_scores() -> None:
    found = PatchDiscriminator(3, 3, (2, 4, 4, 8), padding=2)(torch.zeros(1, 3, 16, 16, 16))
    assert [part.shape[1] for part in found] == [2, 4, 4, 8, 1]
    with torch.device("meta"):
        # The published discriminators of X2CT, for two X-rays and for one, beside the volume.
        sizes = [sum(p.numel() for p in PatchDiscriminator(3, n, padding=2).parameters()) for n in (3, 2)]
    assert sizes == [11_055_169, 11_051_073]
