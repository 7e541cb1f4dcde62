"""How much of its code an autoencoder uses: running statistics that nothing is trained by."""

import torch
from torch import Tensor, nn

ACTIVE = 0.01
"""Least variance of an active unit's mean (Burda et al. 2016, section 5.1)."""
DECAY = 0.98
"""Of the statistics, per batch: they are those of some fifty batches."""


class Activity(nn.Module):
    """Running means, over batches, of each number's posterior mean, of its square, and of each channel's KL."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.mean: Tensor
        self.square: Tensor
        self.divergence: Tensor
        self.weight: Tensor
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("square", torch.zeros(shape))
        self.register_buffer("divergence", torch.zeros(shape[0]))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def see(self, mean: Tensor, divergence: Tensor) -> None:
        """Take in a batch: the means of its codes and the KL in nats of each number, both `(B, *shape)`."""
        mean = mean.float()
        self.mean.lerp_(mean.mean(0), 1 - DECAY)
        self.square.lerp_(mean.square().mean(0), 1 - DECAY)
        self.divergence.lerp_(divergence.float().mean(0).flatten(1).sum(1), 1 - DECAY)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - DECAY)

    def active(self) -> Tensor:
        """Which numbers are active units, `shape` of booleans: the variance of E[z|x] over images is above 0.01."""
        weight = self.weight.clamp(min=1 - DECAY)
        return self.square / weight - (self.mean / weight).square() > ACTIVE

    def told(self) -> dict[str, float]:
        """For the log: `active units` as a share of all, `kl` in nats an image, and of it each channel's `kl 00`."""
        weight = self.weight.clamp(min=1 - DECAY)
        channels: list[float] = (self.divergence / weight).tolist()
        each = {f"kl {number:02d}": value for number, value in enumerate(channels)}
        return {"active units": float(self.active().float().mean()), "kl": sum(channels)} | each
