"""Variational autoencoder of scans (Kingma & Welling 2014) with a code on a grid, in 2D, in 3D and in slabs.

The published one took 64 slices for the channels of a 2D network, and could not train its 3D one in 24 GB. Here both
are one definition: strided convolutions down to the code, nearest-neighbour doublings back up, residual blocks between.
Nothing is wide at the image's own size and no norm pools over space, so that a large scan takes little memory, and a
tile of it with a halo is as the whole.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tomogen.batch import Batch
from tomogen.errors import RecipeMismatch
from tomogen.layers.activation import LeakyReLU
from tomogen.layers.activity import Activity
from tomogen.layers.conv import Conv, UpConv
from tomogen.layers.norm import VoxelNorm
from tomogen.layers.patch import PatchDiscriminator
from tomogen.layers.posterior import Posterior
from tomogen.layers.prior import CodePrior
from tomogen.layers.pyramid import Pyramid
from tomogen.layers.residual import GAIN, Residual
from tomogen.layers.warmup import Warmup
from tomogen.losses import least_squares
from tomogen.losses.latent import divergence, kl_loss
from tomogen.losses.similarity import ssim_loss
from tomogen.synthesizer import Synthesizer, Turn

CERTAIN = -4.0
"""Log-variance of codes at birth: first the decoder learns what a code means, then the KL has them blur."""
BOUNDS = (-20.0, 10.0)
"""Of the log-variance: beyond, its exponential would leave float32's digits, or run away."""
PATCH = 8
"""Least voxels along an axis that the discriminator takes."""
FITTED = 1 << 24
"""Numbers of all codes together, at most, that the prior is fitted to: under 1 GB on the way in float64."""
JUDGED = "judged"
"""Kind of the autoencoder's turns in which the discriminator has a say."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The size of the images, the networks, and what the loss is made of."""

    shape: tuple[int, ...] = (64, 64, 64)
    """Voxels per axis, slow axis first; each axis that is halved is a multiple of 2^doublings."""
    flat: bool = False
    """Slices are the channels of a 2D network: no axis of depth is halved, and a scan is coded in slabs of shape[0]."""
    doublings: int = 3
    """How often the code's grid of shape / 2^doublings is doubled up to the image."""
    width: int = 16
    """Channels at half the image's size; they double with every halving."""
    widest: int = 512
    """Channels at most."""
    fine: int = 8
    """Channels at the image's own size, on the decoder's last step."""
    blocks: int = 1
    """Residual blocks at each size, in the encoder and in the decoder."""
    latent: int = 8
    """Channels of the code."""
    noise_scale: float = 0.02
    """Scale b on -1..1 of the Laplace noise that L1 stands for: the weight of the KL in nats per voxel."""
    kl_steps: int = 1000
    """Steps over which the weight of the KL rises from nothing."""
    free_bits: float = 0.02
    """KL in nats, the mean over a channel's numbers, below which the channel pays no less; 0 for none."""
    ssim: float = 0.2
    """Weight of 1 - SSIM beside L1; 0 for none."""
    adversary: float = 0.0
    """Weight of a discriminator of patches; 0 for none."""
    adversary_width: int = 32
    """Its channels at half the image's size."""
    adversary_start: int = 2000
    """Steps before it has a say; it has nothing to learn from blur."""
    rank: int = 16
    """Factors of the Gaussian that is fitted to the codes after training."""
    checkpointing: bool = False
    """Keep nothing within a network's stages and compute it again in the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.flat and len(self.shape) != 3:
            raise RecipeMismatch(f"`flat`: {len(self.shape)} axes have no slices to be channels; give a `shape` of 3")
        self.pyramid  # noqa: B018  # its own checks
        for name in ("fine", "blocks", "latent", "adversary_width", "rank"):
            if getattr(self, name) < 1:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name)}; at least 1")
        for name in ("width", "widest"):
            if getattr(self, name) < 4:
                raise RecipeMismatch(
                    f"`{name}`: {getattr(self, name)}; at least 4: each voxel is normed over its channels"
                )
        for name in ("kl_steps", "adversary_start"):
            if getattr(self, name) < 0:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name)}; at least 0")
        for name in ("noise_scale", "free_bits", "ssim", "adversary"):
            if not 0 <= getattr(self, name) < math.inf:
                raise RecipeMismatch(f"`{name}`: {getattr(self, name):g}; a finite number, 0 or more")
        if self.adversary and min(self.pyramid.shape) < PATCH:
            raise RecipeMismatch(
                f"`shape`: {min(self.pyramid.shape)}; the adversary judges patches of at least {PATCH}"
            )

    @property
    def pyramid(self) -> Pyramid:
        """The axes that are halved, and the channels at each halving."""
        shape = self.shape[1:] if self.flat else self.shape
        return Pyramid(shape=shape, doublings=self.doublings, width=self.width, widest=self.widest)

    @property
    def slices(self) -> int:
        """Channels of an image as the networks see it."""
        return self.shape[0] if self.flat else 1

    @property
    def stride(self) -> tuple[int, ...]:
        """Voxels of an image for one of the code's, per axis."""
        return (*self.shape[:1] * self.flat, *[self.pyramid.step] * self.pyramid.dims)

    @property
    def code(self) -> tuple[int, ...]:
        """Shape of a code: channels, then a grid with as many axes as the image."""
        return (self.latent, *(size // stride for size, stride in zip(self.shape, self.stride, strict=True)))


class Halo(NamedTuple):
    """How far a network sees, per axis: with so much around it, a tile is computed as in the whole."""

    encode: tuple[int, ...]
    """Voxels of the image around a tile to be encoded: whole strides."""
    decode: tuple[int, ...]
    """Voxels of the code around a tile to be decoded."""


class Encoder(nn.Module):
    """Images `(B, slices, *space)` to the posterior of their codes `(B, latent, *space / 2^doublings)`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dims, widths = config.pyramid.dims, [config.slices, *config.pyramid.widths]
        self.stages = nn.ModuleList(
            nn.Sequential(Conv(dims, a, b, 4, 2), *[Residual(dims, b) for _ in range(config.blocks)])
            for a, b in itertools.pairwise(widths)
        )
        code = Conv(dims, widths[-1], 2 * config.latent)
        if code.bias is not None:
            code.bias.data[config.latent :] = CERTAIN
        self.code = nn.Sequential(VoxelNorm(widths[-1]), LeakyReLU(), code)
        self.checkpointing = config.checkpointing

    def forward(self, image: Tensor) -> Posterior:
        """Means and log-variances in float32."""
        for stage in self.stages:
            image = _through(stage, image, self.checkpointing)
        mean, log_variance = self.code(image).float().chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(*BOUNDS))


class Decoder(nn.Module):
    """Codes `(B, latent, *grid)` to images `(B, slices, *2^doublings grid)`, about -1..1 and unbounded."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dims, widths = config.pyramid.dims, [*config.pyramid.widths[::-1], config.fine]
        ways = [nn.Sequential(Conv(dims, config.latent, widths[0]))]
        ways += [_doubled(dims, a, b) for a, b in itertools.pairwise(widths[:-1])]
        self.stages = nn.ModuleList(
            way.extend(Residual(dims, width) for _ in range(config.blocks))
            for way, width in zip(ways, widths[:-1], strict=True)
        )
        last = Conv(dims, config.fine, config.slices)
        last.weight.data *= GAIN  # a first image near 0: what is learned is the scan, not how to undo the start
        self.image = nn.Sequential(*_doubled(dims, widths[-2], config.fine), LeakyReLU(), last)
        self.checkpointing = config.checkpointing

    def forward(self, code: Tensor) -> Tensor:
        """Images in float32: no squashing, whose slope dies in air and bone."""
        for stage in self.stages:
            code = _through(stage, code, self.checkpointing)
        return _through(self.image, code, self.checkpointing).float()


class Autoencoder(nn.Module):
    """Encoder and decoder: images `(B, 1, *shape)`, codes `(B, latent, *grid)`, of any size that the strides divide."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, image: Tensor) -> Posterior:
        """The posterior of images' codes."""
        if not self.config.flat:
            posterior: Posterior = self.encoder(image)
            return posterior
        count, _, _, height, width = image.shape
        slabs = image.reshape(-1, self.config.slices, height, width)
        # (B slabs, C, h, w) to (B, C, slabs, h, w)
        return Posterior(*(part.view(count, -1, *part.shape[1:]).transpose(1, 2) for part in self.encoder(slabs)))

    def decode(self, code: Tensor) -> Tensor:
        """Images of codes."""
        if not self.config.flat:
            image: Tensor = self.decoder(code)
            return image
        slabs: Tensor = self.decoder(code.transpose(1, 2).flatten(0, 1))  # (B slabs, slices, height, width)
        return slabs.reshape(len(code), 1, -1, *slabs.shape[2:])


class Model(Synthesizer):
    """The autoencoder, its prior and, where the recipe wants one, a discriminator of patches.

    Loss per voxel: L1 + `noise_scale` KL + `ssim` (1 - SSIM) + `adversary` (least squares). The first two are the
    evidence lower bound times b, for Laplace noise of scale b = `noise_scale`.
    """

    players = ("autoencoder", "discriminator")
    averaged = ("autoencoder",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.shape = config.shape
        self.autoencoder = Autoencoder(config)
        self.prior = CodePrior(config.code, config.rank)
        self.activity = Activity(config.code)
        self.warmup = Warmup(config.kl_steps)
        if config.adversary:
            widths = [config.adversary_width * factor for factor in (1, 2)]
            self.discriminator = PatchDiscriminator(config.pyramid.dims, config.slices, widths, (2, 2))
        else:
            self.players = ("autoencoder",)  # type: ignore[assignment,misc]

    @property
    def stride(self) -> tuple[int, ...]:
        """Voxels of an image for one of the code's, per axis: what the size of a scan is a multiple of."""
        return self.config.stride

    @property
    def code(self) -> tuple[int, ...]:
        """Shape of the code of an image of the trained `shape`: channels, then a grid with as many axes."""
        return self.config.code

    @property
    def halo(self) -> Halo:
        """What a tile needs around it to be coded, or decoded, as in the whole; a slab's depth needs nothing.

        At the border of a scan there is none to give, and none is needed: the networks see zeros there in the whole
        as in the tile.
        """
        pyramid, reach = self.config.pyramid, Residual.REACH * self.config.blocks
        # At scale s = 2^l a residual convolution and a strided one reach s voxels of the image to each side.
        encode = sum(2**level for level in range(pyramid.doublings + 1))
        encode += reach * sum(2**level for level in range(1, pyramid.doublings + 1))
        decode = 2  # the last convolution, and that of the last doubling
        for _ in range(pyramid.doublings):
            decode = -(-decode // 2) + reach + 1
        depth = (0,) * self.config.flat
        whole = -(-encode // pyramid.step) * pyramid.step
        return Halo((*depth, *[whole] * pyramid.dims), (*depth, *[decode] * pyramid.dims))

    def turns(self, step: int) -> Iterator[Turn]:
        """The autoencoder's; with a discriminator that has its say, then its turn on the same images."""
        judged = bool(self.config.adversary) and step >= self.config.adversary_start
        yield Turn("autoencoder", JUDGED if judged else "play")
        if judged:
            yield Turn("discriminator", fresh=False)

    def forward(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        """Loss terms of the autoencoder's or the discriminator's move."""
        if turn.player == "discriminator":
            real, fake = (self._scores(image) for image in (batch.image, self.handed(batch)))
            return {"real": least_squares.real_loss(real), "fake": least_squares.fake_loss(fake)}
        posterior = self.encode(batch.image)
        if self.training:
            self.activity.see(posterior.mean, divergence(*posterior))
        image = self.autoencoder.decode(posterior.at(batch.normal("code", *self.config.code)))
        kl = kl_loss(*posterior, self.config.free_bits) / math.prod(self.shape)
        losses = {"L1": F.l1_loss(image, batch.image.float()), "KL": self.config.noise_scale * self.warmup() * kl}
        if self.config.ssim:
            losses["SSIM"] = self.config.ssim * ssim_loss(image, batch.image)
        if turn.kind == JUDGED:
            self.hand_on(batch, image)
            losses["adversarial"] = self.config.adversary * least_squares.generator_loss(self._scores(image))
        return losses

    def after(self, turn: Turn) -> None:
        """The weight of the KL rises with each move."""
        if turn.player == "autoencoder":
            self.warmup.move()

    def told(self) -> dict[str, float]:
        """For the log, of the last some fifty batches: share of active units, KL in nats, and that of each channel."""
        return self.activity.told()

    def encode(self, image: Tensor) -> Posterior:
        """The posterior `(B, latent, *grid)` of the codes of images `(B, 1, *space)` on -1..1.

        Raises:
            RecipeMismatch: the strides do not divide the space.
        """
        for size, stride in zip(image.shape[2:], self.stride, strict=True):
            if size % stride or not size:
                nearest = max(1, round(size / stride)) * stride
                raise RecipeMismatch(f"an axis of {size} voxels is not a multiple of {stride}; nearest {nearest}")
        return self.autoencoder.encode(image)

    def decode(self, code: Tensor) -> Tensor:
        """Images `(B, 1, *space)` on -1..1 of codes `(B, latent, *grid)`."""
        return self.autoencoder.decode(code).clamp(-1, 1)

    def reconstruct(self, image: Tensor) -> Tensor:
        """Images as their codes' means have them."""
        return self.decode(self.encode(image).mean)

    def remade(self, batch: Batch) -> Tensor:
        """The reconstruction."""
        return self.reconstruct(batch.image)

    @torch.no_grad()
    def finish(self, images: Iterator[Tensor]) -> None:
        """Fit the prior to the codes of training images; of a single one it stays the standard normal."""
        most, count, codes = max(2, FITTED // math.prod(self.config.code)), 0, []
        for image in images:
            codes.append([part.cpu() for part in self.encode(image)])
            if (count := count + len(image)) >= most:
                break
        if count > 1:
            self.fit_prior(Posterior(*(torch.cat(parts)[:most] for parts in zip(*codes, strict=True))))

    def fit_prior(self, codes: Posterior) -> None:
        """Fit the prior that `generate` samples to the posteriors of scans of the trained `shape`."""
        self.prior.fit(codes)

    def noise_shape(self, count: int) -> tuple[int, ...]:
        """For each image one for every number of its code, and one for every factor of the prior."""
        return count, self.prior.noise

    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Images `(B, 1, *shape)` of codes drawn from the prior."""
        return self.decode(self.prior(noise))

    def _scores(self, image: Tensor) -> Tensor:
        scores: Tensor = self.discriminator(image.squeeze(1) if self.config.flat else image)[-1]
        return scores


def _doubled(dims: int, inside: int, outside: int) -> nn.Sequential:
    """Features to twice their size, normed first.

    Without, features grow from size to size, and with them what a step does to the image: `vae3d_light` stood at 16.3
    dB on four held-out phantoms after 20 s of one core and at 14.1 after 40, with both norms at 18.6 after 30 (single
    runs on 16 phantoms).
    """
    return nn.Sequential(VoxelNorm(inside), LeakyReLU(), UpConv(dims, inside, outside))


def _through(stage: Callable[[Tensor], Tensor], features: Tensor, checkpointing: bool) -> Tensor:
    if checkpointing and torch.is_grad_enabled():
        kept: Tensor = checkpoint(stage, features, use_reentrant=False, preserve_rng_state=False)
        return kept
    return stage(features)
