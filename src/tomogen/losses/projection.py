"""What a volume throws as a shadow, compared: along parallel rays with the true volume's, or with the radiographs."""

import torch
from torch import Tensor

DARKEST, BRIGHTEST = 1e-3, 1 - 1e-3
"""A picture's pixels beyond these are clipped, and say only that there was less, or more."""


def shadows(volume: Tensor) -> list[Tensor]:
    """Means of a volume's absolute values along each of its three axes: `(B, C, D, H, W)` to three `(B, C, .., ..)`."""
    return [volume.float().abs().mean(axis) for axis in (2, 3, 4)]


def parallel_loss(made: Tensor, real: Tensor) -> Tensor:
    """Mean distance of the shadows of two volumes `(B, C, D, H, W)` (Ying 2019, eq. 4, as the released code has it).

    The paper takes three orthogonal planes of parallel rays and the 1-norm; the released code the mean of the
    absolute values along each axis.
    """
    pairs = zip(shadows(made), shadows(real), strict=True)
    return torch.stack([(a - b).abs().mean() for a, b in pairs]).mean()


def reprojection_loss(integrals: Tensor, pictures: Tensor) -> Tensor:
    """Mean square of what is left of radiographs on 0..1 once the line integrals are fitted to them.

    Both are `(B, views, rows, columns)`. A radiograph's exposure is unknown: of line integrals it shows a p + b
    between two percentiles, with whatever a and b. For each picture the a and b of least squares are taken, over the
    pixels that are not clipped; what they leave does not depend on brightness and contrast.
    """
    pictures, integrals = pictures.float(), integrals.float()
    seen = ((pictures > DARKEST) & (pictures < BRIGHTEST)).float()
    count = seen.sum((2, 3), keepdim=True).clamp(min=1)

    def centred(values: Tensor) -> Tensor:
        return (values - (values * seen).sum((2, 3), keepdim=True) / count) * seen

    p, x = centred(integrals), centred(pictures)
    slope = (p * x).sum((2, 3), keepdim=True) / p.square().sum((2, 3), keepdim=True).clamp(min=1e-12)
    left = (x - slope * p).square().sum((2, 3), keepdim=True) / count
    return left.mean()
