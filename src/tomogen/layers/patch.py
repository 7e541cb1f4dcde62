"""A discriminator of patches, named once for 2D and 3D: each score judges a part of the image (Isola 2017, 3.2.2)."""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from tomogen.layers.activation import LeakyReLU
from tomogen.layers.conv import CONV, channels_last
from tomogen.layers.instancenorm import InstanceNorm

Sizes = int | tuple[int, ...]
"""One number for all axes, or one for each."""


class PatchDiscriminator(nn.Module):
    """Images `(B, channels, *space)` to a map of scores, one for each patch that its convolutions see.

    Convolutions of `kernel` to each of `widths` with each of `strides`, leaky ReLU of 0.2, instance norm on all but
    the first; then one to a single channel. With the widths and strides given here and kernel 4 a score sees
    70 voxels along each axis. `bias` says whether convolutions have a bias whose mean the norm takes off again.
    """

    def __init__(
        self,
        dims: int,
        channels: int,
        widths: Sequence[int] = (64, 128, 256, 512),
        strides: Sequence[Sizes] = (2, 2, 2, 1),
        *,
        kernel: Sizes = 4,
        padding: Sizes = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        steps = zip(itertools.pairwise([channels, *widths]), strides, strict=True)
        self.blocks = nn.ModuleList(
            _Block(dims, a, b, kernel, stride, padding, bias=bias or number == 0, norm=number > 0)
            for number, ((a, b), stride) in enumerate(steps)
        )
        self.score = _Block(dims, widths[-1], 1, kernel, 1, padding, bias=True, norm=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The features of each block, and last the scores `(B, 1, *patches)` in float32."""
        found = [image]
        for block in self.blocks:
            found.append(block(found[-1]))
        return [*found[1:], self.score.convolved(found[-1]).float()]


class _Block(nn.Module):
    def __init__(
        self,
        dims: int,
        inside: int,
        outside: int,
        kernel: Sizes,
        stride: Sizes,
        padding: Sizes,
        *,
        bias: bool,
        norm: bool,
    ) -> None:
        super().__init__()
        kind = nn.Conv2d if dims == 2 else nn.Conv3d
        self.conv = kind(inside, outside, kernel, stride, padding, bias=bias)  # type: ignore[arg-type]
        self.dims = dims
        self.norm = InstanceNorm() if norm else None
        self.act = LeakyReLU()

    def convolved(self, features: Tensor) -> Tensor:
        conv = self.conv
        result: Tensor = CONV[self.dims](channels_last(features), conv.weight, conv.bias, conv.stride, conv.padding)
        return result

    def forward(self, features: Tensor) -> Tensor:
        features = self.convolved(features)
        result: Tensor = self.act(features if self.norm is None else self.norm(features))
        return result
