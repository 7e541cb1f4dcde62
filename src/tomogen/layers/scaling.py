"""Convolutions that halve or double a volume along some axes and leave the others: for slabs that are flat in depth."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.layers.conv import CONV, TRANSPOSED, channels_last

FEW = 64
"""Voxels, of all images together."""


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
    the doubled axes: 2 instead of 3 operations an axis and voxel, and no doubled image. Of an image of `FEW` voxels
    that sum costs more than it saves: there the two are taken one after the other.
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
        if image[:, 0].numel() <= FEW:
            for axis in self.doubled:
                image = image.repeat_interleave(2, 2 + axis)
            kept = [k // 2 for k in self.weight.shape[2:]]
            return CONV[self.dims](channels_last(image), self.weight, self.bias, 1, kept)
        return TRANSPOSED[self.dims](channels_last(image), self._boxes(), self.bias, self.stride, self.padding)

    def _boxes(self) -> Tensor:
        """All sums at once, in float32: the taps of a kernel are multiplied by a matrix of zeros and ones."""
        wide = self.weight.dtype if self.weight.dtype == torch.float64 else torch.float32
        sums = torch.ones(1, 1, dtype=wide, device=self.weight.device)
        size = []
        for axis, taps in enumerate(self.weight.shape[2:]):
            one = torch.eye(taps, dtype=wide, device=sums.device).flip(0)
            if axis in self.doubled:
                one = F.pad(one, (0, 1)) + F.pad(one, (1, 0))
            sums = torch.kron(sums, one)
            size.append(one.shape[1])
        with torch.autocast(self.weight.device.type, enabled=False):
            summed = self.weight.flatten(2).to(wide) @ sums
        return summed.view(*summed.shape[:2], *size).transpose(0, 1)
