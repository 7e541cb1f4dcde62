"""CycleGAN between computed and real radiographs (Zhu et al. 2017): each made to look like the other, without pairs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.batch import Batch
from tomogen.cases.feed import Feed
from tomogen.cases.folder import CaseFolder
from tomogen.cases.unpaired import Unpaired
from tomogen.cases.xrays import check_room
from tomogen.errors import RecipeMismatch
from tomogen.layers.birth import draw
from tomogen.layers.conv import Conv, UpConv, channels_last
from tomogen.layers.instancenorm import InstanceNorm
from tomogen.layers.patch import PatchDiscriminator
from tomogen.layers.pool import Pool
from tomogen.losses.least_squares import fake_loss, generator_loss, real_loss
from tomogen.radiography.attenuation import ENERGY
from tomogen.radiography.radiograph import Kind
from tomogen.synthesizer import Synthesizer, Turn

if TYPE_CHECKING:
    from tomogen.recipe import Data

Style = Literal["radiograph", "drr"]
STYLES: tuple[Style, ...] = ("radiograph", "drr")
"""The two looks: real radiographs, and digitally reconstructed ones."""

HEAD = 7
"""Kernel of a generator's last convolution."""
SMALLEST = 24
"""Pixels along a side of which the discriminator makes one patch."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The pictures, the networks and the weights of the losses."""

    shape: tuple[int, int] = (256, 256)
    """Pixels (rows, columns), of one number; odd ones too."""
    views: tuple[Kind, ...] = ("frontal", "lateral")
    """Which radiographs it learns, each equally often."""
    geometry: str = "chest"
    """The room in which scans are shot."""
    energy: float = ENERGY
    """keV at which they are."""
    width: int = 64
    """Channels of the generators at full size; twice and four times as many at a half and a quarter."""
    blocks: int = 9
    """Residual blocks of a generator."""
    discriminator_width: int = 64
    """Channels of the discriminators at half the size; 8 times as many at last."""
    cycle: float = 10.0
    """Weight of there and back again."""
    identity: float = 5.0
    """Weight of leaving alone what has the look already."""
    pool: int = 50
    """Made pictures of each look that are kept for the discriminators."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "views", tuple(self.views))
        if len(self.shape) != 2 or self.shape[0] != self.shape[1] or self.shape[0] < SMALLEST:
            side = max(SMALLEST, *self.shape) if self.shape else SMALLEST
            raise RecipeMismatch(
                f"`shape`: {list(self.shape)}; radiographs are square and at least {SMALLEST} pixels wide, "
                f"as [{side}, {side}]"
            )
        if not self.views or len(set(self.views)) < len(self.views):
            raise RecipeMismatch(f"`views`: {list(self.views)}; frontal, lateral or both")
        check_room(self.geometry, self.energy)
        for name in ("width", "blocks", "discriminator_width", "pool"):
            if getattr(self, name) < 1:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name)}; at least 1")
        for name, usual in (("cycle", 10), ("identity", 5)):
            if not 0 <= getattr(self, name) < float("inf"):
                raise RecipeMismatch(f"`{name}`: {getattr(self, name):g}; 0 or more, usually {usual}")


class ReflectedConv(nn.Module):
    """Convolution `(B, inside, *space)` to `(B, outside, *space)`; beyond the edges a picture is mirrored.

    The margin is half the kernel, whatever the channels: a known port of the published code pads by their number.
    """

    def __init__(self, inside: int, outside: int, kernel: int = 3) -> None:
        super().__init__()
        self.margin = kernel // 2
        self.conv = nn.Conv2d(inside, outside, kernel, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """The convolution of `image`."""
        result: Tensor = self.conv(mirrored(image, self.margin))
        return result


class Residual(nn.Module):
    """R of the paper: two convolutions, and what comes in added to what comes out (Johnson 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = ReflectedConv(width, width), ReflectedConv(width, width)
        self.norm = InstanceNorm()

    def forward(self, features: Tensor) -> Tensor:
        """`features (B, width, *space)`, changed."""
        changed = F.relu(self.norm(self.first(features)))
        result: Tensor = features + self.norm(self.second(changed))
        return result


class Generator(nn.Module):
    """Pictures `(B, 1, rows, columns)` of one look to the other: c7s1-64, d128, d256, R256 x 9, u128, u64, c7s1-1.

    Instance norm and ReLU follow each convolution but the last. Going up is by doubling and convolution; published: a
    transposed convolution of as many weights, whose kernel of 3 covers every other pixel twice and leaves a lattice
    that 200 steps on chests did not wash out. It goes up to the very sizes that were met going down, so any picture
    comes out as large as it went in.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = ReflectedConv(1, width, 7)
        self.down = nn.ModuleList(nn.Conv2d(n * width, 2 * n * width, 3, 2, 1, bias=False) for n in (1, 2))
        self.body = nn.Sequential(*[Residual(4 * width) for _ in range(blocks)])
        self.up = nn.ModuleList(UpConv(2, 2 * n * width, n * width, bias=False) for n in (2, 1))
        self.leave = Conv(2, width, 1, HEAD)
        self.norm = InstanceNorm()

    def forward(self, picture: Tensor) -> Tensor:
        """Pictures on -1..1, float32."""
        features = F.relu(self.norm(self.enter(picture)))  # (B, width, rows, columns)
        sizes = []
        for halve in self.down:
            sizes.append(features.shape[2:])
            features = F.relu(self.norm(halve(features)))
        features = self.body(features)  # (B, 4 width, rows / 4, columns / 4)
        for double in self.up:
            rows, columns = sizes.pop()
            features = F.relu(self.norm(double(features)[..., :rows, :columns]))
        # The layer brings a margin of zeros of its own, outside of the mirrored one, which is cut off again.
        wide = self.leave(mirrored(features, HEAD // 2))
        margin = HEAD // 2
        result: Tensor = wide[..., margin:-margin, margin:-margin].float()  # (B, 1, rows, columns)
        return result.tanh()


class Model(Synthesizer):
    """Two generators, two discriminators of 70 x 70 patches, and their turns.

    Named by what they make or judge: `radiograph` makes a DRR look real, `drr` makes a radiograph look computed.
    """

    players = ("generators", "discriminators")
    averaged = ("generators",)
    conditions = ("drr",)
    private = ("pools",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.shape = config.shape
        wide = config.discriminator_width
        self.generators = nn.ModuleDict({style: Generator(config.width, config.blocks) for style in STYLES})
        self.discriminators = nn.ModuleDict(
            {style: PatchDiscriminator(2, 1, [n * wide for n in (1, 2, 4, 8)]) for style in STYLES}
        )
        self.pools = nn.ModuleDict({style: Pool(config.pool, (1, *config.shape)) for style in STYLES})
        draw(self)

    def feed(self, folder: CaseFolder, data: "Data", split: str = "train") -> Feed:
        """Real radiographs of the folder, and beside each a DRR of one of its scans, another patient's."""
        return Unpaired(
            folder,
            self.shape[0],
            kinds=self.config.views,
            geometry=self.config.geometry,
            energy=self.config.energy,
            split=split,
            shift=data.shift,
        )

    def turns(self, step: int) -> Iterator[Turn]:
        """Each once; the discriminators see what the generators made before they moved."""
        yield Turn("generators")
        yield Turn("discriminators", fresh=False)

    def forward(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        """Loss terms of the generators' or the discriminators' move."""
        given: dict[Style, Tensor] = {"radiograph": batch.image, "drr": batch.condition["drr"]}
        if turn.player == "generators":
            return self._made(batch, given)
        fakes = self.handed(batch).unbind(1)
        losses: dict[str, Tensor] = {}
        for style, fake in zip(STYLES, fakes, strict=True):
            shown = self.pools[style](fake, batch.uniform(f"pool of {style}", 2))
            real, fake = self.discriminators[style](torch.cat([given[style], shown]))[-1].chunk(2)
            # Published: half the objective, which slows the discriminators.
            losses |= {f"real_{style}": real_loss(real) / 2, f"fake_{style}": fake_loss(fake) / 2}
        return losses

    def noise_shape(self, count: int) -> tuple[int, ...]:
        """`(count, 0)`: nothing is left to chance."""
        return count, 0

    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """DRRs `(B, 1, *shape)` as real-looking radiographs."""
        return self.restyle(condition["drr"], "radiograph")

    def restyle(self, picture: Tensor, towards: Style) -> Tensor:
        """Pictures `(B, 1, rows, columns)` on -1..1 of the other look in this one; of any size from 8 on."""
        result: Tensor = self.generators[towards](picture)
        return result

    def _made(self, batch: Batch, given: Mapping[Style, Tensor]) -> dict[str, Tensor]:
        """The generators' terms: to pass for real, to come back, to leave alone what has the look."""
        other: dict[Style, Style] = {"radiograph": "drr", "drr": "radiograph"}
        fakes: dict[Style, Tensor] = {}
        losses: dict[str, Tensor] = {}
        for style in STYLES:
            fakes[style] = self.generators[style](given[other[style]])
            losses[f"adversarial_{style}"] = generator_loss(self.discriminators[style](fakes[style])[-1])
            if self.config.identity:
                same = self.generators[style](given[style])
                losses[f"identity_{style}"] = self.config.identity * F.l1_loss(same, given[style])
        for style in STYLES:
            back = self.generators[style](fakes[other[style]])
            losses[f"cycle_{style}"] = self.config.cycle * F.l1_loss(back, given[style])
        self.hand_on(batch, torch.stack([fakes[style] for style in STYLES], 1))
        return losses


def mirrored(image: Tensor, margin: int) -> Tensor:
    """`image (B, C, rows, columns)` with `margin` pixels more on each side, mirrored about its outermost pixels."""
    return channels_last(F.pad(image, [margin] * 4, mode="reflect"))
