"""Wasserstein GAN in 2D and 3D (Arjovsky et al. 2017; with gradient penalty, Gulrajani et al. 2017)."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tomogen.batch import Batch
from tomogen.errors import RecipeMismatch
from tomogen.layers.activation import LeakyReLU
from tomogen.layers.conv import Conv, UpConv
from tomogen.layers.norm import VoxelNorm
from tomogen.layers.pyramid import Pyramid
from tomogen.losses.wasserstein import clip_weights, critic_loss, generator_loss, gradient_penalty
from tomogen.synthesizer import Synthesizer, Turn


@dataclass(frozen=True, kw_only=True)
class Config(Pyramid):
    """The size of the images, the networks, and the rules of the game."""

    shape: tuple[int, ...] = (64, 64, 64)
    """Voxels per axis, slow axis first; each a multiple of 2^doublings under `conv`."""
    network: Literal["conv", "mlp"] = "conv"
    """Convolutional, or the published fully connected networks, which leave the pyramid out."""
    latent: int = 1000
    """Numbers of noise per image."""
    critic_turns: int = 5
    """Moves of the critic before each move of the generator."""
    penalty: float = 10.0
    """Weight of the gradient penalty; 0 for none."""
    clip: float = 0.0
    """Bound of the critic's weights; 0 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latent", "critic_turns"):
            if getattr(self, name) < 1:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name)}; at least 1")
        if (self.penalty > 0) == (self.clip > 0) or min(self.penalty, self.clip) < 0:
            raise RecipeMismatch(
                f"`penalty` {self.penalty:g} and `clip` {self.clip:g}: one of the two bounds the critic's slope",
                fix="set the other to 0",
            )

    @property
    def step(self) -> int:
        """What the voxels of each axis are a multiple of."""
        return super().step if self.network == "conv" else 1


class Generator(nn.Module):
    """Noise `(B, latent)` to images `(B, 1, *shape)`: a seed grid, doubled up to size."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dims, widths = config.dims, config.widths[::-1]
        self.seed = nn.Sequential(
            nn.Linear(config.latent, widths[0] * math.prod(config.seed)),
            nn.Unflatten(1, (widths[0], *config.seed)),
            VoxelNorm(widths[0]),
            nn.ReLU(),
        )
        self.body = nn.Sequential(
            *[
                nn.Sequential(UpConv(dims, a, b, bias=False), VoxelNorm(b), nn.ReLU())
                for a, b in itertools.pairwise(widths)
            ]
        )
        self.image = UpConv(dims, widths[-1], 1, bias=False)

    def forward(self, noise: Tensor) -> Tensor:
        """Images on -1..1."""
        features = self.body(self.seed(noise))  # (B, width, *shape / 2)
        image: Tensor = self.image(features).float()  # (B, 1, *shape)
        return image.tanh()


class Critic(nn.Module):
    """Images `(B, 1, *shape)` to one score each, `(B,)`: halved down to the seed grid, no normalisation."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dims = config.dims
        self.body = nn.Sequential(
            *[nn.Sequential(Conv(dims, a, b, 4, 2), LeakyReLU()) for a, b in itertools.pairwise([1, *config.widths])]
        )
        # No bias: added to all scores alike, it changes no loss, and Adam would let rounding carry it away.
        self.score = nn.Linear(config.widths[-1] * math.prod(config.seed), 1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """One number for a whole image, in float32: bfloat16 holds two to three digits."""
        features = self.body(image).flatten(1)  # (B, widest * seed)
        with torch.autocast(image.device.type, enabled=False):
            score: Tensor = self.score(features.float()).squeeze(1)  # (B,)
        return score


class DenseGenerator(nn.Sequential):
    """Noise `(B, latent)` to images `(B, 1, *shape)` by fully connected layers, as published for 64 x 64.

    Batch norm has an eps of 1e-5; the published 0.8 was a momentum given in the place of eps.
    """

    def __init__(self, config: Config) -> None:
        wide = [128, 256, 512, 1024]
        layers: list[nn.Module] = [nn.Linear(config.latent, wide[0]), LeakyReLU()]
        for a, b in itertools.pairwise(wide):
            layers += [nn.Linear(a, b), nn.BatchNorm1d(b, eps=1e-5), LeakyReLU()]
        layers += [nn.Linear(wide[-1], math.prod(config.shape)), nn.Tanh(), nn.Unflatten(1, (1, *config.shape))]
        super().__init__(*layers)


class DenseCritic(nn.Sequential):
    """Images `(B, 1, *shape)` to one score each, `(B,)`, by fully connected layers, as published."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(math.prod(config.shape), 512),
            LeakyReLU(),
            nn.Linear(512, 256),
            LeakyReLU(),
            nn.Linear(256, 1),
            nn.Flatten(0),
        )


NETWORKS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "conv": (Generator, Critic),
    "mlp": (DenseGenerator, DenseCritic),
}


class Model(Synthesizer):
    """Critic and generator, and their turns."""

    players = ("critic", "generator")
    averaged = ("generator",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.shape = config.shape
        generator, critic = NETWORKS[config.network]
        self.generator = generator(config)
        self.critic = critic(config)

    def turns(self, step: int) -> Iterator[Turn]:
        """The critic several times, each on new images, then the generator once."""
        for _ in range(self.config.critic_turns):
            yield Turn("critic")
        yield Turn("generator", fresh=False)

    def forward(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        """Loss terms of the critic's or the generator's move."""
        real = batch.image
        noise = batch.normal("noise " + turn.player, self.config.latent)
        if turn.player == "generator":
            return {"adversarial": generator_loss(self.critic(self.generator(noise)))}
        with torch.no_grad():
            fake = self.generator(noise)
        scores = self.critic(torch.cat([real, fake]))  # one call: nothing in the critic pools over the batch
        losses = {"adversarial": critic_loss(*scores.chunk(2))}
        if self.config.penalty:
            share = batch.uniform("share")
            losses["penalty"] = self.config.penalty * gradient_penalty(self.critic, real, fake, share)
        return losses

    def after(self, turn: Turn) -> None:
        """Clip the critic's weights where clipping is what bounds its slope."""
        if turn.player == "critic" and self.config.clip:
            clip_weights(self.critic.parameters(), self.config.clip)

    def noise_shape(self, count: int) -> tuple[int, ...]:
        """`(count, latent)`."""
        return count, self.config.latent

    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Images `(B, 1, *shape)`."""
        image: Tensor = self.generator(noise)
        return image
