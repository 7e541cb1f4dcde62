"""What a discriminator is told of the variety among images: a generator that makes one image is found out."""

import torch
from torch import Tensor, nn

EPS = 1e-8


class GroupDeviation(nn.Module):
    """Appends a channel to `(B, C, *space)`: the mean standard deviation of the features within groups of images.

    Karras et al. 2018, section 3, in groups as of Karras et al. 2019. A group is `size` images side by side, or the
    largest divisor of B that is not larger. So the groups are the same however a batch is dealt out to processes and
    micro-batches, as long as `size` divides what each takes; otherwise the losses differ a little.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        """`(B, C + 1, *space)`; the statistic in float32."""
        count = len(features)
        size = next(n for n in range(min(self.size, count), 0, -1) if count % n == 0)
        with torch.autocast(features.device.type, enabled=False):
            groups = features.float().view(-1, size, *features.shape[1:])  # (groups, size, C, *space)
            deviation = (groups.var(1, correction=0) + EPS).sqrt().flatten(1).mean(1)  # (groups,)
        channel = deviation.repeat_interleave(size).to(features.dtype)
        space = features.shape[2:]
        return torch.cat([features, channel.view(-1, 1, *[1] * len(space)).expand(-1, -1, *space)], 1)
