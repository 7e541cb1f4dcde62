"""Residual blocks without any norm that pools over space, named once for 2D and 3D."""

from torch import Tensor, nn

from tomogen.layers.activation import LeakyReLU
from tomogen.layers.conv import Conv
from tomogen.layers.norm import VoxelNorm

GAIN = 0.1
"""Of the branch at birth: a deep stack starts near the identity, and every weight still has a gradient."""


class Residual(nn.Module):
    """`x + branch(x)`, the branch twice norm, leaky ReLU, convolution of 3 (He et al. 2016b, figure 4e).

    A voxel of the result sees `REACH` voxels to each side and nothing else: the norm looks at one voxel alone. So a
    tile with a halo is the whole, which group or instance norm would not let it be.
    """

    REACH = 2

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        last = Conv(dims, channels, channels)
        last.weight.data *= GAIN
        self.branch = nn.Sequential(
            VoxelNorm(channels), LeakyReLU(), Conv(dims, channels, channels), VoxelNorm(channels), LeakyReLU(), last
        )

    def forward(self, features: Tensor) -> Tensor:
        """The same shape."""
        branch: Tensor = self.branch(features)
        return features + branch
