"""The encoder and the decoder of a run over scans of any size, in bounded memory."""

import math
from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tomogen.errors import RecipeMismatch
from tomogen.generation.load import Loaded
from tomogen.generation.tiles import frugal, tiled
from tomogen.layers.posterior import Posterior
from tomogen.progress import Progress, silent

VOXELS = 2**23
"""Of a scan that are coded at once, where the halos leave it at that: decoding takes some 85 bytes for each with
`vae3d_light`, 235 with `vae3d`."""


class Halo(Protocol):
    """How far the networks see, per axis."""

    @property
    def encode(self) -> tuple[int, ...]:
        """Voxels of the image."""

    @property
    def decode(self) -> tuple[int, ...]:
        """Voxels of the code."""


@runtime_checkable
class Autoencoding(Protocol):
    """What a synthesizer has that makes codes of scans, and scans of codes."""

    @property
    def stride(self) -> tuple[int, ...]:
        """Voxels of an image for one of the code's, per axis."""

    @property
    def code(self) -> tuple[int, ...]:
        """Shape of the code of an image of the trained shape, the channels first."""

    @property
    def halo(self) -> Halo:
        """What a tile needs around it to be as in the whole."""

    def encode(self, image: Tensor) -> Posterior:
        """The posterior `(B, C, *grid)` of images `(B, 1, *space)` on -1..1."""

    def decode(self, code: Tensor) -> Tensor:
        """Images `(B, 1, *space)` on -1..1 of codes `(B, C, *grid)`."""


class Coder:
    """A run's encoder and decoder, over scans in HU and codes with three axes.

    Tiles with the networks' own halo: each voxel is as in the whole, but for the last digits of float32. A network of
    slices, or of slabs, codes each by itself.
    """

    def __init__(self, loaded: Loaded) -> None:
        """Raises RecipeMismatch where the run's model has no codes of scans."""
        if not isinstance(loaded.synthesizer, Autoencoding):
            raise RecipeMismatch(
                f"the run is of {loaded.run.name}, which has no codes of scans",
                at=loaded.run.path,
                fix="a run of vae3d_light or one of its kin: tomogen recipes list",
            )
        self.loaded, self.model = loaded, cast(Autoencoding, loaded.synthesizer)
        self.sliced = len(loaded.synthesizer.shape) == 2
        self.stride = self._deep(self.model.stride, 1)

    def grid(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """The grid of a scan's code: whole strides, and half a stride on each side of an axis for the networks to see.

        Training showed a body cut off at the border of the image for images of the trained size alone. Without a
        margin, the three last slices of four phantoms cut to 40 of 64 came back with an error of 150 HU, with half a
        stride 69; at the trained size a margin made the whole worse (PSNR 21.0 to 20.0 dB; `vae3d_light`).
        """
        trained = self._deep(self.loaded.synthesizer.shape, 1)
        margins = (
            step if reach else 0 for step, reach in zip(self.stride, self._deep(self.model.halo.encode, 0), strict=True)
        )
        depth, height, width = (
            -(-(size + (margin if size != usual else 0)) // step)
            for size, step, margin, usual in zip(shape, self.stride, margins, trained, strict=True)
        )
        return depth, height, width

    def encode(self, hu: NDArray[np.int16 | np.float32], progress: Progress = silent) -> Posterior:
        """The posterior `(1, C, *grid)` of a scan's code, float32 on the CPU.

        What of the grid lies outside the scan continues its border: air there, as in training, left errors of 97 HU
        in the three last slices of the phantoms of `grid` where this leaves 60.
        """
        grid, window = self.grid(hu.shape), self.loaded.run.window
        whole = [cells * step for cells, step in zip(grid, self.stride, strict=True)]
        if list(hu.shape) != whole:
            leads = self._leads(grid, hu.shape)
            ends = [size - lead - here for size, lead, here in zip(whole, leads, hu.shape, strict=True)]
            hu = np.pad(hu, list(zip(leads, ends, strict=True)), mode="edge")
        halo = self._deep(self.model.halo.encode, 0)

        def network(tile: Tensor) -> Tensor:
            image = window.to_unit(tile)
            parts = self.model.encode(image.transpose(1, 2)[0] if self.sliced else image)
            return torch.cat([_stacked(part) if self.sliced else part for part in parts], dim=1)

        out = np.empty((2 * self.model.code[0], *grid), dtype=np.float32)
        tile = frugal(whole, halo=halo, align=self.stride, voxels=VOXELS)
        tiled(
            network,
            hu,
            tile=tile,
            halo=halo,
            align=self.stride,
            down=self.stride,
            out=out,
            device=self.loaded.device,
            progress=progress,
        )
        mean, log_variance = torch.from_numpy(out)[None].chunk(2, dim=1)
        return Posterior(mean, log_variance)

    def decode(self, code: Tensor, shape: Sequence[int], progress: Progress = silent) -> NDArray[np.int16]:
        """The scan of `shape` voxels, in whole HU, of a code `(1, C, *grid)`.

        Raises:
            RecipeMismatch: it makes no numbers.
        """
        window, run = self.loaded.run.window, self.loaded.run
        grid, halo = tuple(code.shape[2:]), self._deep(self.model.halo.decode, 0)

        def network(tile: Tensor) -> Tensor:
            image = self.model.decode(tile.transpose(1, 2)[0] if self.sliced else tile)
            hu = window.to_hu((_stacked(image) if self.sliced else image).float())
            if not bool(hu.isfinite().all()):
                raise RecipeMismatch(
                    "the run makes a scan with NaN or infinity in it of this code", at=run.path, fix="a smaller --alpha"
                )
            return hu

        out = np.empty([cells * step for cells, step in zip(grid, self.stride, strict=True)], dtype=np.int16)
        tiled(
            network,
            code[0].numpy(),
            tile=frugal(grid, halo=halo, voxels=VOXELS // math.prod(self.stride)),
            halo=halo,
            up=self.stride,
            out=out,
            device=self.loaded.device,
            progress=progress,
        )
        inside = tuple(slice(lead, lead + size) for lead, size in zip(self._leads(grid, shape), shape, strict=True))
        return np.ascontiguousarray(out[inside])

    def _leads(self, grid: Sequence[int], shape: Sequence[int]) -> list[int]:
        """Voxels of the grid before the first of the scan."""
        return [(cells * step - size) // 2 for cells, step, size in zip(grid, self.stride, shape, strict=True)]

    def _deep(self, sizes: tuple[int, ...], depth: int) -> tuple[int, int, int]:
        """Three axes; that of a network of slices has `depth`."""
        d, h, w = (depth, *sizes) if self.sliced else sizes
        return d, h, w


def _stacked(slices: Tensor) -> Tensor:
    """`(D, C, h, w)` as `(1, C, D, h, w)`."""
    return slices.transpose(0, 1)[None]
