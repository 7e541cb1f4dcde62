"""Instance norm, named once for 2D and 3D."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.layers.conv import channels_last

EPS = 1e-5


class InstanceNorm(nn.Module):
    """Each channel of each image to mean 0 and variance 1 over space (Ulyanov 2016); no weights, no running means.

    Statistics are the image's own in training and in evaluation alike, in float32. An image does not depend on those
    made beside it, but a tile is not as bright as the whole: what must tile takes `VoxelNorm`.

    In bfloat16 images go one by one through the kernels of batch norm, with ones and zeros of float32 for its weights:
    torch's own leaves channels-last memory (128^3: 47 to 26 core-ms). That kernel adds up its voxels one after
    another, which costs float32 three digits (64^3: 2e-4 off against 7e-7), so wider types take torch's own. There the
    gradient must arrive in plain memory: of a batch of one, torch 2.13 reads a channels-last gradient in wrong order.
    """

    def forward(self, features: Tensor) -> Tensor:
        """`features (B, channels, *space)`, normalised, in their own type."""
        if features.dtype != torch.bfloat16:
            normed = F.instance_norm(features, eps=EPS)
            if normed.requires_grad:
                normed.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]
            return normed
        features = channels_last(features)
        one = torch.ones(features.shape[1], device=features.device)
        zero = torch.zeros_like(one)
        rows = [F.batch_norm(row, None, None, one, zero, True, 0.0, EPS) for row in torch.split(features, 1)]
        return rows[0] if len(rows) == 1 else torch.cat(rows)
