"""Structural similarity at several scales, to be differentiated (Wang, Simoncelli, Bovik 2003)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tomogen.losses.similarity import structure

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, from the finest (2003, section 3.2)."""
SIDE = 11
"""Voxels along the plane's shorter side that a scale has at least: those of the window."""
FLAT = 8
"""Along depth a scale is halved while at least so many slices are left: a slab of 16 is soon as thin as it may be."""


def multiscale_ssim_loss(x: Tensor, y: Tensor, *, stride: int = 2) -> Tensor:
    """`1 - MS-SSIM` (2003, equation 7) of volumes `(B, C, depth, height, width)` on -1..1, the mean over the images.

    Contrast and structure at every scale, luminance at the coarsest. As many of the five scales as the planes hold; the
    weights of those sum to 1. A factor below 0, which has no power, counts as almost 0.
    """
    count = 1
    while count < len(WEIGHTS) and min(x.shape[-2:]) >> count >= SIDE:
        count += 1
    product = torch.ones(len(x), device=x.device)
    for scale, weight in enumerate(WEIGHTS[:count]):
        similarity, contrast = structure(x, y, stride=stride)
        factor = similarity if scale == count - 1 else contrast
        product = product * factor.clamp(min=1e-6) ** (weight / sum(WEIGHTS[:count]))
        if scale < count - 1:
            x, y = (_halved(image.float()) for image in (x, y))
    return 1 - product.mean()


def _halved(image: Tensor) -> Tensor:
    return F.avg_pool3d(image, (2 if image.shape[2] >= 2 * FLAT else 1, 2, 2))
