"""Convolutions that halve or double a volume along some axes and leave the others: for slabs that are flat in depth."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.layers.conv import CONV, TRANSPOSED, channels_last


class HalvingConv(nn.Module):
    """`(B, inside, *space)` to `(B, outside, *space)`, halved along the axes that `kernel` is even on.

    The kernel is 2 or 4 along an axis that is halved, and 1 along one that is left.
    """

    def __init__(self, inside: int, outside: int, kernel: Sequence[int], bias: bool = True) -> None:
        super().__init__()
        self.dims = len(kernel)
        self.stride = [1 if k == 1 else 2 for k in kernel]
        self.padding = [(k - s) // 2 for k, s in zip(kernel, self.stride, strict=True)]
        self.weight = nn.Parameter(torch.empty(outside, inside, *kernel))
        self.bias = nn.Parameter(torch.zeros(outside)) if bias else None
        nn.init.kaiming_normal_(self.weight, a=0.2)

    def forward(self, image: Tensor) -> Tensor:
        """The convolution of `image`."""
        return CONV[self.dims](channels_last(image), self.weight, self.bias, self.stride, self.padding)


class DoublingConv(nn.Module):
    """Nearest-neighbour doubling of the axes that `kernel` is 3 on, then the convolution; a kernel of 1 leaves an axis.

    As in `UpConv` both are one transposed convolution, whose kernel is the flipped weight summed over boxes of 2 along
    the doubled axes: 2 instead of 3 operations an axis and voxel, and no doubled image.
    """

    def __init__(self, inside: int, outside: int, kernel: Sequence[int], bias: bool = True) -> None:
        super().__init__()
        self.dims = len(kernel)
        self.doubled = [axis for axis, k in enumerate(kernel) if k == 3]
        self.stride = [2 if k == 3 else 1 for k in kernel]
        self.padding = [s - 1 for s in self.stride]
        self.weight = nn.Parameter(torch.empty(outside, inside, *kernel))
        self.bias = nn.Parameter(torch.zeros(outside)) if bias else None
        nn.init.kaiming_normal_(self.weight, a=0.2)

    def forward(self, image: Tensor) -> Tensor:
        """The convolution of the doubled `image`."""
        return TRANSPOSED[self.dims](channels_last(image), self._boxes(), self.bias, self.stride, self.padding)

    def _boxes(self) -> Tensor:
        axes = list(range(2, 2 + self.dims))
        weight = self.weight.transpose(0, 1).flip(axes)
        for axis in self.doubled:
            weight = F.pad(weight, [0, 0] * (self.dims - 1 - axis) + [0, 1]) + F.pad(
                weight, [0, 0] * (self.dims - 1 - axis) + [1, 0]
            )
        return weight
