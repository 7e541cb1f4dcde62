"""What keeps the two players of a style-based GAN smooth: R1 for the one, path length for the other.

Both are gradients of a network whose own gradient is then followed, in float32 whatever precision surrounds them.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """Half the mean squared slope of a discriminator at real images (Mescheder 2018, eq. 9; gamma is the caller's).

    `real (B, C, *space)`; `discriminator` gives one score an image, `(B,)`.
    """
    with torch.autocast(real.device.type, enabled=False):
        points = real.detach().float().requires_grad_()
        (slope,) = torch.autograd.grad(discriminator(points).sum(), points, create_graph=True)
    return slope.square().flatten(1).sum(1).mean() / 2


def path_lengths(synthesis: Callable[[Tensor], Tensor], w: Tensor, noise: Tensor) -> Tensor:
    """How far each image moves for a small step of its style, `(B,)`: |J_w^T y| (Karras 2020, section 3.2).

    `w (B, layers, width)`; `synthesis` gives images, and `noise`, standard normal of their shape, is y but for its
    scale: one over the root of the number of voxels, which makes the length independent of the resolution.
    The square is a mean over the layers, all of which share one style in most images.
    """
    with torch.autocast(w.device.type, enabled=False):
        if not w.requires_grad:
            w = w.detach().requires_grad_()
        image = synthesis(w)
        direction = noise / math.sqrt(math.prod(image.shape[2:]))
        (slope,) = torch.autograd.grad((image * direction).sum(), w, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()


def path_penalty(lengths: Tensor, usual: Tensor) -> Tensor:
    """Mean squared distance of path lengths from the `usual` one (Karras 2020, eq. 4): every step moves as far."""
    return (lengths - usual).square().mean()
