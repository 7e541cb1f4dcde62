"""Normalisation of a generator's features, named once for 2D and 3D."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class VoxelNorm(nn.Module):
    """Each voxel's features to mean 0 and variance 1 over the channels, then a scale and shift per channel.

    Nothing is pooled over the batch or over space: an image does not depend on those made beside it, nor on how
    many processes train, and a tile is as bright as the whole. With channels last it is layer norm on rows.

    The price: after equal time on 24 phantoms of 32^3 (single runs, energy distance to others) batch norm stood at
    3.2, pixel norm at 6.0, group norm at 6.2, this at 7.1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """`features (B, channels, *space)`, normalised; statistics in float32."""
        rows = F.layer_norm(features.movedim(1, -1), self.weight.shape, self.weight, self.bias)
        return rows.movedim(-1, 1)
