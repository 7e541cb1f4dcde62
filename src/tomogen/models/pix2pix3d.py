"""One scan into another, in patches: a 3D U-Net against a discriminator that knows the input (Choi et al. 2021).

After pix2pix (Isola et al. 2017) in three dimensions, for non-contrast to contrast CT. The image is seen through one or
several HU windows, each a channel; all of them make the output.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from tomogen.batch import Batch
from tomogen.cases.feed import Feed
from tomogen.cases.folder import CaseFolder
from tomogen.cases.paired import Paired
from tomogen.errors import RecipeMismatch
from tomogen.intensity import Window
from tomogen.layers.activation import SLOPE, LeakyReLU
from tomogen.layers.conv import CONV, Conv, channels_last
from tomogen.layers.instancenorm import InstanceNorm
from tomogen.layers.scaling import DoublingConv, HalvingConv
from tomogen.layers.windows import Windows
from tomogen.losses import adversarial, least_squares
from tomogen.losses.labels import cross_entropy, drawn_labels
from tomogen.losses.labels import least_squares as squares
from tomogen.losses.matching import matching_loss
from tomogen.losses.scales import multiscale_ssim_loss
from tomogen.losses.similarity import ssim_loss
from tomogen.synthesizer import Synthesizer, Turn

if TYPE_CHECKING:
    from tomogen.recipe import Data

DEVIATION = 0.02
"""Of the weights at birth; published."""
DROPPED = 3
"""Doublings from the bottom that drop features, where dropout is on (Isola 2017, section 6.1.1)."""
NEAR = 2
"""Voxels to each side whose mean tells what is fine."""
FAINT = 50.0
"""HU of what is told apart as fine; more looks alike."""
STEP = 0.05
"""Of a difference from the input to one of the network: a step of the optimizer then moves a few HU."""
LEAST = 24
"""Voxels along the plane: the discriminator halves three times and takes two voxels off what is left."""
STRUCTURE = 0.85
"""Share of SSIM in the loss that mixes it with the mean absolute error, which has the rest; published."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The size of a patch, the windows, the networks, and the weights of the losses."""

    shape: tuple[int, int, int] = (16, 512, 512)
    """Voxels of a patch along depth, height and width; the last two are multiples of 2^levels."""
    span: tuple[float, float] = (-1024.0, 3071.0)
    """HU of the data on -1..1; the same as `[data] window`."""
    windows: tuple[tuple[float, float], ...] = ((-1024.0, 3071.0), (-300.0, 700.0), (-200.0, 300.0))
    """HU windows, each a channel of what goes in and of what comes out."""
    levels: int = 7
    """Halvings in the plane. Depth is halved with it for as long as it is even."""
    width: int = 64
    """Channels at half the size; they double with every level."""
    widest: int = 512
    """Channels at most."""
    coordinates: bool = False
    """Three more channels of the input: a voxel's place in the patch along each axis, on -1..1."""
    residual: bool = False
    """Whether the network makes the difference from the input, or the output itself."""
    detail: int = 0
    """Features at full size: with what is fine in the input beside them, two more convolutions make the output. 0 for
    none, as published: then nothing finer than two voxels passes but through features at half the size."""
    dropout: float = 0.0
    """Share of features that training drops in the three deepest doublings."""
    judge_width: int = 64
    """Channels of the discriminator's first layer; they double with every further one."""
    game: Literal["cross_entropy", "least_squares"] = "cross_entropy"
    """What the scores of the discriminator mean."""
    label_smoothing: float = 0.0
    """The labels of real patches are drawn between 1 less this and 1, anew for every score."""
    adversarial: float = 1.0
    """Weight of the game in the generator's loss. Where this and `matching` are 0 there is no discriminator."""
    reconstruction: float = 100.0
    """Weight of the distance from the truth."""
    structure: Literal["none", "ssim", "ms_ssim"] = "none"
    """That distance: the mean absolute error, or 0.15 of it and 0.85 of 1 - SSIM, at one scale or several."""
    matching: float = 0.0
    """Weight of the distance from the truth in the discriminator's features."""
    noise: float = 0.0
    """Standard deviation in HU of noise that training adds to the input, and to nothing else."""
    flip: float = 0.0
    """Chance that training shows a pair mirrored left to right."""

    def __post_init__(self) -> None:
        for name in ("levels", "width", "widest", "judge_width"):
            if getattr(self, name) < 1:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name)}; at least 1")
        for name in ("adversarial", "reconstruction", "matching", "noise", "detail"):
            if not 0 <= getattr(self, name) < math.inf:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name):g}; 0 or more")
        for name, most in (("dropout", 1.0), ("label_smoothing", 0.5)):
            if not 0 <= getattr(self, name) < most:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name):g}; from 0 to below {most:g}")
        if not 0 <= self.flip <= 1:
            raise RecipeMismatch(f"`flip`: {self.flip:g}; a chance, from 0 to 1")
        if not self.adversarial + self.reconstruction > 0:
            raise RecipeMismatch("`adversarial` and `reconstruction`: both 0, nothing to learn from")
        depth, *plane = self.shape
        if depth < 2:
            raise RecipeMismatch(f"`shape`: {depth} slice; at least 2")
        step = 1 << self.levels
        for size in plane:
            if size < LEAST or size % step:
                nearest = max(round(size / step), -(-LEAST // step)) * step
                raise RecipeMismatch(
                    f"`shape`: {size} in the plane is no multiple of {step} from {LEAST} on; nearest {nearest}"
                )
        self._check_windows()

    def _check_windows(self) -> None:
        if not self.span[0] < self.span[1]:
            raise RecipeMismatch(f"`span`: {list(self.span)} does not rise")
        if not self.windows:
            raise RecipeMismatch("`windows`: none; at least one, such as the `span`")
        for low, high in self.windows:
            if not self.span[0] <= low < high <= self.span[1]:
                raise RecipeMismatch(f"`windows`: {[low, high]} does not rise within the span of {list(self.span)}")
        reached = min(low for low, _ in self.windows)
        for low, high in sorted(self.windows):
            if low > reached:
                raise RecipeMismatch(f"`windows`: none holds the HU from {reached:g} to {low:g}")
            reached = max(reached, high)

    @property
    def judged(self) -> bool:
        """Whether a discriminator has a word in the loss."""
        return self.adversarial > 0 or self.matching > 0

    @property
    def depths(self) -> list[int]:
        """Slices at each level, from the patch down."""
        depths = [self.shape[0]]
        for _ in range(self.levels):
            depths.append(depths[-1] // 2 if depths[-1] % 2 == 0 else depths[-1])
        return depths

    @property
    def widths(self) -> list[int]:
        """Channels at half the size, a quarter and so on, down to the bottom."""
        return [min(self.width * 2**level, self.widest) for level in range(self.levels)]

    def voxels(self, level: int) -> int:
        """Voxels of a patch after so many halvings."""
        return self.depths[level] * math.prod(size >> level for size in self.shape[1:])


class Down(nn.Module):
    """A halving: convolution, leaky ReLU, norm; the published order."""

    def __init__(self, inside: int, outside: int, kernel: tuple[int, int, int], norm: bool) -> None:
        super().__init__()
        self.conv = HalvingConv(inside, outside, kernel)
        self.act = LeakyReLU()
        self.norm = InstanceNorm() if norm else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Features at half the size."""
        result: Tensor = self.norm(self.act(self.conv(features)))
        return result


class Up(nn.Module):
    """A doubling: resize and convolution, ReLU, norm, beside what was there on the way down; the published order."""

    def __init__(self, inside: int, outside: int, kernel: tuple[int, int, int], dropout: float) -> None:
        super().__init__()
        self.conv = DoublingConv(inside, outside, kernel)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.norm = InstanceNorm()

    def forward(self, features: Tensor, beside: Tensor) -> Tensor:
        """Features at twice the size, with those of `beside`, rectified."""
        features = self.norm(self.dropout(self.conv(features).relu()))
        return torch.cat([features, beside], 1).relu()


class Detail(nn.Module):
    """Features at full size, and beside them what is finer in the input than they can hold, to windows.

    The finer part is each voxel less the mean of its neighbours in the plane, squashed: what is as weak as noise is
    about 1, and edges, a hundred times as strong, are no more than that. Given the input as it is, the two convolutions
    learn from edges alone (contrast of phantoms, vessels of the lung after 1300 steps: 8 % of what was to be added;
    so 40 %).
    """

    def __init__(self, windows: Sequence[tuple[float, float]], features: int) -> None:
        super().__init__()
        count = len(windows)
        halves = torch.tensor([(high - low) / 2 for low, high in windows])  # HU for 1
        self.scale: Tensor
        self.register_buffer("scale", (halves / FAINT).view(-1, 1, 1, 1), persistent=False)
        self.mix = Conv(3, features + count, features)
        self.act = LeakyReLU()
        self.image = Conv(3, features, count)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Windows, not yet bounded."""
        image = image.float()
        around = nn.functional.avg_pool3d(
            image, (1, 2 * NEAR + 1, 2 * NEAR + 1), 1, (0, NEAR, NEAR), count_include_pad=False
        )
        fine = ((image - around) * self.scale).tanh()
        mixed = self.mix(torch.cat([features.relu(), fine.to(features.dtype)], 1))
        made: Tensor = self.image(self.act(mixed))
        return made


class Generator(nn.Module):
    """Windows of a patch `(B, windows, *shape)` to windows of another: the published U-Net.

    Departures: each norm takes a channel at a time, without weights (published: mean and deviation over a whole sample,
    its channels included, and one weight); where a patch has shrunk to fewer than four voxels it is left out, as their
    deviation is no measure; resize-convolutions have a kernel of 3, centred (published: 4 in the plane and 2 in depth,
    half a voxel off).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        count, widths, depths = len(config.windows), config.widths, config.depths
        self.residual = config.residual
        self.places = _places(config.shape) if config.coordinates else None
        halved = [above != below for above, below in itertools.pairwise(depths)]
        inside = [count + (3 if config.coordinates else 0), *widths]
        self.down = nn.ModuleList(
            Down(a, b, (2 if half else 1, 4, 4), norm=level > 0 and config.voxels(level + 1) >= 4)
            for level, ((a, b), half) in enumerate(zip(itertools.pairwise(inside), halved, strict=True))
        )
        self.up = nn.ModuleList(
            Up(
                widths[level] * (1 if level == config.levels - 1 else 2),
                widths[level - 1],
                (3 if halved[level] else 1, 3, 3),
                config.dropout if level >= config.levels - DROPPED else 0.0,
            )
            for level in range(config.levels - 1, 0, -1)
        )
        bottom = 1 if config.levels == 1 else 2
        last = config.detail or count
        self.image = DoublingConv(widths[0] * bottom, last, (3 if halved[0] else 1, 3, 3))
        self.detail = Detail(config.windows, last) if config.detail else None
        _draw(self)
        if self.detail is not None:
            nn.init.kaiming_normal_(self.detail.mix.weight, SLOPE)
        if self.residual:  # what is not trained yet hardly changes the input
            end = self.image if self.detail is None else self.detail.image
            nn.init.normal_(end.weight, 0.0, DEVIATION / 5)

    def forward(self, image: Tensor) -> Tensor:
        """Windows on -1..1; as a difference from the input they may lie a little outside."""
        features = image
        if self.places is not None:
            ramps = [place.to(image).expand(len(image), *image.shape[2:])[:, None] for place in self.places]
            features = torch.cat([image, *ramps], 1)  # (B, windows + 3, D, H, W)
        found = []
        for down in self.down:
            features = down(features)
            found.append(features)  # (B, width, D / 2, H / 2, W / 2), and so on
        found.pop()
        features = features.relu()
        for up in self.up:
            features = up(features, found.pop())
        made: Tensor = self.image(features)  # (B, windows or detail, D, H, W)
        if self.detail is not None:
            made = self.detail(made, image)  # (B, windows, D, H, W)
        made = made.float()
        return image.float() + STEP * made if self.residual else made.tanh()


class Discriminator(nn.Module):
    """Two patches as windows `(B, 2 windows, *shape)` to a map of scores, a logit or a mark for each part.

    As published: kernels of 4 in the plane and 2 in depth while that is halved; three halvings, then two convolutions
    that keep the size, here with a padding of 1, which takes a voxel off. Norm per channel, without weights.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = [config.judge_width * 2**level for level in range(4)]
        depths = [*config.depths, *[1] * 3][:4]
        self.blocks = nn.ModuleList()
        for level, (a, b) in enumerate(itertools.pairwise([2 * len(config.windows), *widths[:3]])):
            kernel = (2 if depths[level] != depths[level + 1] else 1, 4, 4)
            self.blocks.append(Down(a, b, kernel, norm=level > 0))
        self.last = nn.Conv3d(widths[2], widths[3], (1, 4, 4), padding=(0, 1, 1))
        self.act, self.norm = LeakyReLU(), InstanceNorm()
        self.score = nn.Conv3d(widths[3], 1, (1, 4, 4), padding=(0, 1, 1))
        _draw(self)

    def forward(self, made: Tensor, given: Tensor) -> list[Tensor]:
        """The features of each layer, and last the scores `(B, 1, *parts)`, float32; `given` is the input's patch."""
        found = [torch.cat([made, given], 1)]
        for block in self.blocks:
            found.append(block(found[-1]))
        found.append(self.norm(self.act(_kept(self.last, found[-1]))))
        return [*found[1:], _kept(self.score, found[-1]).float()]


class Model(Synthesizer):
    """Generator and discriminator, and their turns."""

    players: Sequence[str] = ("generator", "discriminator")  # type: ignore[misc]  # alone where nothing is judged
    averaged = ("generator",)
    conditions = ("source",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.shape = config.shape
        self.windows = Windows(config.span, config.windows)
        self.generator = Generator(config)
        if config.judged:
            self.discriminator = Discriminator(config)
        else:
            self.players = ("generator",)

    @property
    def reach(self) -> tuple[int, int, int] | None:
        """Voxels around one, along each axis, that what is made of it depends on; a patch may then have any even size.

        None where that is the whole patch, by a norm over space or by coordinates: of one level alone it is not.
        Before the end a convolution of 4 and one of 3 on the doubled grid see 3 voxels, in depth 2 where it is halved;
        `detail` has two more of 3.
        """
        config = self.config
        if config.levels > 1 or config.coordinates:
            return None
        halved, last = config.depths[1] < config.depths[0], 2 * bool(config.detail)
        return (2 if halved else 0) + last, 3 + last, 3 + last  # means of neighbours see NEAR, less than 3

    def feed(self, folder: CaseFolder, data: "Data", split: str = "train") -> Feed:
        """Pairs of scans: the image is the target, `source` the input.

        Raises:
            RecipeMismatch: `span` is not the window of the data.
        """
        if tuple(data.window) != tuple(self.config.span):
            raise RecipeMismatch(
                f"`span`: {list(self.config.span)} HU, and [data] window {list(data.window)}; both are the data's",
                fix=f"model.span={list(data.window)}",
            )
        window, config = Window(*data.window), self.config
        return Paired(folder, self.shape, window, split=split, shift=data.shift, flip=config.flip)

    def turns(self, step: int) -> Iterator[Turn]:
        """The generator, then the discriminator on the same pair and on what the generator made of it."""
        yield Turn("generator")
        if self.config.judged:
            yield Turn("discriminator", fresh=False)

    def forward(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        """Loss terms of the generator's or the discriminator's move."""
        given, true = self.windows.split(batch.condition["source"]), self.windows.split(batch.image)
        if turn.player == "generator":
            made = self.generator(self.windows.split(self._noisy(batch)))
            if self.config.judged:
                self.hand_on(batch, made)
            return self._generator_losses(made, true, given)
        return self._discriminator_losses(self.handed(batch), true, given, batch)

    def noise_shape(self, count: int) -> tuple[int, ...]:
        """None is used."""
        return count, 0

    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """What becomes of each `source`, `(B, 1, *shape)`; all windows count."""
        made = self.generator(self.windows.split(condition["source"]))
        return self.windows.join(made).clamp(-1, 1)

    def remade(self, batch: Batch) -> Tensor:
        """What becomes of each source."""
        return self.generate(batch.image.new_zeros(self.noise_shape(len(batch.image))), batch.condition)

    def _generator_losses(self, made: Tensor, true: Tensor, given: Tensor) -> dict[str, Tensor]:
        config = self.config
        losses = {"reconstruction": config.reconstruction * self._distance(made, true)}
        if config.judged:
            *features, scores = self.discriminator(made, given)
            game = adversarial if config.game == "cross_entropy" else least_squares
            losses["adversarial"] = config.adversarial * game.generator_loss(scores)
            if config.matching:
                with torch.no_grad():
                    *like, _ = self.discriminator(true, given)
                losses["matching"] = config.matching * matching_loss(features, like)
        return losses

    def _distance(self, made: Tensor, true: Tensor) -> Tensor:
        """Mean absolute error over all windows, or its mixture with structure."""
        error = (made - true).abs().mean()
        if self.config.structure == "none":
            return error
        structure = ssim_loss if self.config.structure == "ssim" else multiscale_ssim_loss
        return (1 - STRUCTURE) * error + STRUCTURE * structure(made, true)

    def _discriminator_losses(self, made: Tensor, true: Tensor, given: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Half of each, as published. Real and made go in together: no norm pools over a batch."""
        scores = self.discriminator(torch.cat([true, made]), torch.cat([given, given]))[-1]
        real, fake = scores.chunk(2)
        labels = drawn_labels(batch.uniform("labels", *real.shape[1:]), self.config.label_smoothing)
        loss = cross_entropy if self.config.game == "cross_entropy" else squares
        return {"real": loss(real, labels) / 2, "fake": loss(fake, torch.zeros_like(fake)) / 2}

    def _noisy(self, batch: Batch) -> Tensor:
        """The input, with noise where the recipe says so."""
        source, deviation = batch.condition["source"], self.config.noise
        if not deviation:
            return source
        low, high = self.config.span
        noise = batch.normal("noise on the input", *source.shape[1:])
        return (source + deviation * 2 / (high - low) * noise).clamp(-1, 1)


def _kept(conv: nn.Conv3d, features: Tensor) -> Tensor:
    """A convolution that keeps the size, channels last."""
    stride, padding = conv.stride, conv.padding
    result: Tensor = CONV[3](channels_last(features), conv.weight, conv.bias, stride, padding)
    return result


def _places(shape: tuple[int, int, int]) -> list[Tensor]:
    """A ramp on -1..1 along each axis, of a size that spreads over a patch (Liu et al. 2018, CoordConv)."""
    return [
        torch.linspace(-1, 1, size).view([-1 if a == axis else 1 for a in range(3)]) for axis, size in enumerate(shape)
    ]


def _draw(network: nn.Module) -> None:
    """Weights as published: N(0, 0.02), biases 0."""
    for layer in network.modules():
        if isinstance(layer, HalvingConv | DoublingConv | Conv | nn.Conv3d):
            nn.init.normal_(layer.weight, 0.0, DEVIATION)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
