"""X2CT-GAN: a CT from one or two orthogonal radiographs (Ying et al., CVPR 2019), and its variants by switches.

At the published size the graph is the released code's. What that code computes in vain is left out: the views' own
output layers, which feed no loss (2 x 12,417 weights biplanar); biases that an instance norm takes off again; the
discriminator's look at real scans in the generator's turn. No result depends on them. Departures that do matter:

- Dropout is off in `generate`, whatever mode the network is in, and can be 0; the released code always trains with it.
- Instance norm has no running means, so evaluation needs no special mode.
- Volumes here are on -1..1 with slices from the feet up; networks and losses work on the published 0..1, head first.
- Generated values end at 1; the network's own have no upper end.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.batch import Batch
from tomogen.cases.feed import Feed
from tomogen.cases.folder import CaseFolder
from tomogen.cases.xrays import Field, XRays, beam, check_room, projector
from tomogen.errors import DataInvalid, Reason, RecipeMismatch
from tomogen.layers.birth import draw
from tomogen.layers.checkpointing import run
from tomogen.layers.conv import CONV, Conv, channels_last
from tomogen.layers.dense import DenseEncoder, NormReLU, check_halvings
from tomogen.layers.lift import (
    FRONTAL,
    LATERAL,
    Compress,
    Link,
    aligned,
    from_view,
    into_view,
    smeared,
    upright,
    whole,
)
from tomogen.layers.patch import PatchDiscriminator
from tomogen.losses.least_squares import fake_loss, generator_loss, real_loss
from tomogen.losses.projection import parallel_loss, reprojection_loss, shadows
from tomogen.radiography.attenuation import ENERGY, attenuation
from tomogen.synthesizer import Synthesizer, Turn

if TYPE_CHECKING:
    from tomogen.recipe import Data


@dataclass(frozen=True, kw_only=True)
class Config:
    """The radiographs, the networks, what is judged, and the weights of the losses."""

    shape: tuple[int, int, int] = (128, 128, 128)
    """Voxels per axis, all alike; a multiple of 2^halvings."""
    views: tuple[str, ...] = ("pa", "lateral")
    """One radiograph, or a frontal and a lateral one, by their names in `radiography.geometry`."""
    geometry: str = "x2ct"
    """Room in which the training radiographs are shot, by its name there."""
    energy: float = ENERGY
    """keV at which they are computed."""
    field: Field = "detector"
    """What they show at the isocentre: all that the room's detector sees, or the scan's extent."""
    connection_a: bool = True
    """The picture's code through a linear layer to a 3D seed; otherwise the deepest map, repeated."""
    connection_b: bool = True
    """The encoder's maps, repeated along the depth, to every level of the decoder."""
    connection_c: bool = True
    """Both views' features averaged at every level and fed back; otherwise only their volumes are averaged."""
    adversary: bool = True
    """Whether there is a discriminator: the GAN or the CNN of the paper."""
    projections_judged: bool = False
    """Whether a second, 2D discriminator judges the volume's three shadows."""
    halvings: int = 5
    """How often the picture is halved, and the volume doubled."""
    width: int = 64
    """Channels of the encoder at full size."""
    dense: tuple[int, ...] = (6, 12, 24, 16, 6)
    """Layers of the dense block after each halving; the first `halvings` are built."""
    growth: int = 32
    """Channels that a dense layer adds."""
    bottleneck: int = 128
    """Channels inside a dense layer."""
    decoder_width: int = 16
    """Channels of the decoder at full size and at half of it; they double with every further halving."""
    discriminator_width: int = 64
    """Channels of the discriminator's first layer; they double three times."""
    dropout: float = 0.5
    """Part of the 3D seed that is dropped in training."""
    adversarial_weight: float = 0.1
    voxel_weight: float = 10.0
    """Of the mean square error on 0..1."""
    projection_weight: float = 10.0
    """Of the distance between parallel projections."""
    reprojection_weight: float = 0.0
    """Of what the radiographs given differ by from those of the volume made, shot in the same room."""
    spacing: tuple[float, float, float] | None = None
    """mm between voxels; needed by the re-projection, and by nothing else."""
    window: tuple[float, float] | None = None
    """HU of -1 and 1, that of `[data]`; needed by the re-projection, and by nothing else."""
    checkpointing: bool = False
    """Whether features are computed a second time for the gradient instead of kept."""

    def __post_init__(self) -> None:
        for name in ("shape", "views", "dense", "spacing", "window"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_views(self)
        for name in ("halvings", "width", "growth", "bottleneck", "decoder_width", "discriminator_width"):
            if getattr(self, name) < 1:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name)}; at least 1")
        check_halvings(self.shape, self.halvings, self.dense)
        if not 0 <= self.dropout < 1:
            raise RecipeMismatch(f"`dropout`: {self.dropout:g}; from 0 to below 1, usually 0.5")
        weights = {name: getattr(self, name) for name in vars(self) if name.endswith("_weight")}
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise RecipeMismatch(f"`{name}`: {weight:g}; 0 or more")
        if not any(weight for name, weight in weights.items() if name != "adversarial_weight"):
            raise RecipeMismatch("`voxel_weight`: no loss says what the volume is; usually 10")
        if self.adversary and not self.adversarial_weight:
            raise RecipeMismatch("`adversarial_weight`: 0 with an adversary; usually 0.1, or adversary = false")
        if self.projections_judged and not self.adversary:
            raise RecipeMismatch("`projections_judged`: by an adversary; set adversary = true")
        for name in ("spacing", "window"):
            if self.reprojection_weight and getattr(self, name) is None:
                raise RecipeMismatch(f"`{name}`: not set; the re-projection needs it")

    @property
    def widths(self) -> list[int]:
        """Channels of the decoder at full size, at half of it and so on, down to the seed."""
        return [self.decoder_width] + [self.decoder_width * 2**level for level in range(self.halvings)]

    @property
    def seed(self) -> int:
        """Voxels along each axis of the 3D seed."""
        return self.shape[0] >> self.halvings


def _check_views(config: Config) -> None:
    known = FRONTAL + LATERAL
    for view in config.views:
        if view not in known:
            raise RecipeMismatch(f"`views`: no view {view!r} along a scan's axes; there are: {', '.join(known)}")
    kinds = sorted(view in FRONTAL for view in config.views)
    if kinds not in ([False], [True], [False, True]):
        raise RecipeMismatch(f"`views`: {list(config.views)}; one, or a frontal and a lateral one: pa, lateral")
    if len(kinds) == 1 and config.connection_c:
        raise RecipeMismatch("`connection_c`: it joins two views, and there is one; set it to false")
    if not (config.connection_a or config.connection_b):
        raise RecipeMismatch("`connection_b`: a decoder starts from connection A or B; set one to true")
    check_room(config.geometry, config.energy)


class ConvBlock(nn.Module):
    """Convolution 3 x 3 x 3, norm, ReLU."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outside, inside, 3, 3, 3))
        self.act = NormReLU()

    def forward(self, features: Tensor) -> Tensor:
        """`(B, outside, *space)`."""
        result: Tensor = self.act(CONV[3](channels_last(features), self.weight, None, 1, 1))
        return result


class Doubling(nn.Module):
    """Transposed convolution 3 x 3 x 3 of stride 2, norm, ReLU."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inside, outside, 3, 3, 3))
        self.act = NormReLU()

    def forward(self, features: Tensor) -> Tensor:
        """`(B, outside, *2 space)`."""
        result: Tensor = self.act(F.conv_transpose3d(channels_last(features), self.weight, None, 2, 1, 1))
        return result


class View(nn.Module):
    """One view's branch: picture to 3D features, in the view's own frame.

    `grow[0]` and what ends a volume are there only where the view makes one of its own.
    """

    def __init__(self, config: Config, name: str) -> None:
        super().__init__()
        self.name = name
        self.seed = config.seed
        self.forgetting = config.checkpointing
        c = config.widths
        layers = config.dense[: config.halvings]
        self.encoder = DenseEncoder(
            config.width, layers, config.bottleneck, config.growth, bias=config.connection_a, forgetting=self.forgetting
        )
        maps = self.encoder.widths
        self.base: nn.Module = (
            nn.Linear(maps[-1], c[-1] * config.seed**3) if config.connection_a else Link(maps[-1], c[-1])
        )
        self.links = nn.ModuleList(Link(a, b) for a, b in zip(maps, c[:-1], strict=False) if config.connection_b)
        self.compress = nn.ModuleList(
            Compress(inside, inside if config.connection_b else 0, outside)
            for inside, outside in [(c[0], c[0]), *((width, width) for width in c[1:-1])]
        )
        own = not config.connection_c
        self.grow = nn.ModuleList(
            nn.Sequential(*[ConvBlock(width, width) for _ in range(2 if level else own)])
            for level, width in enumerate(c[:-1])
        )
        self.up = nn.ModuleList(Doubling(b, a) for a, b in itertools.pairwise(c))

    def started(self, picture: Tensor, drop: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The 3D seed `(B, widest, s, s, s)` of pictures `(B, 1, n, n)`, and links from full size down.

        `drop (B, widest s^3)` is what the seed is multiplied by.
        """
        maps = self.encoder(picture)
        links = [run(link, found, forgetting=self.forgetting) for link, found in zip(self.links, maps, strict=False)]
        if isinstance(self.base, Link):
            return whole(self.base(maps[-1]), self.seed), links
        code = maps[-1].mean((2, 3))  # (B, C): Connection A, figure 4 a
        flat: Tensor = self.base(code)
        if drop is not None:
            flat = flat * drop
        return F.relu(flat).view(len(flat), -1, self.seed, self.seed, self.seed), links

    def compressed(self, level: int, features: Tensor, links: list[Tensor]) -> Tensor:
        """Features of a level and its link as one, `(B, width, *space)`."""
        return run(self.compress[level], features, *links[level : level + 1], forgetting=self.forgetting)

    def doubled(self, level: int, features: Tensor) -> Tensor:
        """The features of a level, worked on, for the level above it, which is twice the size."""

        def part(features: Tensor) -> Tensor:
            grown = features if level == len(self.grow) else self.grow[level](features)
            result: Tensor = self.up[level - 1](grown)
            return result

        return run(part, features, forgetting=self.forgetting)

    def forward(self, picture: Tensor, drop: Tensor | None) -> Tensor:
        """Features `(B, decoder_width, *shape)` of a view by itself, in its frame (figure 3, one branch)."""
        features, links = self.started(picture, drop)
        for level in range(len(self.grow) - 1, -1, -1):
            features = self.compressed(level, self.doubled(level + 1, features), links)
        return run(self.grow[0], features, forgetting=self.forgetting)


class Fusion(nn.Module):
    """The branch that both views feed: at every level their average, and what came from the level below."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config.widths
        self.compress = nn.ModuleList(ConvBlock(2 * width, width) for width in c[:-1])
        self.grow = nn.ModuleList(ConvBlock(width, width) for width in c[:-1])
        self.up = nn.ModuleList(Doubling(b, a) for a, b in itertools.pairwise(c))
        self.forgetting = config.checkpointing

    def merged(self, level: int, average: Tensor, features: Tensor) -> Tensor:
        """Features of a level `(B, width, *space)`."""

        def part(average: Tensor, features: Tensor) -> Tensor:
            result: Tensor = self.grow[level](self.compress[level](torch.cat([average, features], 1)))
            return result

        return run(part, average, features, forgetting=self.forgetting)

    def doubled(self, level: int, features: Tensor) -> Tensor:
        """For the level above, twice the size."""
        return run(self.up[level - 1], features, forgetting=self.forgetting)

    def forward(self, views: list[View], pictures: Tensor, drops: list[Tensor | None]) -> Tensor:
        """Features `(B, decoder_width, *shape)` in the frame of pictures (figure 3; Connection C, figure 4 c)."""
        started = [
            view.started(picture, drop)
            for view, picture, drop in zip(views, torch.split(pictures, 1, 1), drops, strict=True)
        ]
        found, links = [seed for seed, _ in started], [maps for _, maps in started]
        deepest = len(self.grow)
        average = _average(views, found)
        features = self.doubled(deepest, average)
        for level in range(deepest - 1, -1, -1):
            found = [view.doubled(level + 1, into_view(average, view.name)) for view in views]
            found = [view.compressed(level, made, maps) for view, made, maps in zip(views, found, links, strict=True)]
            average = _average(views, found)
            features = self.merged(level, average, features)
            if level:
                features = self.doubled(level, features)
        return features


def _average(views: list[View], found: list[Tensor]) -> Tensor:
    """The mean of the views' features in the frame of pictures."""
    first, second = (from_view(features, view.name) for view, features in zip(views, found, strict=True))
    return (first + second) / 2


class Generator(nn.Module):
    """Pictures `(B, views, n, n)` on 0..1, columns along the volume's axes, to `(B, 1, n, n, n)` of 0 and more."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.views = nn.ModuleList(View(config, name) for name in config.views)
        self.fusion = Fusion(config) if config.connection_c else None
        heads = 1 if config.connection_c else len(config.views)
        self.heads = nn.ModuleList(Conv(3, config.decoder_width, 1, 7) for _ in range(heads))
        self.forgetting = config.checkpointing
        draw(self)

    def forward(self, pictures: Tensor, chance: Tensor | None = None) -> Tensor:
        """A volume in the frame of pictures, float32. `chance (B, views, seed)` on 0..1 says what is dropped."""
        views = [view for view in self.views if isinstance(view, View)]
        drops: list[Tensor | None] = [None] * len(views)
        if chance is not None and self.dropout:
            drops = list(((chance >= self.dropout) / (1 - self.dropout)).unbind(1))
        if self.fusion is not None:
            return self._ended(0, self.fusion(views, pictures, drops))
        alone = zip(views, torch.split(pictures, 1, 1), drops, strict=True)
        volumes = [
            from_view(self._ended(number, view(picture, drop)), view.name)
            for number, (view, picture, drop) in enumerate(alone)
        ]
        return volumes[0] if len(volumes) == 1 else torch.stack(volumes).mean(0)

    def _ended(self, number: int, features: Tensor) -> Tensor:
        """Features to one channel."""
        return F.relu(run(self.heads[number], features, forgetting=self.forgetting).float())


class Discriminator(nn.Module):
    """Whether a volume is the CT of these pictures: maps of patches' scores (Ying 2019, section 3.3)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.names = config.views
        widths = [config.discriminator_width * 2**level for level in range(4)]
        self.volume = PatchDiscriminator(3, len(config.views) + 1, widths, padding=2)
        self.shadow = PatchDiscriminator(2, 1, widths, padding=2) if config.projections_judged else None
        draw(self)

    def forward(self, pictures: Tensor, volume: Tensor) -> list[Tensor]:
        """Scores of volumes `(B, 1, n, n, n)` in the frame of pictures `(B, views, n, n)`; both on 0..1.

        First those of patches of the volume, then, if they are judged, those of its shadows.
        """
        scores = [self.volume(torch.cat([smeared(pictures, self.names), volume], 1))[-1]]
        if self.shadow is not None:
            # One volume's shadows after another's: real and made ones are told apart by halves.
            scores.append(self.shadow(torch.stack(shadows(volume), 1).flatten(0, 1))[-1])
        return scores


class Model(Synthesizer):
    """Generator and discriminator, and their turns."""

    players: Sequence[str] = ("generator", "discriminator")  # type: ignore[misc]  # a CNN has one
    averaged = ("generator",)
    conditions = ("xrays",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.shape: tuple[int, ...] = config.shape
        self.generator = Generator(config)
        if config.adversary:
            self.discriminator = Discriminator(config)
        else:
            self.players = ("generator",)

    def feed(self, folder: CaseFolder, data: "Data", split: str = "train") -> Feed:
        """Scans and their radiographs, shot in the room of this model.

        Raises:
            DataInvalid: the cases are smaller than `shape`, or differ in spacing, or are not those of the recipe's.
        """
        c = self.config
        found = {"spacing": folder.spacing, "window": data.window}
        for name, have in found.items():
            said = getattr(c, name)
            if said is not None and not all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(said, have, strict=True)):
                raise DataInvalid(
                    f"the model re-projects with {name} {list(said)}; the data have {list(have)}",
                    reason=Reason.BAD_GEOMETRY,
                    at=folder.path,
                    fix=f"--set model.{name}={list(have)}",
                )
        return XRays(
            folder, self.shape, data, views=c.views, geometry=c.geometry, energy=c.energy, field=c.field, split=split
        )

    def condition_shape(self, name: str) -> tuple[int, ...]:
        """`(views, rows, columns)`."""
        return len(self.config.views), *self.shape[1:]

    def turns(self, step: int) -> Iterator[Turn]:
        """The generator, then the discriminator on what the generator made before it moved."""
        yield Turn("generator")
        if self.config.adversary:
            yield Turn("discriminator", fresh=False)

    def forward(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        """Loss terms of the generator's or the discriminator's move (Ying 2019, eq. 1 to 5)."""
        c = self.config
        pictures, real = self._pictures(batch.condition), upright(_published(batch.image))
        if turn.player == "discriminator":
            made = self.handed(batch)
            scores = self.discriminator(pictures.repeat(2, 1, 1, 1), torch.cat([real, made]))
            pairs = [one.chunk(2) for one in scores]
            return {
                "real": c.adversarial_weight * _sum(real_loss(true) for true, _ in pairs),
                "fake": c.adversarial_weight * _sum(fake_loss(false) for _, false in pairs),
            }
        made = self.generator(pictures, self._chance(batch))
        losses: dict[str, Tensor] = {}
        if c.adversary:
            self.hand_on(batch, made)
            scores = self.discriminator(pictures, made)
            losses["adversarial"] = c.adversarial_weight * _sum(generator_loss(one) for one in scores)
        if c.voxel_weight:
            losses["voxel"] = c.voxel_weight * F.mse_loss(made, real)
        if c.projection_weight:
            losses["projection"] = c.projection_weight * parallel_loss(made, real)
        if c.reprojection_weight:
            losses["reprojection"] = c.reprojection_weight * self._reprojected(made, batch.condition["xrays"])
        return losses

    def noise_shape(self, count: int) -> tuple[int, ...]:
        """`(count, 0)`: the volume follows from the radiographs alone."""
        return count, 0

    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Volumes `(B, 1, *shape)` of radiographs `xrays (B, views, n, n)`, in the order of `views`; no dropout.

        Raises:
            DataInvalid: another number of views, or another size.
        """
        made: Tensor = self.generator(self._pictures(condition))
        return 2 * upright(made).clamp(max=1) - 1

    def remade(self, batch: Batch) -> Tensor:
        """What becomes of the radiographs."""
        return self.generate(batch.image.new_zeros(self.noise_shape(len(batch.image))), batch.condition)

    def _pictures(self, condition: Mapping[str, Tensor]) -> Tensor:
        """The radiographs on 0..1, their columns along the volume's axes."""
        pictures = condition["xrays"]
        if tuple(pictures.shape[1:]) != self.condition_shape("xrays"):
            views, *size = self.condition_shape("xrays")
            raise DataInvalid(
                f"radiographs of shape {list(pictures.shape[1:])}; this model takes {views} of {size}",
                reason=Reason.DIMENSIONS,
                fix=f"one for each of: {', '.join(self.config.views)}",
            )
        return aligned(_published(pictures), self.config.views)

    def _chance(self, batch: Batch) -> Tensor | None:
        """What dropout draws `(B, views, seed)`, by the images' seeds."""
        c = self.config
        if not (c.connection_a and c.dropout):
            return None
        return batch.uniform("dropout", len(c.views), c.widths[-1] * c.seed**3)

    def _reprojected(self, made: Tensor, pictures: Tensor) -> Tensor:
        """How far radiographs of the volume are from those given, shot in the same room."""
        c = self.config
        if c.spacing is None or c.window is None:
            raise ValueError("a config with a re-projection has a spacing and a window")
        room = beam(c.shape, c.spacing, views=c.views, geometry=c.geometry, field=c.field, size=c.shape[-1])
        project = projector(room, c.shape, c.spacing)
        with torch.autocast(made.device.type, enabled=False):
            low, high = c.window
            hu = low + (high - low) * upright(made.float())  # beyond the window too: there the gradient must not end
            return reprojection_loss(project(attenuation(hu, c.energy)), _published(pictures))


def _sum(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()


def _published(unit: Tensor) -> Tensor:
    """-1..1 on 0..1."""
    return (unit + 1) / 2
