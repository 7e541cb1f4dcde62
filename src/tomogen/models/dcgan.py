"""Deep convolutional GAN in 2D and 3D (Radford et al. 2016), with remedies for a discriminator that wins."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from tomogen.batch import Batch
from tomogen.errors import RecipeMismatch
from tomogen.layers.activation import LeakyReLU
from tomogen.layers.batchnorm import BatchNorm
from tomogen.layers.conv import Conv
from tomogen.layers.noise import FadingNoise
from tomogen.layers.pyramid import Pyramid
from tomogen.layers.transposed import TransposedConv
from tomogen.losses.adversarial import fake_loss, generator_loss, real_loss
from tomogen.synthesizer import Synthesizer, Turn

DEVIATION = 0.02
"""Of the weights at birth (Radford 2016, section 4); those of batch norm are drawn around 1."""


@dataclass(frozen=True, kw_only=True)
class Config(Pyramid):
    """The size of the images, the networks, and what holds the discriminator back."""

    latent: int = 100
    """Numbers of noise per image."""
    label_smoothing: float = 0.0
    """The discriminator's label of real images is 1 less this; 0 for certainty."""
    instance_noise: float = 0.0
    """Standard deviation, on -1..1, of the noise on all that the discriminator sees at first; 0 for none."""
    noise_steps: int = 10_000
    """Steps over which that noise fades to nothing."""
    discriminator_norm: Literal["batch", "spectral"] = "batch"
    """Batch norm as published, or weights over their largest singular value (Miyato 2018), which bounds the slope."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latent", "noise_steps"):
            if getattr(self, name) < 1:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name)}; at least 1")
        if not 0 <= self.label_smoothing < 0.5:
            raise RecipeMismatch(f"`label_smoothing`: {self.label_smoothing:g}; from 0 to below 0.5, usually 0.1")
        if not 0 <= self.instance_noise < math.inf:
            raise RecipeMismatch(f"`instance_noise`: {self.instance_noise:g}; 0 or more, usually 0.1")
        if math.prod(self.seed) == 1:
            raise RecipeMismatch(
                f"`doublings`: {self.doublings} halvings leave one voxel, of which batch norm has no variance; "
                f"at most {self.doublings - 1}"
            )


class Generator(nn.Module):
    """Noise `(B, latent)` to images `(B, 1, *shape)`: a seed grid, doubled up to size (Radford 2016, figure 1)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dims, widths = config.dims, config.widths[::-1]
        # The published transposed convolution of a single voxel to the seed grid is this linear layer.
        self.seed = nn.Sequential(
            nn.Linear(config.latent, widths[0] * math.prod(config.seed), bias=False),
            nn.Unflatten(1, (widths[0], *config.seed)),
            BatchNorm(widths[0]),
            nn.ReLU(),
        )
        self.body = nn.Sequential(
            *[nn.Sequential(TransposedConv(dims, a, b), BatchNorm(b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
        )
        self.image = TransposedConv(dims, widths[-1], 1)
        _draw(self)

    def forward(self, noise: Tensor) -> Tensor:
        """Images on -1..1."""
        features = self.body(self.seed(noise))  # (B, width, *shape / 2)
        image: Tensor = self.image(features).float()  # (B, 1, *shape)
        return image.tanh()


class Discriminator(nn.Module):
    """Images `(B, 1, *shape)` to the logit of being real, `(B,)`: halved down to the seed grid."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dims, spectral = config.dims, config.discriminator_norm == "spectral"
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise([1, *config.widths]):
            layers.append(Conv(dims, a, b, 4, 2, bias=spectral))
            if a > 1 and not spectral:  # published: no batch norm on the image itself
                layers.append(BatchNorm(b, running=False))
            layers.append(LeakyReLU())
        self.body = nn.Sequential(*layers)
        self.score = nn.Linear(config.widths[-1] * math.prod(config.seed), 1, bias=spectral)
        _draw(self)
        if spectral:  # last: it starts from the weights as they were drawn
            for layer in [*self.body, self.score]:
                if isinstance(layer, Conv | nn.Linear):
                    spectral_norm(layer)

    def forward(self, image: Tensor) -> Tensor:
        """One logit for a whole image, in float32: bfloat16 holds two to three digits."""
        with parametrize.cached():  # a convolution asks for its weight more than once
            features = self.body(image).flatten(1)  # (B, widest * seed)
            with torch.autocast(image.device.type, enabled=False):
                score: Tensor = self.score(features.float()).squeeze(1)  # (B,)
        return score


class Model(Synthesizer):
    """Discriminator and generator, and their turns.

    Both keep the published batch norm, which pools over a batch: training in micro-batches gives other results
    than training in one. Over several processes the statistics are those of the whole batch. Real and made images
    are separate batches to the discriminator, as published. Generation uses the generator's running statistics, so
    an image depends on its noise alone.
    """

    players = ("discriminator", "generator")
    averaged = ("generator",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.shape = config.shape
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)
        self.noise = FadingNoise(config.instance_noise, config.noise_steps) if config.instance_noise else None

    def turns(self, step: int) -> Iterator[Turn]:
        """Each once."""
        yield Turn("discriminator")
        yield Turn("generator", fresh=False)

    def forward(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        """Loss terms of the discriminator's or the generator's move."""
        noise = batch.normal("noise " + turn.player, self.config.latent)
        if turn.player == "generator":
            return {"adversarial": generator_loss(self._judged(self.generator(noise), batch, "generator's"))}
        with torch.no_grad():
            fake = self.generator(noise)
        real = self._judged(batch.image, batch, "real")
        return {
            "real": real_loss(real, self.config.label_smoothing),
            "fake": fake_loss(self._judged(fake, batch, "fake")),
        }

    def after(self, turn: Turn) -> None:
        """The noise on what the discriminator sees fades with each step."""
        if self.noise is not None and turn.player == "generator":
            self.noise.move()

    def noise_shape(self, count: int) -> tuple[int, ...]:
        """`(count, latent)`."""
        return count, self.config.latent

    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Images `(B, 1, *shape)`."""
        image: Tensor = self.generator(noise)
        return image

    def _judged(self, image: Tensor, batch: Batch, whose: str) -> Tensor:
        """The discriminator's logits `(B,)` of images, noisy where the recipe says so."""
        if self.noise is not None:
            image = self.noise(image, batch.normal(f"noise on {whose} images", 1, *self.shape))
        score: Tensor = self.discriminator(image)
        return score


def _draw(network: nn.Module) -> None:
    """Weights as published: N(0, 0.02), those of batch norm N(1, 0.02), biases 0."""
    for layer in network.modules():
        if isinstance(layer, BatchNorm):
            nn.init.normal_(layer.weight, 1.0, DEVIATION)
        elif isinstance(layer, Conv | TransposedConv | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, DEVIATION)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
