"""The one tiler of the house: a network over a scan of any size, tile by tile, with no seam that is not measured.

Tiles overlap and are blended with weights that sum to exactly one; what a tile's cut edges have spoilt, the halo,
weighs nothing. Memory does not grow with the number of slices: a slab of tiles is read, computed and written before
the next.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tomogen.errors import UsageFault
from tomogen.intensity import Window
from tomogen.progress import Progress, silent

Network = Callable[..., Tensor]
"""Takes a tile `(1, C, *tile)` of each input, gives one `(1, C, *tile)`, all float32."""
Sizes = int | Sequence[int]
"""One number for all three axes, or one for each."""

GRAIN = 2**9
"""Weights along an axis are multiples of 1 / GRAIN. Three of them times a float32 take 24 + 27 bits, which a float64
holds: sums of weighted tiles are exact, and equal tiles blend to themselves bit for bit."""


WORK = 3
"""A scan is computed at most so many times over, halos included, if tiles of any size can do that."""


@dataclass(frozen=True)
class Tiled:
    """What the tiles came to."""

    values: NDArray[Any]
    """`(*grid)`, or `(C, *grid)`: the array that was filled."""
    tiles: int
    """How many there were."""
    seam: float | None
    """Mean absolute difference of a tile from the blend of those before it, over the voxels where both weigh something,
    in the network's units; None if there are none."""


class Span(NamedTuple):
    """A tile along one axis: where it begins, in voxels of the padded input, and the weights of its results."""

    start: int
    weights: NDArray[np.float64]


class Axis:
    """How one axis of `size` voxels is cut; `before` voxels of padding lie ahead of the first."""

    def __init__(
        self, size: int, tile: int, overlap: int, *, halo: int | None, align: int, up: int = 1, down: int = 1
    ) -> None:
        align = math.lcm(align, down)
        if halo is not None:  # such a network takes any size, so a small scan is a tile of its own size
            tile = min(tile, _ceil(size, align) * align)
        trimmed = _ceil(halo or 0, down) * down
        steps, shared = tile // align, _ceil(overlap + 2 * trimmed, align)
        self.size, self.tile, self.up, self.down = size, tile, up, down
        self.padded = max(_ceil(size, align) * align, tile)
        self.before = (self.padded - size) // 2 // align * align
        total = self.padded // align
        if total > steps and shared >= steps:
            raise UsageFault(
                f"tiles of {tile} voxels that share {shared * align} with the next never reach the end",
                fix=f"a tile of more than {shared * align} voxels, or a smaller overlap",
            )
        count = 1 if total == steps else _ceil(total - shared, steps - shared)
        starts = [align * ((total - steps) * i // max(1, count - 1)) for i in range(count)]
        self.spans = [Span(s, w) for s, w in zip(starts, self._weights(starts, trimmed), strict=True)]

    @property
    def grid(self) -> int:
        """Voxels of the result."""
        return _ceil(self.size * self.up, self.down)

    def scaled(self, voxels: int) -> int:
        """A place, or a number of voxels, of the input on the grid of the result."""
        return voxels * self.up // self.down

    def _weights(self, starts: Sequence[int], halo: int) -> list[NDArray[np.float64]]:
        """Weights of each tile: a raised cosine between its halos, over the sum of all, in whole grains."""
        length, before = self.scaled(self.tile), [self.scaled(start) for start in starts]
        cut = _ceil(halo * self.up, self.down)
        bells = np.zeros((len(starts), self.scaled(self.padded)))
        for row, start in enumerate(before):
            first = start + (cut if row else 0)
            last = start + length - (cut if row < len(starts) - 1 else 0)
            place = (np.arange(last - first) + 0.5) / (last - first)
            bells[row, first:last] = np.sin(np.pi * place) ** 2
        grains = np.floor(bells / bells.sum(0) * GRAIN)
        grains[bells.argmax(0), np.arange(bells.shape[1])] += GRAIN - grains.sum(0)
        return [grains[row, start : start + length] / GRAIN for row, start in enumerate(before)]


class Grid:
    """How a volume is cut into tiles, and what grid their results lie on.

    `tile`: voxels of a tile. `overlap`: voxels that neighbours are blended over, at least. `halo`: voxels that a cut
    edge spoils; with the network's own, tiles equal the whole, and then the network must take any multiple of `align`
    voxels. Without a halo it is given whole tiles only: a smaller scan is padded. `align`: what a tile's place is a
    multiple of, such as the stride of a network. The result is `up / down` times as fine as the input.

    Raises:
        UsageFault: the numbers do not go together.
    """

    def __init__(
        self,
        shape: Sequence[int],
        tile: Sizes,
        *,
        overlap: Sizes = 0,
        halo: Sizes | None = None,
        align: Sizes = 1,
        up: Sizes = 1,
        down: Sizes = 1,
    ) -> None:
        halos = (None,) * 3 if halo is None else _three(halo)
        numbers = [_three(value) for value in (tile, overlap, align, up, down)]
        axes = []
        for size, length, share, edge, step, finer, coarser in zip(
            shape, *numbers[:2], halos, *numbers[2:], strict=True
        ):
            if min(size, length, step, finer, coarser) < 1 or min(share, edge or 0) < 0:
                raise UsageFault("a tile, its alignment and its scale are at least 1; overlap and halo at least 0")
            unit = math.lcm(step, coarser)
            if length % unit:
                nearest = max(1, round(length / unit)) * unit
                raise UsageFault(f"a tile of {length} voxels is not a multiple of {unit}", fix=f"a tile of {nearest}")
            axes.append(Axis(size, length, share, halo=edge, align=step, up=finer, down=coarser))
        self.axes = axes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the result."""
        depth, height, width = (axis.grid for axis in self.axes)
        return depth, height, width

    def __len__(self) -> int:
        return math.prod(len(axis.spans) for axis in self.axes)


def tiled(
    network: Network,
    *inputs: NDArray[Any],
    tile: Sizes,
    overlap: Sizes = 0,
    halo: Sizes | None = None,
    align: Sizes = 1,
    up: Sizes = 1,
    down: Sizes = 1,
    fill: float = 0.0,
    out: NDArray[Any] | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Tiled:
    """`network` over inputs of one grid, each `(depth, height, width)` or `(C, depth, height, width)`, of any size.

    Inputs may be memory maps; `out` as well, and it is written slab by slab in the order of the slices, rounded where
    it holds whole numbers. Without it the result is made like the first input. `fill` is what lies outside the scan.
    The other numbers are those of `Grid`. Conditions that are no grid of voxels are the network's to hold.

    Raises:
        UsageFault: the numbers do not go together, the inputs differ in shape, or the network gives another shape.
    """
    shape = inputs[0].shape[-3:]
    if any(each.shape[-3:] != shape for each in inputs):
        raise UsageFault(f"inputs on unlike grids: {', '.join(str(each.shape[-3:]) for each in inputs)}")
    grid = Grid(shape, tile, overlap=overlap, halo=halo, align=align, up=up, down=down)
    total, done, apart = len(grid), 0, _Mean()
    slab: _Slab | None = None
    depth, *plane = grid.axes
    for row, along in enumerate(depth.spans):
        for across in itertools.product(*(axis.spans for axis in plane)):
            progress(done, total, "tiles")
            spans = (along, *across)
            boxes = [torch.from_numpy(_box(each, spans, grid.axes, fill)) for each in inputs]
            with torch.inference_mode():
                made = network(*(box[None].to(device) for box in boxes))[0].float().cpu().numpy()
            if slab is None:
                slab = _Slab(grid, len(made))
                out = out if out is not None else _like(inputs[0], len(made), grid.shape)
                _fits(out, len(made), grid.shape)
            apart.add(*slab.lay(made, spans))
            done += 1
        following = depth.spans[row + 1].start if row + 1 < len(depth.spans) else depth.padded
        assert slab is not None
        assert out is not None
        slab.finish(depth.scaled(following), out)
    progress(total, total, "tiles")
    assert out is not None
    return Tiled(out, total, apart.value)


def frugal(shape: Sequence[int], *, halo: Sizes, align: Sizes = 1, voxels: int) -> tuple[int, int, int]:
    """Lengths of tiles of some `voxels` with which a network with a halo computes the fewest voxels of a scan.

    Where these would still be more than `WORK` times the scan's, tiles may have twice as many, and so on. An axis
    without a halo is cut as finely as it can be: no cut of it costs anything. What is laid down and not yet written is
    as deep as a tile and as wide as the scan, in 16 bytes a voxel: it has at most four times as many voxels.
    """
    aligned = [_ceil(size, step) * step for size, step in zip(shape, _three(align), strict=True)]
    cuts = [_cuts(*axis) for axis in zip(aligned, _three(halo), _three(align), strict=True)]
    ways = list(itertools.product(*cuts))
    while True:
        small = [
            way
            for way in ways
            if math.prod(cut.length for cut in way) <= voxels and way[0].length * aligned[1] * aligned[2] <= 4 * voxels
        ]
        best = min(small, key=_computed, default=None)
        if best is not None and _computed(best) <= WORK * math.prod(aligned):
            depth, height, width = (cut.length for cut in best)
            return depth, height, width
        voxels *= 2


def in_hu(network: Network, window: Window) -> Network:
    """A network on -1..1 as one that takes HU and gives HU."""

    def wrapped(*tiles: Tensor) -> Tensor:
        return window.to_hu(network(*(window.to_unit(tile) for tile in tiles)).float())

    return wrapped


class _Cut(NamedTuple):
    """A way to cut an axis: the length of a tile, and of all tiles together."""

    length: int
    computed: int


def _cuts(size: int, halo: int, align: int) -> list[_Cut]:
    """All ways to cut an axis of whole `align` voxels, the fewest tiles for each length."""
    total, shared = size // align, 2 * _ceil(halo, align)
    if not shared:
        return [_Cut(align, size)]
    fewest = {total: 1}
    for count in range(2, total - shared + 1):
        fewest.setdefault(shared + _ceil(total - shared, count), count)
    return [_Cut(units * align, units * count * align) for units, count in fewest.items()]


def _computed(way: Sequence[_Cut]) -> int:
    return math.prod(cut.computed for cut in way)


class _Slab:
    """The rows that tiles still add to: sums of weighted results and of weights, in float64."""

    def __init__(self, grid: Grid, channels: int) -> None:
        self.axes = grid.axes
        depth, height, width = (axis.scaled(axis.padded) for axis in grid.axes)
        rows = min(depth, grid.axes[0].scaled(grid.axes[0].tile))
        self.sum = np.zeros((channels, rows, height, width))
        self.weight = np.zeros((rows, height, width))
        self.first = 0
        """Row of the padded result that row 0 of the slab is."""

    def lay(self, made: NDArray[np.float32], spans: Sequence[Span]) -> tuple[float, int]:
        """Add a tile; the sum of its differences from what lay there, and how many they were."""
        lengths = [axis.scaled(axis.tile) for axis in self.axes]
        if made.shape[1:] != tuple(lengths):
            raise UsageFault(
                f"the network makes tiles of {made.shape[1:]}, not {tuple(lengths)}", fix="`up` and `down`"
            )
        starts = [axis.scaled(span.start) for axis, span in zip(self.axes, spans, strict=True)]
        starts[0] -= self.first
        place = tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))
        z, y, x = (span.weights for span in spans)
        weight = z[:, None, None] * y[:, None] * x
        sums, laid = self.sum[:, *place], self.weight[place]
        both = (laid > 0) & (weight > 0)
        difference, count = 0.0, int(both.sum()) * len(made)
        if count:
            difference = float(np.abs(sums[:, both] / laid[both] - made[:, both]).sum())
        sums += made * weight
        laid += weight
        return difference, count

    def finish(self, until: int, out: NDArray[Any]) -> None:
        """Write the rows below `until`, to which nothing more is added, and make room for the next."""
        ready = min(until - self.first, self.sum.shape[1])
        depth, height, width = self.axes
        inside = tuple(
            slice(axis.scaled(axis.before), axis.scaled(axis.before) + axis.grid) for axis in (height, width)
        )
        lead = depth.scaled(depth.before)
        first, last = max(self.first, lead), min(self.first + ready, lead + depth.grid)
        if first < last:
            rows = self.sum[:, first - self.first : last - self.first, *inside]
            target = out[first - lead : last - lead] if out.ndim == 3 else out[:, first - lead : last - lead]
            _store(rows if out.ndim == 4 else rows[0], target)
        kept = self.sum.shape[1] - ready
        for array in (self.sum, self.weight[None]):
            array[:, :kept] = array[:, ready:]
            array[:, kept:] = 0
        self.first += ready


class _Mean:
    """A running mean."""

    def __init__(self) -> None:
        self.sum, self.count = 0.0, 0

    def add(self, total: float, count: int) -> None:
        self.sum, self.count = self.sum + total, self.count + count

    @property
    def value(self) -> float | None:
        return self.sum / self.count if self.count else None


def _box(array: NDArray[Any], spans: Sequence[Span], axes: Sequence[Axis], fill: float) -> NDArray[np.float32]:
    """The tile `(C, *tile)` of an input, float32; `fill` where it reaches out of the scan."""
    whole = array if array.ndim == 4 else array[None]
    starts = [span.start - axis.before for span, axis in zip(spans, axes, strict=True)]
    stops = [start + axis.tile for start, axis in zip(starts, axes, strict=True)]
    first = [max(0, start) for start in starts]
    last = [min(axis.size, stop) for axis, stop in zip(axes, stops, strict=True)]
    inside = whole[:, *(slice(a, b) for a, b in zip(first, last, strict=True))]
    out = np.full((len(whole), *(axis.tile for axis in axes)), fill, dtype=np.float32)
    out[:, *(slice(a - s, b - s) for a, b, s in zip(first, last, starts, strict=True))] = inside
    return out


def _store(rows: NDArray[np.float64], target: NDArray[Any]) -> None:
    """Rows into the result, to the nearest whole number that fits where it holds whole numbers."""
    if target.dtype.kind in "iu":
        limits = np.iinfo(target.dtype)
        rows = np.rint(rows).clip(limits.min, limits.max)
    target[...] = rows


def _like(first: NDArray[Any], channels: int, grid: tuple[int, ...]) -> NDArray[Any]:
    """Room for the result: of the input's type, with an axis of channels where it has one or there are several."""
    return np.empty((channels, *grid) if first.ndim == 4 or channels > 1 else grid, dtype=first.dtype)


def _fits(out: NDArray[Any], channels: int, grid: tuple[int, ...]) -> None:
    if out.shape not in ((channels, *grid), grid if channels == 1 else ()):
        raise UsageFault(f"an output of {out.shape} for results of {(channels, *grid)}")


def _three(value: Sizes) -> tuple[int, int, int]:
    depth, height, width = (value,) * 3 if isinstance(value, int) else value
    return depth, height, width


def _ceil(number: int, unit: int) -> int:
    """How many units hold the number."""
    return -(-number // unit)
