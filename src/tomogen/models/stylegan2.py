"""Style-based GAN in 2D and 3D (Karras et al. 2019; 2020, StyleGAN2), written from the papers."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tomogen.batch import Batch, normal, seed_of
from tomogen.cases.feed import Feed
from tomogen.cases.folder import CaseFolder
from tomogen.cases.labels import LABEL, labelled
from tomogen.errors import RecipeMismatch
from tomogen.layers import style
from tomogen.layers.activation import LeakyReLU
from tomogen.layers.equalised import GAIN, EqualConv, EqualLinear
from tomogen.layers.minibatch import GroupDeviation
from tomogen.layers.pyramid import Pyramid
from tomogen.layers.resample import blurred, doubled, halved
from tomogen.layers.running import RunningMean
from tomogen.layers.style import StyledConv, StyledImage
from tomogen.losses.adversarial import fake_loss, generator_loss, real_loss
from tomogen.losses.regularisers import path_lengths, path_penalty, r1_penalty
from tomogen.synthesizer import Synthesizer, Turn

if TYPE_CHECKING:
    from tomogen.recipe import Data

PATH_DECAY = 0.01
"""Of the mean path length, per path turn (Karras 2020, appendix B)."""
MIDDLE = 4096
"""Styles of which the middle is the mean; its error is a 64th of their spread."""


@dataclass(frozen=True, kw_only=True)
class Config(Pyramid):
    """The size of the images, the networks, and the rules of the game."""

    width: int = 256
    """Channels at the image's full size; they double with every halving."""
    latent: int = 512
    """Numbers of z, and of w."""
    mapping: int = 8
    """Layers from z to w."""
    classes: int = 0
    """Classes of images, as the CSV of `[data] labels` has them; 0 for a model without labels."""
    group: int = 4
    """Images over which the discriminator is told the deviation; a divisor of what a process takes at once."""
    mixing: float = 0.9
    """Share of training images made of two styles, so that neighbouring layers do not rely on one another."""
    penalty: float = 10.0
    """Gamma, the weight of the discriminator's squared slope at real images (R1)."""
    penalty_every: int = 16
    """Steps from one turn of R1 to the next; its weight is multiplied by as much. 0 for never."""
    path: float = 2.0
    """Weight of the path length regulariser."""
    path_every: int = 4
    """Steps from one of its turns to the next; its weight is multiplied by as much. 0 for never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latent", "mapping", "group"):
            if getattr(self, name) < 1:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name)}; at least 1")
        for name in ("classes", "penalty_every", "path_every"):
            if getattr(self, name) < 0:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name)}; 0 for none, or more")
        if self.classes == 1:
            raise RecipeMismatch("`classes`: 1 tells nothing apart; 0 for none, or 2 and more")
        if not 0 <= self.mixing <= 1:
            raise RecipeMismatch(f"`mixing`: {self.mixing:g}; from 0 to 1, usually 0.9")
        for name in ("penalty", "path"):
            if not 0 < getattr(self, name) < math.inf:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name):g}; above 0, or `{name}_every` = 0 for none")

    @property
    def widths(self) -> list[int]:
        """Channels at shape, shape / 2 and so on, down to the seed."""
        return [min(self.width * 2**level, self.widest) for level in range(self.doublings + 1)]

    @property
    def grids(self) -> list[tuple[int, ...]]:
        """Voxels per axis from the seed up to the image."""
        return [tuple(size << level for size in self.seed) for level in range(self.doublings + 1)]


class Block(nn.Module):
    """One size of the synthesis: it doubles the features, convolves them twice, and adds to the image."""

    def __init__(self, config: Config, inside: int, outside: int) -> None:
        super().__init__()
        self.up = StyledConv(config.dims, inside, outside, config.latent, up=True)
        self.conv = StyledConv(config.dims, outside, outside, config.latent)
        self.image = StyledImage(outside, config.latent)

    def forward(
        self, features: Tensor, image: Tensor, w: Tensor, noise: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Features and image of twice the size; `w (B, 3, latent)`, `noise` for the two convolutions."""
        features = self.up(features, w[:, 0], noise[0])  # (B, outside, *2 space)
        features = self.conv(features, w[:, 1], noise[1])
        return features, doubled(image) + self.image(features, w[:, 2])


class Generator(nn.Module):
    """Mapping from z to w, and synthesis from w to images: a skip generator (Karras 2020, figure 7b)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.grids = [config.seed, *[grid for grid in config.grids[1:] for _ in range(2)]]
        """Of the noise of each convolution."""
        self.mapping = style.Mapping(config.latent, config.mapping, config.classes)
        self.constant = nn.Parameter(torch.randn(widths[0], *config.seed))
        self.conv = StyledConv(config.dims, widths[0], widths[0], config.latent)
        self.image = StyledImage(widths[0], config.latent)
        self.blocks = nn.ModuleList(Block(config, a, b) for a, b in itertools.pairwise(widths))

    @property
    def voxels(self) -> int:
        """Numbers of noise that the convolutions add to one image."""
        return sum(math.prod(grid) for grid in self.grids)

    def forward(self, w: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        """Images `(B, 1, *shape)` on -1..1, float32; `w (B, layers, latent)`, `noise` for each convolution."""
        features = self.constant.expand(len(w), *self.constant.shape)
        features = self.conv(features, w[:, 0], noise[0])
        image = self.image(features, w[:, 1])
        for level, block in enumerate(self.blocks):
            first = 2 * level + 1  # an image layer shares its style with the next size's first convolution
            features, image = block(features, image, w[:, first : first + 3], noise[first : first + 2])
        result: Tensor = image.tanh()
        return result

    def noises(self, flat: Tensor) -> list[Tensor]:
        """Noise `(B, voxels)` as one image `(B, 1, *space)` for each convolution."""
        parts = torch.split(flat, [math.prod(grid) for grid in self.grids], 1)
        return [part.reshape(-1, 1, *grid) for part, grid in zip(parts, self.grids, strict=True)]


class Halving(nn.Module):
    """One size of the discriminator: `(B, inside, *space)` to `(B, outside, *space / 2)`, residual (figure 7c).

    The sum of two branches is divided by the root of 2, so that its variance stays; leaky ReLU's gain cancels that.
    """

    def __init__(self, dims: int, inside: int, outside: int) -> None:
        super().__init__()
        self.skip = EqualConv(dims, inside, outside, 1, gain=1 / GAIN, bias=False)
        self.conv = EqualConv(dims, inside, inside, gain=GAIN)
        self.down = EqualConv(dims, inside, outside, stride=2)
        self.act = LeakyReLU()

    def forward(self, features: Tensor) -> Tensor:
        """The halved features."""
        main = self.act(self.conv(features))
        main = self.act(self.down(blurred(main, padding=2)))
        result: Tensor = self.skip(halved(features)) + main
        return result


class Discriminator(nn.Module):
    """Images `(B, 1, *shape)` to the logit of being real, `(B,)`; with classes, of being real and of its class.

    The label enters by projection (Miyato & Koyama 2018): its embedding times the last features.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        dims, widths = config.dims, config.widths
        self.image = EqualConv(dims, 1, widths[0], 1, gain=GAIN)
        self.body = nn.Sequential(*[Halving(dims, a, b) for a, b in itertools.pairwise(widths)])
        self.deviation = GroupDeviation(config.group)
        self.last = EqualConv(dims, widths[-1] + 1, widths[-1], gain=GAIN)
        self.dense = EqualLinear(widths[-1] * math.prod(config.seed), widths[-1], gain=GAIN)
        self.score = EqualLinear(widths[-1], 1)
        self.label = EqualLinear(config.classes, widths[-1], gain=config.classes**0.5) if config.classes else None
        self.act = LeakyReLU()

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """One logit for a whole image, in float32."""
        features = self.body(self.act(self.image(image)))  # (B, widest, *seed)
        features = self.act(self.last(self.deviation(features)))
        features = self.act(self.dense(features.flatten(1)))  # (B, widest)
        score: Tensor = self.score(features).squeeze(1)  # (B,)
        if self.label is not None and label is not None:
            score = score + (self.label(label) * features).sum(1) / math.sqrt(features.shape[1])
        return score


class Model(Synthesizer):
    """Generator and discriminator, their turns, and the tools for styles.

    Departures from the published system: one channel; images end in tanh, as half of a scan is air at exactly -1, near
    which an unbounded sum leaves noise that gives it away; the discriminator's turn plays the images that the
    generator's turn made, where they were made anew; the mean style is that of the weights in use, computed when asked
    for, where training kept a moving one; classes have a mean style each; groups of the deviation are images side by
    side.

    The mean path length is compared with as it was before the turn, so that micro-batches and processes, whose
    lengths meet only afterwards, have the losses of one batch. They have them as long as `group` and 2 divide what
    each takes.
    """

    players = ("generator", "discriminator")
    averaged = ("generator",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.shape = config.shape
        self.conditions = (LABEL,) if config.classes else ()  # type: ignore[misc]
        self.style_layers = 2 * config.doublings + 2
        self.generator = Generator(config)
        self.noise_layers = self.generator.grids
        self.discriminator = Discriminator(config)
        self.path_length = RunningMean(PATH_DECAY)

    def feed(self, folder: CaseFolder, data: "Data", split: str = "train") -> Feed:
        """Scans, with their labels where the model has classes."""
        scans = super().feed(folder, data, split)
        return labelled(scans, folder, data.labels, self.config.classes, split)

    def condition_shape(self, name: str) -> tuple[int, ...]:
        """`(classes,)`: one number is 1, the others 0."""
        return (self.config.classes,)

    def turns(self, step: int) -> Iterator[Turn]:
        """Each once, and every few steps a turn of each on its regulariser alone (Karras 2020, section 3.1)."""
        yield Turn("generator")
        yield Turn("discriminator", fresh=False)
        if self.config.path_every and step % self.config.path_every == 0:
            yield Turn("generator", "path", fresh=False)
        if self.config.penalty_every and step % self.config.penalty_every == 0:
            yield Turn("discriminator", "slope", fresh=False)

    def forward(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        """Loss terms of a move."""
        if turn.kind == "path":
            return {"path": self.config.path * self.config.path_every * self._path(batch)}
        label = batch.condition.get(LABEL)
        if turn.kind == "slope":
            slope = r1_penalty(lambda image: self.discriminator(image, label), batch.image)
            return {"slope": self.config.penalty * self.config.penalty_every * slope}
        if turn.player == "generator":
            image = self.generator(*self._drawn(batch, "image"))
            self.hand_on(batch, image)
            return {"adversarial": generator_loss(self.discriminator(image, label))}
        fake = self.handed(batch)
        return {
            "real": real_loss(self.discriminator(batch.image, label)),
            "fake": fake_loss(self.discriminator(fake, label)),
        }

    def after(self, turn: Turn) -> None:
        """The mean path length takes in those of a path turn."""
        if turn.kind == "path":
            self.path_length.settle()

    def noise_shape(self, count: int) -> tuple[int, ...]:
        """`(count, numbers)`: z, the noise of every convolution and, with classes, the number that picks a class."""
        return count, self.config.latent + self.generator.voxels + (1 if self.config.classes else 0)

    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Images `(B, 1, *shape)`. A model with classes that is given no label picks one by the noise, all alike."""
        return self.synthesise(self.styles(noise, condition), noise)

    def styles(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The styles `(B, layers, latent)` of noise: the same w in every layer."""
        label = condition.get(LABEL)
        if label is None and self.config.classes:
            share = torch.special.ndtr(noise[:, -1].double())  # evenly from 0 to 1
            picked = (share * self.config.classes).long().clamp(max=self.config.classes - 1)
            label = nn.functional.one_hot(picked, self.config.classes).float()
        w: Tensor = self.generator.mapping(noise[:, : self.config.latent], label)
        return self._layered(w)

    def middle(self, condition: Mapping[str, Tensor]) -> Tensor:
        """The mean style over z, `(1, layers, latent)`; of a model with classes that of each label given.

        Without a label it is the mean over all classes. The z are always the same ones.
        """
        z = normal([seed_of("middle")], "z", (MIDDLE, self.config.latent))[0].to(self.generator.constant.device)
        if not self.config.classes:
            return self._layered(self.generator.mapping(z).mean(0, keepdim=True))
        given = condition.get(LABEL)
        labels = torch.eye(self.config.classes, device=z.device) if given is None else given
        means = torch.stack([self.generator.mapping(z, label.expand(len(z), -1)).mean(0) for label in labels])
        return self._layered(means.mean(0, keepdim=True) if given is None else means)

    def synthesise(self, styles: Tensor, noise: Tensor | None = None, quiet: Sequence[int] = ()) -> Tensor:
        """Images of styles on -1..1. `noise`, as `generate` takes it, gives the fine detail; None for none.

        `quiet` numbers the convolutions, coarse first, that go without.
        """
        parts: list[Tensor | None] = [None] * len(self.generator.grids)
        if noise is not None:
            first = self.config.latent
            parts = list(self.generator.noises(noise[:, first : first + self.generator.voxels]))
        for layer in quiet:
            parts[layer] = None
        image: Tensor = self.generator(styles, parts)
        return image

    def crossed(self, first: Tensor, second: Tensor, crossover: int) -> Tensor:
        """Noise whose convolutions with a style layer below `crossover` have that of `first`, the others of `second`.

        Convolution k takes layer k; the last layer is the image's, and has none.
        """
        mine = self.config.latent + sum(math.prod(grid) for grid in self.generator.grids[:crossover])
        return torch.cat([first[:, :mine], second[:, mine:]], 1)

    def _drawn(self, batch: Batch, purpose: str) -> tuple[Tensor, list[Tensor]]:
        """Styles and noise for training images, most of them mixed of two styles at a layer of chance."""
        label, layers = batch.condition.get(LABEL), self.style_layers
        z = [batch.normal(f"{purpose} {name}", self.config.latent) for name in ("z", "second z")]
        first, second = (self._layered(self.generator.mapping(one, label)) for one in z)
        chance, place = batch.uniform(f"{purpose} mixing"), batch.uniform(f"{purpose} crossover")
        crossover = torch.where(chance < self.config.mixing, 1 + (place * (layers - 1)).long(), layers)
        coarse = torch.arange(layers, device=first.device) < crossover[:, None]  # (B, layers)
        noise = batch.normal(f"{purpose} noise", self.generator.voxels)
        return torch.where(coarse[:, :, None], first, second), self.generator.noises(noise)

    def _path(self, batch: Batch) -> Tensor:
        """The path length penalty on every second image, as memory is short (Karras 2020, appendix B)."""
        half = Batch(batch.image[::2], {name: rows[::2] for name, rows in batch.condition.items()}, batch.seeds[::2])
        w, noise = self._drawn(half, "path")
        direction = half.normal("path direction", 1, *self.shape)
        lengths = path_lengths(lambda w: self.generator(w, noise), w, direction)
        self.path_length.see(lengths)
        return path_penalty(lengths, self.path_length.value.clone())

    def _layered(self, w: Tensor) -> Tensor:
        return w.unsqueeze(1).expand(-1, self.style_layers, -1)
