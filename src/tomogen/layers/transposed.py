"""Transposed convolution that doubles an image, named once for 2D and 3D."""

import torch
from torch import Tensor, nn

from tomogen.layers.conv import TRANSPOSED, channels_last


class TransposedConv(nn.Module):
    """`(B, inside, *space)` to `(B, outside, *2 space)`: kernel 4, stride 2, padding 1, no bias.

    Every voxel of the result gathers 2 of the kernel's 4 taps along each axis, all of its own: more freedom than
    `UpConv`, whose neighbours share theirs, and with it the checkerboards that transposed convolution is known for.
    """

    def __init__(self, dims: int, inside: int, outside: int) -> None:
        super().__init__()
        self.dims = dims
        self.weight = nn.Parameter(torch.empty(inside, outside, *[4] * dims))
        nn.init.kaiming_normal_(self.weight.transpose(0, 1), a=0.2)

    def forward(self, image: Tensor) -> Tensor:
        """The doubled image."""
        return TRANSPOSED[self.dims](channels_last(image), self.weight, None, 2, 1)
