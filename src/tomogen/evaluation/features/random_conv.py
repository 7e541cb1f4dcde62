"""RandomConv: features of CT from convolutions that nobody trained, the same to the last bit everywhere.

After Lee et al. 2022 (arXiv 2208.09218): random convolutional features order damage to images as trained ones do, and
need no weights to be fetched. What each layer sees is pooled into the mean and the spread of its maps, so a row has one
width for any size of image, and texture, edges and HU all have their say.

**Exact arithmetic.** HU are rounded to whole numbers, weights are small integers, and between layers values are
divided by a power of two, rounded and capped, so that every sum stays below 2^24 and is exact in float32 whatever its
order: threads, batches, bands, instruction sets and libraries change nothing.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tomogen.errors import DataInvalid, Reason, UsageFault
from tomogen.threads import spread

LOW, HIGH = -1024, 3071
"""HU that are kept apart: the 12 bits of a CT. Values outside are clipped."""

LEAST = 8
"""Voxels an image has at least along each axis: the last layer then has one."""

CHANNELS = (8, 16, 32, 48)
"""Filters of the four layers; with the HU themselves 105 maps, 210 features."""

STRIDES = (1, 2, 2, 2)
"""Steps of the layers; together 8."""

SHIFTS = {2: (6, 4, 5, 5), 3: (7, 5, 5, 6)}
"""Bits dropped after each layer, by dims: about the root of the summed squares of its weights."""

CAP = 2**13 - 1
"""What a map holds at most."""

TEXTURE_GAIN, TEXTURE_CAP = 8, 2**10 - 1
"""Of the filters without mean, every second of the first layer: turned up, and capped at what noise of about 40 HU
gives. So the grain of soft tissue counts beside the edges of bone and lung, which are ten times as strong."""

_EXACT = 2**24
"""Whole numbers below this are exact in float32, and so is each of their sums."""

_STEP = 8
"""Voxels between neighbours of the last map, and from a voxel to the furthest that it hears of there."""

_VOXELS = 900_000
"""Voxels of a tile, halo and all. Its largest tensors stay below 32 MB: glibc gives back larger ones each time."""


@dataclass(frozen=True)
class RandomConv:
    """Four random convolutions over slices (`dims` 2) or volumes (3)."""

    dims: int
    """2 or 3."""

    def __post_init__(self) -> None:
        if self.dims not in (2, 3):
            raise UsageFault(f"random convolutions see 2 or 3 dimensions, not {self.dims}")

    @property
    def name(self) -> str:
        """`random conv 2d` or `random conv 3d`."""
        return f"random conv {self.dims}d"

    @property
    def width(self) -> int:
        """Features of a row."""
        return 2 * (1 + sum(CHANNELS))

    @property
    def range(self) -> tuple[float, float]:
        """HU that are kept apart."""
        return float(LOW), float(HIGH)

    @property
    def preprocessing(self) -> str:
        """What is done to HU first."""
        return "clipped, rounded to whole HU"

    @cached_property
    def weights(self) -> tuple[NDArray[np.int16], ...]:
        """Filters of each layer `(out, in, 1 or 3, 3, 3)`, from the bytes of SHAKE-256 of the network's name."""
        depth = 1 if self.dims == 2 else 3
        found, before = [], 1
        for layer, out in enumerate(CHANNELS):
            shape = (out, before, depth, 3, 3)
            stream = hashlib.shake_256(f"tomogen {self.name} layer {layer}".encode()).digest(int(np.prod(shape)))
            drawn = np.frombuffer(stream, dtype=np.uint8).astype(np.int64).reshape(shape)
            if layer == 0:
                drawn = drawn % 255 - 127
                for number in range(0, out, 2):
                    drawn[number] = _without_mean(drawn[number])
                drawn[drawn.reshape(out, -1).sum(axis=1) < 0] *= -1  # a negative sum would see air alone
            else:
                drawn = drawn * 7 // 256 - 3
            largest = HIGH - LOW if layer == 0 else CAP
            assert np.abs(drawn).reshape(out, -1).sum(axis=1).max() * largest < _EXACT
            found.append(drawn.astype("<i2"))
            before = out
        return tuple(found)

    @cached_property
    def sha256(self) -> str:
        """Of the filters as 16-bit little-endian numbers, layer after layer."""
        return hashlib.sha256(b"".join(layer.tobytes() for layer in self.weights)).hexdigest()

    def __call__(self, images: "NDArray[Any]") -> NDArray[np.float64]:
        """Rows `(n, 210)` of images in HU, `(n, height, width)` or `(n, depth, height, width)`.

        First the mean of HU + 1024 and of the maps of each layer, then their standard deviations: all divided by 1024,
        and the root taken, so that weak maps have a say beside strong ones.
        Large images go through in tiles with the halo that makes them one, as many at a time as torch has threads, at
        about 0.2 GB each.

        Raises:
            DataInvalid: another number of axes, fewer than 8 voxels along one, NaN or infinity.
        """
        images = np.asarray(images)
        if images.ndim != self.dims + 1:
            axes = "(n, height, width)" if self.dims == 2 else "(n, depth, height, width)"
            raise DataInvalid(f"{self.name} takes {axes}, not {images.shape}", reason=Reason.DIMENSIONS)
        if min(images.shape[1:]) < LEAST:
            shape = " x ".join(str(size) for size in images.shape[1:])
            raise DataInvalid(
                f"{shape} voxels; {self.name} takes {LEAST} or more along each axis", reason=Reason.TOO_SMALL
            )
        if self.dims == 2:
            images = images[:, None]
        sums: NDArray[Any] = np.zeros((2, len(images), self.width // 2), dtype=object)
        voxels = np.zeros(self.width // 2, dtype=object)
        filters = [torch.from_numpy(layer.astype(np.float32)) for layer in self.weights]
        tiles = list(_tiles(images.shape))
        of_tiles = spread(lambda tile: self._sums(images, tile, filters), tiles)
        for tile, (found, pooled) in zip(tiles, of_tiles, strict=True):
            sums[:, tile.images] += found
            if tile.images.start == 0:
                voxels += pooled
        # In Python's whole numbers: nothing cancels where a map is constant.
        mean = (sums[0] / voxels).astype(np.float64)
        spread_of = np.sqrt(((voxels * sums[1] - sums[0] ** 2) / voxels**2).astype(np.float64))
        return np.sqrt(np.concatenate([mean, spread_of], axis=1) / 1024)

    def _sums(self, images: "NDArray[Any]", tile: "_Tile", filters: list[Tensor]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Of one tile: sums of the maps and of their squares `(2, images, maps)`, and voxels of each map."""
        sums: list[NDArray[np.float64]] = []
        voxels = []
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            hu = torch.from_numpy(images[(tile.images, *tile.space)].astype(np.float32))[:, None]
            if not torch.isfinite(hu).all():
                raise DataInvalid("NaN or infinity among the HU", reason=Reason.NOT_FINITE)
            for maps, step in self._maps(hu.clamp_(LOW, HIGH).round_() - LOW, filters):
                inner = tile.inner(maps, step)
                for channel in range(inner.shape[1]):
                    values = inner[:, channel].double().flatten(1)
                    sums.append(np.stack([values.sum(dim=1).numpy(), values.square_().sum(dim=1).numpy()]))
                    voxels.append(values.shape[1])
        return np.stack(sums, axis=2).astype(np.int64).astype(object), np.array(voxels, dtype=object)

    def _maps(self, hu: Tensor, filters: list[Tensor]) -> Iterator[tuple[Tensor, int]]:
        """HU above the lowest `(n, 1, depth, height, width)`, then the maps of each layer; and their step in voxels."""
        yield hu, 1
        x, step, along = hu, 1, int(self.dims == 3)
        for layer, (weight, stride, shift) in enumerate(zip(filters, STRIDES, SHIFTS[self.dims], strict=True)):
            x = F.pad(x, (1, 1, 1, 1, along, along), mode="replicate")
            x = F.conv3d(x, weight, stride=(stride if along else 1, stride, stride))
            if layer == 0:
                x[:, ::2].mul_(TEXTURE_GAIN).clamp_(max=TEXTURE_CAP * 2**shift)
            x = x.mul_(2.0**-shift).round_().clamp_(0, CAP)
            step *= stride
            yield x, step


@dataclass(frozen=True)
class _Tile:
    """A part of some images, and how much of it only serves its neighbours."""

    images: slice
    space: tuple[slice, ...]
    inside: tuple[slice, ...]
    """Within `space`: what no other tile has."""

    def inner(self, maps: Tensor, step: int) -> Tensor:
        """Maps `(n, channels, *space)` without the halo."""
        cut = (slice(part.start // step, -(-part.stop // step)) for part in self.inside)
        return maps[(slice(None), slice(None), *cut)]


def _tiles(shape: tuple[int, ...]) -> Iterator[_Tile]:
    """Tiles of images `(n, depth, height, width)`, of equal size along each axis as near as steps of 8 allow."""
    sides, left = [0, 0, 0], float(_VOXELS)
    for rank, axis in enumerate(sorted(range(3), key=lambda axis: shape[axis + 1])):
        most = left ** (1 / (3 - rank)) - 2 * _STEP
        pieces = 1 if shape[axis + 1] <= most + 2 * _STEP else math.ceil(shape[axis + 1] / max(most, _STEP))
        sides[axis] = math.ceil(shape[axis + 1] / pieces / _STEP) * _STEP
        left /= min(sides[axis] + 2 * _STEP, shape[axis + 1])
    batch = max(1, int(left))
    axes = [_cuts(size, side) for size, side in zip(shape[1:], sides, strict=True)]
    for first in range(0, shape[0], batch):
        for cuts in itertools.product(*axes):
            space, inside = zip(*cuts, strict=True)
            yield _Tile(slice(first, min(first + batch, shape[0])), space, inside)


def _cuts(size: int, side: int) -> list[tuple[slice, slice]]:
    """An axis cut into sides: each with its halo, and where it lies therein."""
    found = []
    for start in range(0, size, side):
        stop, first = min(start + side, size), max(0, start - _STEP)
        found.append((slice(first, min(stop + _STEP, size)), slice(start - first, stop - first)))
    return found


def _without_mean(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole weights whose sum is 0: the mean taken off, its remainder from the first few."""
    total = int(weights.sum())
    flat = weights.ravel() - total // weights.size
    flat[: total % weights.size] -= 1
    return flat.reshape(weights.shape)
