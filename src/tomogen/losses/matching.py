"""What a made image shares with the true one in the eyes of a discriminator."""

from collections.abc import Sequence

import torch
from torch import Tensor


def matching_loss(made: Sequence[Tensor], true: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of a discriminator's features of two images, and the mean over its layers, float32.

    Feature matching as Wang et al. 2018 (pix2pixHD, equation 4) have it: every layer counts alike, whatever its size.
    No gradient flows to the true image's features.
    """
    pairs = zip(made, true, strict=True)
    return torch.stack([(a.float() - b.detach().float()).abs().mean() for a, b in pairs]).mean()
