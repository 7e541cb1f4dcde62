"""RandomConv: features of CT from convolutions that nobody trained, the same to the last bit everywhere.

After Lee et al. 2022 (arXiv 2208.09218): random convolutional features order damage to images as trained ones do, and
need no weights to be fetched. What each layer sees is pooled into the mean and the spread of its maps, so a row has one
width for any size of image, and texture, edges and HU all have their say.

**Exact arithmetic.** HU are rounded to whole numbers, weights are small integers, and between layers values are
divided by a power of two, rounded and capped, so that every sum stays below 2^24 and is exact in float32 whatever its
order: threads, batches, bands, instruction sets and libraries change nothing.
"""

import hashlib
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

_EXACT = 2**24
"""Whole numbers below this are exact in float32, and so is each of their sums."""

_STEP = 8
"""Voxels between neighbours of the last map, and from a voxel to the furthest that it hears of there."""

_VOXELS = 2**22
"""Voxels taken at once: a band of a large volume, or many small images."""


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
    def preprocessing(self) -> str:
        """What is done to HU first."""
        return f"HU clipped to {LOW}..{HIGH}, rounded to whole HU, no resampling"

    @cached_property
    def weights(self) -> tuple[NDArray[np.int8], ...]:
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
            else:
                drawn = drawn * 7 // 256 - 3
            largest = HIGH - LOW if layer == 0 else CAP
            assert np.abs(drawn).reshape(out, -1).sum(axis=1).max() * largest < _EXACT
            found.append(drawn.astype(np.int8))
            before = out
        return tuple(found)

    @cached_property
    def sha256(self) -> str:
        """Of the filters' bytes, layer after layer."""
        return hashlib.sha256(b"".join(layer.tobytes() for layer in self.weights)).hexdigest()

    def __call__(self, images: "NDArray[Any]") -> NDArray[np.float64]:
        """Rows `(n, 210)` of images in HU, `(n, height, width)` or `(n, depth, height, width)`.

        First mean and spread of the HU above -1024 (in 1024 HU), then of the maps of each layer (in 1024 counts).
        Memory stays below about 1 GB: volumes go through in bands with the halo that makes them one.

        Raises:
            DataInvalid: another number of axes, fewer than 8 voxels along one, NaN or infinity.
        """
        images = np.asarray(images)
        if images.ndim != self.dims + 1:
            axes = "(n, height, width)" if self.dims == 2 else "(n, depth, height, width)"
            raise DataInvalid(f"{self.name} takes {axes}, not {images.shape}", reason=Reason.DIMENSIONS)
        if min(images.shape[1:]) < LEAST:
            raise DataInvalid(f"{images.shape[1:]} voxels; {self.name} takes {LEAST} or more", reason=Reason.TOO_SMALL)
        if self.dims == 2:
            images = images[:, None]
        rows = np.empty((len(images), self.width))
        step = max(1, _VOXELS // int(np.prod(images.shape[1:])))
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            filters = [torch.from_numpy(layer.astype(np.float32)) for layer in self.weights]
            for start in range(0, len(images), step):
                rows[start : start + step] = self._rows(images[start : start + step], filters)
        return rows

    def _rows(self, images: "NDArray[Any]", filters: list[Tensor]) -> NDArray[np.float64]:
        """Rows of images `(n, depth, height, width)` that go through together."""
        sums: NDArray[Any] = np.zeros((len(images), self.width // 2), dtype=object)
        squares, voxels = sums.copy(), sums[0].copy()
        for band, halo in self._bands(images):
            first = 0
            for maps in self._maps(band, filters, halo):
                last = first + maps.shape[1]
                for channel in range(first, last):
                    values = maps[:, channel - first].double().flatten(1)
                    sums[:, channel] += [int(total) for total in values.sum(dim=1)]
                    squares[:, channel] += [int(total) for total in values.square_().sum(dim=1)]
                voxels[first:last] += maps[0, 0].numel()
                first = last
        # In Python's integers: nothing cancels where a map is constant.
        mean = (sums / voxels).astype(np.float64)
        spread = np.sqrt(((voxels * squares - sums * sums) / (voxels * voxels)).astype(np.float64))
        return np.concatenate([mean, spread], axis=1) / 1024

    def _bands(self, images: "NDArray[Any]") -> Iterator[tuple[Tensor, tuple[int, int]]]:
        """Bands `(n, 1, depth, height, width)` along depth, and the planes of halo before and behind each."""
        depth = images.shape[1]
        size = max(1, _VOXELS // (images[:, 0].size * _STEP)) * _STEP if self.dims == 3 else depth
        for start in range(0, depth, size):
            before = min(start, _STEP)
            stop = min(start + size, depth)
            behind = min(depth - stop, _STEP)
            band = torch.from_numpy(images[:, start - before : stop + behind].astype(np.float32))[:, None]
            if not torch.isfinite(band).all():
                raise DataInvalid("NaN or infinity among the HU", reason=Reason.NOT_FINITE)
            yield band.clamp_(LOW, HIGH).round_() - LOW, (before, behind)

    def _maps(self, band: Tensor, filters: list[Tensor], halo: tuple[int, int]) -> Iterator[Tensor]:
        """The HU and the maps of each layer `(n, channels, depth, height, width)`, the halo cut off."""
        x, step = band, 1
        yield _inner(x, halo, step)
        along = int(self.dims == 3)
        for weight, stride, shift in zip(filters, STRIDES, SHIFTS[self.dims], strict=True):
            x = F.pad(x, (1, 1, 1, 1, along, along), mode="replicate")
            x = F.conv3d(x, weight, stride=(stride if along else 1, stride, stride))
            x = x.mul_(2.0**-shift).round_().clamp_(0, CAP)
            step *= stride
            yield _inner(x, halo, step)


def _inner(maps: Tensor, halo: tuple[int, int], step: int) -> Tensor:
    """Without the planes that only serve their neighbours."""
    before, behind = halo[0] // step, halo[1] // step
    return maps[:, :, before : maps.shape[2] - behind]


def _without_mean(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole weights whose sum is 0: the mean taken off, its remainder from the first few."""
    total = int(weights.sum())
    flat = weights.ravel() - total // weights.size
    flat[: total % weights.size] -= 1
    return flat.reshape(weights.shape)
