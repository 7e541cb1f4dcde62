"""Convolutions named once for 2D and 3D; each computes in the fastest way that gives the same result.

The weights are those of the plain layer in its plain memory order, whatever way is taken: checkpoints, weight
averages and optimizers see nothing of it. The figures are process CPU time on two cores without AMX.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW = 2
"""Voxels along an axis of the result, up to which a 3D convolution on a processor takes float32 in place of bf16."""


def conv3d(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """torch's, whose gradient to the weight is right.

    On processors torch 2.13 leaves part of that gradient unwritten in bf16 where the result is 2 voxels deep (kernel
    3), or 1 x 1 in the plane (kernel 4, stride 2): garbage, and sometimes NaN. So small results are made in float32.
    """
    if not (image.device.type == "cpu" and _in_bf16(image) and _small(image, weight, stride, padding)):
        return F.conv3d(image, weight, bias, stride, padding, dilation, groups)
    with torch.autocast("cpu", enabled=False):
        exact = None if bias is None else bias.float()
        made = F.conv3d(image.float(), weight.float(), exact, stride, padding, dilation, groups)
    return made.to(torch.bfloat16)


def _in_bf16(image: Tensor) -> bool:
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return image.dtype == torch.bfloat16


def _small(image: Tensor, weight: Tensor, stride: int | Sequence[int], padding: int | Sequence[int]) -> bool:
    strides, paddings = ([one] * 3 if isinstance(one, int) else one for one in (stride, padding))
    sizes = zip(image.shape[2:], weight.shape[2:], strides, paddings, strict=True)
    return min((size + 2 * pad - kernel) // step + 1 for size, kernel, step, pad in sizes) <= FEW


CONV: dict[int, Callable[..., Tensor]] = {2: F.conv2d, 3: conv3d}
TRANSPOSED = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


class Conv(nn.Module):
    """Convolution `(B, inside, *space)` to `(B, outside, *space / stride)`, zeros outside the image.

    `kernel` is 4 with stride 2, and odd with stride 1, so that sizes halve or stay exactly.
    """

    def __init__(
        self, dims: int, inside: int, outside: int, kernel: int = 3, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        if (stride, kernel % 2) not in ((1, 1), (2, 0)):
            raise ValueError(f"a kernel of {kernel} with stride {stride} neither keeps nor halves a size")
        self.dims, self.kernel, self.stride = dims, kernel, stride
        self.padding = (kernel - 1) // 2
        self.weight = nn.Parameter(torch.empty(outside, inside, *[kernel] * dims))
        self.bias = nn.Parameter(torch.zeros(outside)) if bias else None
        nn.init.kaiming_normal_(self.weight, a=0.2)

    def forward(self, image: Tensor) -> Tensor:
        """The convolution of `image`."""
        if len(self.weight) == 1 and self.stride == 1 and self.kernel > 1:
            return self._by_taps(image)
        if self.weight.shape[1] == 1 and self.stride == 2 and self.kernel == 4:
            return self._by_blocks(image)
        return CONV[self.dims](channels_last(image), self.weight, self.bias, self.stride, self.padding)

    def _by_taps(self, image: Tensor) -> Tensor:
        """To one channel: the kernel's last axis becomes output channels, which are then shifted and added.

        A convolution to one channel leaves most of a vector register empty (k 3 in bf16: 295 to 92 core-ms).
        """
        taps = self.weight.movedim(-1, 0).squeeze(1).unsqueeze(-1)  # (k, inside, k, .., 1)
        padding = [self.padding] * (self.dims - 1) + [0]
        parts = CONV[self.dims](channels_last(image), taps, None, 1, padding)
        wide = F.pad(parts.float() if parts.dtype == torch.bfloat16 else parts, (self.padding, self.padding))
        total = torch.zeros_like(parts[:, :1], dtype=wide.dtype)
        for tap in range(self.kernel):
            total = total + wide[:, tap : tap + 1, ..., tap : tap + image.shape[-1]]
        if self.bias is not None:
            total = total + self.bias
        return total.to(parts.dtype)

    def _by_blocks(self, image: Tensor) -> Tensor:
        """From one channel, kernel 4, stride 2: blocks of 2 voxels a side become channels, the kernel becomes 2.

        Slower alone, faster with the gradient to the image, which the penalty and the generator's turn need
        (critic's turn 2.53 to 2.19 s).
        """
        blocks = _blocks(F.pad(image, [1, 1] * self.dims), self.dims)
        weight = _blocks(self.weight, self.dims)
        return CONV[self.dims](blocks, weight, self.bias)


class UpConv(nn.Module):
    """Nearest-neighbour doubling, then a convolution: `(B, inside, *space)` to `(B, outside, *2 space)`.

    Both are one transposed convolution of stride 2, whose kernel is the flipped weight summed over boxes of 2:
    k 3 becomes k 4, 3.4 times fewer operations in 3D and no doubled image (fp32: 216 to 67 core-ms).
    """

    def __init__(self, dims: int, inside: int, outside: int, kernel: int = 3, bias: bool = True) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"a kernel of {kernel} does not keep the size; it must be odd")
        self.dims, self.kernel = dims, kernel
        self.weight = nn.Parameter(torch.empty(outside, inside, *[kernel] * dims))
        self.bias = nn.Parameter(torch.zeros(outside)) if bias else None
        nn.init.kaiming_normal_(self.weight, a=0.2)

    def forward(self, image: Tensor) -> Tensor:
        """The convolution of the doubled `image`."""
        padding = self.kernel - 1 - (self.kernel - 1) // 2
        return TRANSPOSED[self.dims](channels_last(image), self._boxes(), self.bias, 2, padding)

    def _boxes(self) -> Tensor:
        weight = self.weight.transpose(0, 1).flip(list(range(2, 2 + self.dims)))
        for axis in range(2, 2 + self.dims):
            zero = torch.zeros_like(weight.narrow(axis, 0, 1))
            weight = torch.cat([weight, zero], axis) + torch.cat([zero, weight], axis)
        return weight


def channels_last(image: Tensor) -> Tensor:
    """The same image, channels adjacent in memory: convolutions in bf16 then need no reordering."""
    return image.contiguous(memory_format=CHANNELS_LAST[image.ndim - 2])


def _blocks(image: Tensor, dims: int) -> Tensor:
    """`(N, 1, *space)` to `(N, 2^dims, *space / 2)`, channels last: the voxels of each block of 2 as channels."""
    count, _, *space = image.shape
    split = image.reshape(count, *[part for size in space for part in (size // 2, 2)])
    order = [0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2)]
    return split.permute(order).reshape(count, *[size // 2 for size in space], 2**dims).movedim(-1, 1)
