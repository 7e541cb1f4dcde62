"""Batch norm named once for 2D and 3D, with the statistics of a whole batch however many processes hold it."""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

MOMENTUM = 0.1
"""Weight of the newest batch in the running statistics."""
EPS = 1e-5


class BatchNorm(nn.Module):
    """Each channel of `(B, channels, *space)` to mean 0 and variance 1, then a scale and shift (Ioffe 2015).

    In training the statistics are those of the batch, over all processes together: two of them with half a batch
    each compute what one does. Micro-batches are batches of their own here, and change the result.
    In evaluation they are the running means of what training saw, so that an image does not depend on those made
    beside it. With `running=False` none are kept, and evaluation normalises as training does: for a network that
    only judges.
    """

    def __init__(self, channels: int, running: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.mean: Tensor | None
        self.variance: Tensor | None
        self.register_buffer("mean", torch.zeros(channels) if running else None)
        self.register_buffer("variance", torch.ones(channels) if running else None)

    def forward(self, features: Tensor) -> Tensor:
        """`features`, normalised, in their own type; statistics in float32."""
        training = self.training or self.mean is None
        if training and distributed.is_available() and distributed.is_initialized():
            return self._together(features)
        return F.batch_norm(features, self.mean, self.variance, self.weight, self.bias, training, MOMENTUM, EPS)

    def _together(self, features: Tensor) -> Tensor:
        """By the statistics of all processes, which hold equal shares of the batch."""
        axes = [0, *range(2, features.ndim)]
        across = (-1, *[1] * (features.ndim - 2))
        wide = features.float()
        mean = _Mean.apply(wide.mean(axes))  # type: ignore[no-untyped-call]
        centred = wide - mean.view(across)
        # Of the centred values: the difference of two large sums would lose the digits of a small variance.
        variance = _Mean.apply(centred.square().mean(axes))  # type: ignore[no-untyped-call]
        if self.training and self.mean is not None and self.variance is not None:
            count = wide.numel() // wide.shape[1] * distributed.get_world_size()
            with torch.no_grad():
                self.mean.lerp_(mean, MOMENTUM)
                self.variance.lerp_(variance * count / max(1, count - 1), MOMENTUM)
        scale = self.weight * (variance + EPS).rsqrt()
        result: Tensor = centred * scale.view(across) + self.bias.view(across)
        return result.to(features.dtype)


class _Mean(torch.autograd.Function):
    """Mean over the processes; so is its gradient, as each process's loss counts by its share."""

    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        return _mean(share)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _mean(gradient)


def _mean(share: Tensor) -> Tensor:
    total = share.contiguous().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
