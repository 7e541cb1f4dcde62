"""Layers whose weights are drawn from N(0, 1) and scaled as they are used (Karras et al. 2018, section 4.1).

Adam moves every weight by about its rate, whatever the weight's size; drawn alike, all layers learn at one pace.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.layers.conv import CONV, channels_last

GAIN = math.sqrt(2)
"""Of leaky ReLU: it keeps the variance of what comes in. It may be applied before it as well as after."""


class EqualLinear(nn.Module):
    """`(B, inside)` to `(B, outside)`, in float32 whatever precision surrounds it.

    `rate` multiplies the learning rate: the weights are drawn that much larger and used that much smaller.
    `gain` multiplies the result; `bias` is the bias at birth.
    """

    def __init__(self, inside: int, outside: int, *, rate: float = 1.0, gain: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outside, inside) / rate)
        self.bias = nn.Parameter(torch.full((outside,), bias / rate))
        self.scale, self.shift = gain * rate / math.sqrt(inside), gain * rate

    def forward(self, features: Tensor) -> Tensor:
        """The linear map of `features`, float32."""
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features.float(), self.weight * self.scale, self.bias * self.shift)


class EqualConv(nn.Module):
    """Convolution `(B, inside, *space)` to `(B, outside, *space)`; `gain` multiplies the result, bias included.

    With stride 2 nothing is padded: `space` is one voxel more along each axis than twice what comes out, as
    `blurred` leaves it.
    """

    def __init__(
        self, dims: int, inside: int, outside: int, kernel: int = 3, stride: int = 1, *,
        gain: float = 1.0, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dims, self.stride, self.gain = dims, stride, gain
        self.padding = (kernel - 1) // 2 if stride == 1 else 0
        self.weight = nn.Parameter(torch.randn(outside, inside, *[kernel] * dims))
        self.bias = nn.Parameter(torch.zeros(outside)) if bias else None
        self.scale = gain / math.sqrt(inside * kernel**dims)

    def forward(self, features: Tensor) -> Tensor:
        """The convolution of `features`."""
        bias = None if self.bias is None else self.bias * self.gain
        return CONV[self.dims](channels_last(features), self.weight * self.scale, bias, self.stride, self.padding)
