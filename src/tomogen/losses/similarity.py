"""Structural similarity that can be differentiated, in 2D and 3D (Wang, Bovik, Sheikh, Simoncelli 2004).

Images are on -1..1, moved here to 0..1 so that none is negative: the range of the data is then the window's, 1400 HU
of -1000..400, not the 4024 HU of the scores, and C1 = .01^2 and C2 = .03^2 weigh less: this loss is the stricter.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

SIGMA, TAPS = 1.5, 11
C1, C2 = 0.01**2, 0.03**2
CONV = {2: F.conv2d, 3: F.conv3d}


def ssim(x: Tensor, y: Tensor, *, stride: int = 1) -> Tensor:
    """Mean SSIM (2004, equation 13) of each pair of images `(B, C, *space)` on -1..1: `(B,)`, float32.

    A Gaussian window of sigma 1.5 and 11 taps along every axis, or on a shorter axis of as many as fit, an odd number.
    The mean is over windows wholly inside the images; `stride` looks at every so many only: at 2 its mean hardly
    differs, at an eighth of the memory in 3D.
    """
    similarity, _ = structure(x, y, stride=stride)
    return similarity


def structure(x: Tensor, y: Tensor, *, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Of each pair: mean SSIM, and the mean of its factor of contrast and structure (2003, equations 2 and 3).

    With u = x + y and d = x - y four maps are smoothed in the place of five; equal images score 1 exactly.

    Raises:
        ValueError: unlike shapes.
    """
    if x.shape != y.shape:
        raise ValueError(f"images of unlike shapes, {tuple(x.shape)} and {tuple(y.shape)}")
    count, dims = len(x), x.ndim - 2
    with torch.autocast(x.device.type, enabled=False):
        x, y = (x.float() + 1) / 2, (y.float() + 1) / 2
        sum_, difference = x + y, x - y
        maps = torch.stack([sum_, difference, sum_.square(), difference.square()])  # (4, B, C, *space)
        means = _smooth(maps.reshape(-1, 1, *x.shape[2:]), dims, stride)
        mean_u, mean_d, square_u, square_d = means.reshape(4, count, -1)  # each (B, C windows)
        mean_u, mean_d_square = mean_u.square(), mean_d.square()
        var_u, var_d = square_u - mean_u, square_d - mean_d_square
        contrast = 1 - var_d / ((var_u + var_d) / 2 + C2)
        luminance = 1 - mean_d_square / ((mean_u + mean_d_square) / 2 + C1)
        return (luminance * contrast).mean(1), contrast.mean(1)


def ssim_loss(x: Tensor, y: Tensor, *, stride: int = 2) -> Tensor:
    """`1 - SSIM`, the mean over the images; 0 for equal ones."""
    return 1 - ssim(x, y, stride=stride).mean()


def _smooth(maps: Tensor, dims: int, stride: int) -> Tensor:
    """Means of `maps (N, 1, *space)` under the Gaussian window, one axis after the other."""
    for axis in range(dims):
        taps = min(TAPS, (maps.shape[2 + axis] - 1) // 2 * 2 + 1)
        place = [taps if other == axis else 1 for other in range(dims)]
        steps = [stride if other == axis else 1 for other in range(dims)]
        maps = CONV[dims](maps, _gaussian(taps, maps).view(1, 1, *place), None, steps)
    return maps


def _gaussian(taps: int, like: Tensor) -> Tensor:
    """A window of `taps` that sums to 1."""
    place = torch.arange(taps, dtype=like.dtype, device=like.device) - taps // 2
    weights = (-(place / SIGMA).square() / 2).exp()
    return weights / weights.sum()
