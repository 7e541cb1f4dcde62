"""Parts of a style-based generator (Karras et al. 2019, 2020): mapping, styled convolution, and what is done to styles.

A style w is `(B, layers, width)`: one row for each layer that takes one, coarse layers first.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.errors import UsageFault
from tomogen.layers.activation import LeakyReLU
from tomogen.layers.conv import CONV, TRANSPOSED, channels_last
from tomogen.layers.equalised import GAIN, EqualLinear
from tomogen.layers.resample import blurred

EPS = 1e-8
RATE = 0.01
"""The mapping learns this much slower than the rest (Karras 2019, appendix C)."""


def normalised(rows: Tensor) -> Tensor:
    """`(B, width)` with a mean square of 1 in every row."""
    return rows * (rows.square().mean(1, keepdim=True) + EPS).rsqrt()


class Mapping(nn.Module):
    """Noise z `(B, latent)`, and a label `(B, classes)` where there are classes, to w `(B, latent)` in float32."""

    def __init__(self, latent: int, depth: int, classes: int = 0) -> None:
        super().__init__()
        self.label = EqualLinear(classes, latent, gain=classes**0.5) if classes else None
        widths = [latent * (2 if classes else 1), *[latent] * depth]
        self.layers = nn.ModuleList(EqualLinear(a, b, rate=RATE, gain=GAIN) for a, b in itertools.pairwise(widths))
        self.act = LeakyReLU()

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The style that all layers share."""
        w = normalised(z.float())
        if self.label is not None and label is not None:
            w = torch.cat([w, normalised(self.label(label))], 1)
        for layer in self.layers:
            w = self.act(layer(w))
        return w


class StyledConv(nn.Module):
    """`(B, inside, *space)` to `(B, outside, *space)`, or `*2 space` with `up`: convolution, noise, bias, leaky ReLU.

    The style scales what comes in, channel by channel, and what goes out is scaled to the variance that would come
    of independent inputs of variance 1 (Karras 2020, eqs. 1 and 3). Both are done to the features and not to the
    weights, so that all images share one convolution: the published grouped convolution needs a weight for each
    image (30.0 to 26.3 core-s a step, 4.98 to 2.70 GB).
    """

    def __init__(self, dims: int, inside: int, outside: int, styles: int, *, up: bool = False) -> None:
        super().__init__()
        self.dims, self.up = dims, up
        self.weight = nn.Parameter(torch.randn(outside, inside, *[3] * dims))
        self.bias = nn.Parameter(torch.zeros(outside))
        self.strength = nn.Parameter(torch.zeros(()))
        self.style = EqualLinear(styles, inside, bias=1.0, gain=1.0)
        self.scale = (inside * 3**dims) ** -0.5
        self.act = LeakyReLU()

    def forward(self, features: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """The layer's features; `w (B, styles)`; `noise (B, 1, *space)` of the result's size, or None for none."""
        style = self.style(w) * self.scale  # (B, inside)
        made = self._convolved(by_channel(features, style))
        # The gain of leaky ReLU goes through it, as it is positive: one pass less over the features.
        rows = torch.addcmul(
            (self.bias * GAIN).to(made.dtype), made.movedim(1, -1), _rows(self.demodulation(style) * GAIN, made)
        )
        if noise is not None:
            rows = rows + (noise * (self.strength * GAIN)).to(made.dtype).movedim(1, -1)
        result: Tensor = self.act(rows.movedim(-1, 1))
        return result

    def demodulation(self, style: Tensor) -> Tensor:
        """One over the standard deviation of each channel, `(B, outside)`, float32, for a `style (B, inside)`."""
        with torch.autocast(style.device.type, enabled=False):
            power = self.weight.float().square().sum(list(range(2, 2 + self.dims)))  # (outside, inside)
            return (F.linear(style.float().square(), power) + EPS).rsqrt()

    def _convolved(self, features: Tensor) -> Tensor:
        features = channels_last(features)
        if not self.up:
            return CONV[self.dims](features, self.weight, None, 1, 1)
        # Zeros between the voxels thin the sum out by 2 per axis: the filter's gain makes up for it.
        doubled = TRANSPOSED[self.dims](features, self.weight.transpose(0, 1), None, 2)  # (B, outside, *2 space + 1)
        return blurred(doubled, padding=1, gain=2**self.dims)


class StyledImage(nn.Module):
    """Features `(B, inside, *space)` to what they add to the image, `(B, 1, *space)` in float32.

    A modulated convolution of kernel 1, without demodulation, to one channel: a weighted sum of the channels.
    """

    def __init__(self, inside: int, styles: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inside))
        self.bias = nn.Parameter(torch.zeros(()))
        self.style = EqualLinear(styles, inside, bias=1.0)
        self.scale = inside**-0.5

    def forward(self, features: Tensor, w: Tensor) -> Tensor:
        """The image; `w (B, styles)`."""
        weight = self.style(w) * (self.weight * self.scale)  # (B, inside)
        rows = channels_last(features).movedim(1, -1)
        image = torch.bmm(rows.flatten(1, -2), weight.to(rows.dtype).unsqueeze(2))  # (B, voxels, 1)
        return image.float().view(len(rows), 1, *rows.shape[1:-1]) + self.bias


def by_channel(features: Tensor, factor: Tensor) -> Tensor:
    """`(B, C, *space)` times `(B, C)`, channels last: with channels adjacent bf16 takes 2.9 ms where it takes 18.6."""
    return (channels_last(features).movedim(1, -1) * _rows(factor, features)).movedim(-1, 1)


def truncated(w: Tensor, middle: Tensor, truncation: float) -> Tensor:
    """Styles drawn towards `middle`: at 1 as they are, at 0 the middle itself (Karras 2019, appendix B).

    Raises:
        UsageFault: `truncation` is not from 0 to 1.
    """
    if not 0 <= truncation <= 1:
        nearest = min(1.0, max(0.0, truncation))
        raise UsageFault(
            f"truncation {truncation:g}: from 0 (the mean) to 1 (untouched)", fix=f"--truncation {nearest:g}"
        )
    return torch.lerp(middle.expand_as(w), w, truncation)


def mixed(first: Tensor, second: Tensor, crossover: int) -> Tensor:
    """The coarse layers of `first` up to `crossover`, the others of `second` (Karras 2019, section 3.1).

    0 gives `second`, the number of layers `first`, both exactly.

    Raises:
        UsageFault: the two have unlike layers, or `crossover` lies outside them.
    """
    layers = first.shape[1]
    if first.shape[1:] != second.shape[1:]:
        raise UsageFault(f"styles of {tuple(first.shape[1:])} and {tuple(second.shape[1:])} cannot be mixed")
    if not 0 <= crossover <= layers:
        nearest = min(layers, max(0, crossover))
        raise UsageFault(f"crossover {crossover}: from 0 to the model's {layers} layers", fix=f"--crossover {nearest}")
    return torch.cat([first[:, :crossover], second[:, crossover:]], 1)


def _rows(factor: Tensor, like: Tensor) -> Tensor:
    """`(B, C)` as `(B, 1, .., C)` in the type of `like (B, C, *space)`."""
    return factor.to(like.dtype).view(len(factor), *[1] * (like.ndim - 2), -1)
