"""From pictures to the volume that they show: whose axes are whose, and maps that are repeated along the depth.

Volumes here are in the frame of the picture of a viewing box, `(B, C, D, H, W)`: D from the head down, H from front to
back, W from the patient's right to the left. It is the frame of X2CT-GAN (Ying 2019); the house's volumes have D from
the feet up, all else is the same. Rows of every picture run along D. A frontal picture has columns along W and the rays
along H; a lateral one has columns along H and the rays along W. A view's own frame is `(B, C, depth, rows, columns)`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.layers.conv import CONV, channels_last
from tomogen.layers.dense import NormReLU
from tomogen.layers.instancenorm import EPS, InstanceNorm

FRONTAL, LATERAL = ("pa", "ap"), ("lateral", "left", "right")
"""Views whose columns and rays run along the axes of the volume, as `radiography.geometry` hangs them."""
MIRRORED = ("right",)
"""Those whose columns run against the volume's axis: a right lateral has the front of the chest on the right."""

KEPT = 5
"""Slices of a map repeated along the depth that two convolutions of kernel 3 can tell apart: two at either end, which
feel the border, and all between them, which are alike."""


def upright(volume: Tensor) -> Tensor:
    """A volume of the house `(B, C, D, H, W)` in the frame of pictures, or back: D turned round."""
    return volume.flip(2)


def into_view(volume: Tensor, view: str) -> Tensor:
    """A volume in the frame of pictures as `view` sees it: `(B, C, depth, rows, columns)`."""
    return volume.permute(0, 1, 3, 2, 4) if view in FRONTAL else volume.permute(0, 1, 4, 2, 3)


def from_view(volume: Tensor, view: str) -> Tensor:
    """What `into_view` gave, back."""
    return volume.permute(0, 1, 3, 2, 4) if view in FRONTAL else volume.permute(0, 1, 3, 4, 2)


def aligned(pictures: Tensor, views: Sequence[str]) -> Tensor:
    """Pictures `(B, views, n, n)` with columns along the volume's axes: mirrored ones turned back."""
    if not set(views) & set(MIRRORED):
        return pictures
    found = [picture.flip(-1) if view in MIRRORED else picture for picture, view in _each(pictures, views)]
    return torch.stack(found, 1)


def smeared(pictures: Tensor, views: Sequence[str]) -> Tensor:
    """Each picture of `(B, views, n, n)` repeated along its rays, as the channels of a volume `(B, views, n, n, n)`."""
    depth = pictures.shape[-1]
    channels = [
        from_view(picture[:, None, None].expand(-1, -1, depth, -1, -1), view)
        for picture, view in _each(pictures, views)
    ]
    return torch.cat(channels, 1)


def _each(pictures: Tensor, views: Sequence[str]) -> "zip[tuple[Tensor, str]]":
    return zip(pictures.unbind(1), views, strict=True)


class Link(nn.Module):
    """Connection B: a 2D map `(B, inside, n, n)` to 3D features in the view's frame (Ying 2019, figure 4 b).

    1 x 1 convolution, norm, ReLU, repeated n times along a new axis of depth, 3 x 3 x 3 convolution, norm, ReLU. Of
    the result, and of what the next convolution makes of it, all slices but two at either end are alike: `KEPT` of
    them are computed, and stand for all. The numbers are the same; at 128^3 the work is a twenty-fifth.
    """

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inside, outside, 1, bias=False)
        self.spread = nn.Conv3d(outside, outside, 3, padding=1, bias=False)
        self.act = NormReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """`(B, outside, min(n, 5), n, n)`: short of its middle slices."""
        flat = self.act(self.squeeze(channels_last(maps)))
        depth = flat.shape[-1]
        short = flat[:, :, None].expand(-1, -1, min(depth, KEPT), -1, -1)
        spread = CONV[3](channels_last(short), self.spread.weight, None, 1, 1)
        return F.relu_(_normalised(spread, depth))


class Compress(nn.Module):
    """Convolution 3 x 3 x 3 of features and, behind them as further channels, of a `Link`'s; norm, ReLU.

    The convolution of both is the sum of one of each, so that the link's is made of its few slices.
    """

    def __init__(self, inside: int, linked: int, outside: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outside, inside + linked, 3, 3, 3))
        self.inside = inside
        self.act = NormReLU()

    def forward(self, features: Tensor, short: Tensor | None = None) -> Tensor:
        """`(B, outside, n, n, n)` of features `(B, inside, n, n, n)` and a link's `(B, linked, min(n, 5), n, n)`."""
        made = CONV[3](channels_last(features), self.weight[:, : self.inside], None, 1, 1)
        if short is not None:
            few = CONV[3](channels_last(short), self.weight[:, self.inside :], None, 1, 1)
            made = _Added.apply(made, few)  # type: ignore[no-untyped-call]
        result: Tensor = self.act(made)
        return result


def whole(short: Tensor, depth: int) -> Tensor:
    """All slices of a tensor of which only `KEPT` along axis 2 were computed."""
    if short.shape[2] == depth:
        return short
    middle = short[:, :, 2:3].expand(-1, -1, depth - KEPT + 1, -1, -1)
    return torch.cat([short[:, :, :2], middle, short[:, :, 3:]], 2)


def _normalised(short: Tensor, depth: int) -> Tensor:
    """Instance norm over all slices of a tensor of which only `KEPT` are there."""
    if short.shape[2] == depth:
        result: Tensor = InstanceNorm()(short)
        return result
    wide = short.float() if short.dtype in (torch.bfloat16, torch.float16) else short
    share = wide.new_tensor([1, 1, depth - KEPT + 1, 1, 1]).div_(depth).view(1, 1, -1, 1, 1)
    centred = wide - (wide.mean((3, 4), keepdim=True) * share).sum(2, keepdim=True)
    variance = (centred.square().mean((3, 4), keepdim=True) * share).sum(2, keepdim=True)
    return (centred * (variance + EPS).rsqrt()).to(short.dtype)


class _Added(torch.autograd.Function):
    """`full + whole(short)`, in the memory of `full`."""

    @staticmethod
    def forward(ctx: object, full: Tensor, short: Tensor) -> Tensor:
        ctx.same = short.shape[2] == full.shape[2]  # type: ignore[attr-defined]
        ctx.mark_dirty(full)  # type: ignore[attr-defined]
        if ctx.same:  # type: ignore[attr-defined]
            return full.add_(short)
        full[:, :, :2] += short[:, :, :2]
        full[:, :, 2:-2] += short[:, :, 2:3]
        full[:, :, -2:] += short[:, :, 3:]
        return full

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, Tensor]:
        if ctx.same:  # type: ignore[attr-defined]
            return gradient, gradient
        middle = gradient[:, :, 2:-2].sum(2, keepdim=True)
        return gradient, torch.cat([gradient[:, :, :2], middle, gradient[:, :, -2:]], 2)
