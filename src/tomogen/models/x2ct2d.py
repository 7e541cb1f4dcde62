"""CT from one radiograph by a 2D network, the depth of the volume as its channels: the baseline of X2CT-GAN.

After Henzler et al. 2018 (single-image tomography), with whom Ying et al. 2019 compare (table 1, "2DCNN"): a 2D encoder
and decoder whose last map has a channel for every slice along the rays. The encoder is that of `x2ct`, so that what
differs is the lift to 3D alone; their own encoder is a residual one. Volumes, pictures and losses are as there.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.batch import Batch
from tomogen.cases.feed import Feed
from tomogen.cases.folder import CaseFolder
from tomogen.cases.xrays import Field, XRays, check_room
from tomogen.errors import DataInvalid, Reason, RecipeMismatch
from tomogen.layers.birth import draw
from tomogen.layers.conv import UpConv, channels_last
from tomogen.layers.dense import DenseEncoder, NormReLU, check_halvings
from tomogen.layers.lift import FRONTAL, LATERAL, aligned, from_view, upright
from tomogen.losses.projection import parallel_loss
from tomogen.radiography.attenuation import ENERGY
from tomogen.synthesizer import Synthesizer, Turn

if TYPE_CHECKING:
    from tomogen.recipe import Data


@dataclass(frozen=True, kw_only=True)
class Config:
    """The radiograph, the network, and the weights of the losses."""

    shape: tuple[int, int, int] = (128, 128, 128)
    """Voxels per axis, all alike; a multiple of 2^halvings."""
    view: str = "pa"
    """The radiograph, by its name in `radiography.geometry`."""
    geometry: str = "x2ct"
    """Room in which the training radiographs are shot, by its name there."""
    energy: float = ENERGY
    """keV at which they are computed."""
    field: Field = "detector"
    """What they show at the isocentre: all that the room's detector sees, or the scan's extent."""
    halvings: int = 5
    """How often the picture is halved, and doubled again."""
    width: int = 64
    """Channels of the encoder at full size."""
    dense: tuple[int, ...] = (6, 12, 24, 16, 6)
    """Layers of the dense block after each halving; the first `halvings` are built."""
    growth: int = 32
    """Channels that a dense layer adds."""
    bottleneck: int = 128
    """Channels inside a dense layer."""
    decoder_width: int = 128
    """Channels of the decoder at full size; half of it has twice as many, and so has all below."""
    voxel_weight: float = 10.0
    """Of the mean square error on 0..1."""
    projection_weight: float = 0.0
    """Of the distance between parallel projections."""

    def __post_init__(self) -> None:
        for name in ("shape", "dense"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.view not in FRONTAL + LATERAL:
            raise RecipeMismatch(
                f"`view`: {self.view!r} is none along a scan's axes; there are: {', '.join(FRONTAL + LATERAL)}"
            )
        for name in ("halvings", "width", "growth", "bottleneck", "decoder_width"):
            if getattr(self, name) < 1:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name)}; at least 1")
        check_halvings(self.shape, self.halvings, self.dense)
        for name in ("voxel_weight", "projection_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name):g}; 0 or more")
        if not (self.voxel_weight or self.projection_weight):
            raise RecipeMismatch("`voxel_weight`: no loss says what the volume is; usually 10")
        check_room(self.geometry, self.energy)

    @property
    def views(self) -> tuple[str, ...]:
        """The one view, as models of several name theirs."""
        return (self.view,)


class Generator(nn.Module):
    """A picture `(B, 1, n, n)` on 0..1 to a volume `(B, 1, n, n, n)` of 0 and more, in the view's frame."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        layers = config.dense[: config.halvings]
        self.encoder = DenseEncoder(
            config.width, layers, config.bottleneck, config.growth, bias=False, forgetting=False
        )
        *maps, deepest = self.encoder.widths
        widths = [config.decoder_width * 2 ** min(level, 1) for level in range(config.halvings + 1)]
        self.start = nn.Conv2d(deepest, widths[-1], 1, bias=False)
        self.up = nn.ModuleList(UpConv(2, below, here, bias=False) for here, below in itertools.pairwise(widths))
        self.merge = nn.ModuleList(
            nn.Conv2d(here + skip, here, 3, padding=1, bias=False) for here, skip in zip(widths, maps, strict=False)
        )
        self.slices = nn.Conv2d(widths[0], config.shape[0], 1)
        self.act = NormReLU()
        draw(self)

    def forward(self, picture: Tensor) -> Tensor:
        """The volume, its depth first, float32."""
        *maps, deepest = self.encoder(picture)
        features = self.act(self.start(self.act(channels_last(deepest))))
        for up, merge, skip in reversed(list(zip(self.up, self.merge, maps, strict=True))):
            features = self.act(merge(torch.cat([self.act(up(features)), self.act(skip)], 1)))
        return F.relu(self.slices(features).float())[:, None]


class Model(Synthesizer):
    """The one player of a game that is none."""

    players = ("generator",)
    averaged = ("generator",)
    conditions = ("xrays",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.shape: tuple[int, ...] = config.shape
        self.generator = Generator(config)

    def feed(self, folder: CaseFolder, data: "Data", split: str = "train") -> Feed:
        """Scans and their radiographs, shot in the room of this model.

        Raises:
            DataInvalid: the cases are smaller than `shape`, or differ in spacing.
        """
        c = self.config
        return XRays(
            folder, self.shape, data, views=c.views, geometry=c.geometry, energy=c.energy, field=c.field, split=split
        )

    def condition_shape(self, name: str) -> tuple[int, ...]:
        """`(1, rows, columns)`."""
        return 1, *self.shape[1:]

    def turns(self, step: int) -> Iterator[Turn]:
        """One."""
        yield Turn("generator")

    def forward(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        """Loss terms of the network."""
        made, real = self._made(batch.condition), upright((batch.image + 1) / 2)
        losses: dict[str, Tensor] = {}
        if self.config.voxel_weight:
            losses["voxel"] = self.config.voxel_weight * F.mse_loss(made, real)
        if self.config.projection_weight:
            losses["projection"] = self.config.projection_weight * parallel_loss(made, real)
        return losses

    def noise_shape(self, count: int) -> tuple[int, ...]:
        """`(count, 0)`: the volume follows from the radiograph alone."""
        return count, 0

    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Volumes `(B, 1, *shape)` of radiographs `xrays (B, 1, n, n)`.

        Raises:
            DataInvalid: another number of views, or another size.
        """
        return 2 * upright(self._made(condition)).clamp(max=1) - 1

    def remade(self, batch: Batch) -> Tensor:
        """What becomes of the radiographs."""
        return self.generate(batch.image.new_zeros(self.noise_shape(len(batch.image))), batch.condition)

    def _made(self, condition: Mapping[str, Tensor]) -> Tensor:
        """The volume on 0..1 in the frame of pictures."""
        pictures = condition["xrays"]
        if tuple(pictures.shape[1:]) != self.condition_shape("xrays"):
            raise DataInvalid(
                f"radiographs of shape {list(pictures.shape[1:])}; this model takes 1 of {list(self.shape[1:])}",
                reason=Reason.DIMENSIONS,
                fix=f"one: {self.config.view}",
            )
        view = self.config.view
        return from_view(self.generator(aligned((pictures + 1) / 2, [view])), view)
