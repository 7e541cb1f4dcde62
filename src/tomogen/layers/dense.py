"""A 2D encoder of dense blocks (Huang 2017) with instance norm, as X2CT-GAN's (Ying 2019, section 3.2).

Instance norm has no weights here, so a channel is normalised alike by every layer that reads it: each is normalised
once, when it is made. The published code normalises all of them again in each layer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.errors import RecipeMismatch
from tomogen.layers.checkpointing import run
from tomogen.layers.conv import channels_last
from tomogen.layers.instancenorm import InstanceNorm


class NormReLU(nn.Module):
    """Instance norm, then `max(x, 0)`."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = InstanceNorm()

    def forward(self, features: Tensor) -> Tensor:
        """`(B, C, *space)` in any number of axes."""
        return F.relu_(self.norm(features))


class DenseLayer(nn.Module):
    """To `growth` new channels by way of a bottleneck: 1 x 1, norm, ReLU, 3 x 3."""

    def __init__(self, inside: int, bottleneck: int, growth: int, *, bias: bool) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inside, bottleneck, 1, bias=False)
        self.grow = nn.Conv2d(bottleneck, growth, 3, padding=1, bias=bias)
        self.act = NormReLU()

    def forward(self, active: Tensor) -> Tensor:
        """New channels, not yet normalised, of features that are."""
        new: Tensor = self.grow(self.act(self.squeeze(active)))
        return new


class DenseStage(nn.Module):
    """Half the size by a convolution of stride 2, a dense block, and, but for the last stage, half the channels.

    The last stage is read without a norm, so its convolutions have biases; a norm would take them off again.
    """

    def __init__(self, inside: int, layers: int, bottleneck: int, growth: int, *, last: bool, bias: bool) -> None:
        super().__init__()
        whole = inside + layers * growth
        self.outside = whole if last else whole // 2
        self.halve = nn.Conv2d(inside, inside, 3, 2, 1, bias=bias)
        self.layers = nn.ModuleList(
            DenseLayer(inside + number * growth, bottleneck, growth, bias=bias) for number in range(layers)
        )
        self.compress = None if last else nn.Conv2d(whole, self.outside, 1, bias=False)
        self.act = NormReLU()

    def forward(self, features: Tensor) -> Tensor:
        """`(B, inside, n, n)` to `(B, outside, n / 2, n / 2)`, not normalised."""
        raw = [self.halve(self.act(channels_last(features)))]
        pieces = [self.act(raw[0])]
        for layer in self.layers:
            raw.append(layer(torch.cat(pieces, 1)))
            pieces.append(self.act(raw[-1]))
        if self.compress is None:
            return torch.cat(raw, 1)
        compressed: Tensor = self.compress(torch.cat(pieces, 1))
        return compressed


class DenseEncoder(nn.Module):
    """A picture `(B, 1, n, n)` to its features at n, n / 2, and so on: a list, one more than there are stages.

    `widths` says how many channels each has. `bias` is whether the last stage is read without a norm.
    """

    def __init__(
        self, width: int, layers: Sequence[int], bottleneck: int, growth: int, *, bias: bool, forgetting: bool
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 7, bias=False)
        self.stages = nn.ModuleList()
        self.widths = [width]
        for number, count in enumerate(layers):
            last = number == len(layers) - 1
            stage = DenseStage(self.widths[-1], count, bottleneck, growth, last=last, bias=bias and last)
            self.stages.append(stage)
            self.widths.append(stage.outside)
        self.act = NormReLU()
        self.forgetting = forgetting

    def forward(self, picture: Tensor) -> list[Tensor]:
        """Features; the first are normalised and rectified, the others are not."""
        first: Tensor = self.act(self.first(F.pad(picture, (3, 3, 3, 3), mode="reflect")))
        found = [first]
        for stage in self.stages:
            found.append(run(stage, found[-1], forgetting=self.forgetting))
        return found


def check_halvings(shape: Sequence[int], halvings: int, layers: Sequence[int]) -> None:
    """Pass a cube of voxels whose pictures an encoder can halve so often, with a dense block for each time.

    Raises:
        RecipeMismatch: `dense` has too few blocks, or an empty one; `shape` is no such cube.
    """
    if len(layers) < halvings or min(layers) < 1:
        raise RecipeMismatch(f"`dense`: {list(layers)}; {halvings} numbers of at least 1, one a halving")
    step = 2**halvings
    if len(set(shape)) > 1 or shape[0] % step or shape[0] < 2 * step:
        near = max(2, round(shape[0] / step)) * step
        raise RecipeMismatch(f"`shape`: {list(shape)}; three times one multiple of {step} above {step}, {near} say")
