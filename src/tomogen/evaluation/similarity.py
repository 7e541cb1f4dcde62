"""What the published similarities share: the ranges they map to, the scales they halve to, the weights of scales."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomogen.evaluation.local import Floats
from tomogen.evaluation.structure import floats

SLAB = 2**21
"""Voxels looked at together: some 16 MB an array."""

WANG_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, the finest first (Wang, Simoncelli, Bovik 2003, section 3.2)."""

Change = Callable[[NDArray[Any]], Floats]
"""From stored values to the float64 ones that a convention compares."""


def unit(low: float, high: float) -> Change:
    """HU clipped to [low, high] and mapped to [0, 1]."""
    return lambda hu: (np.clip(floats(hu), low, high) - low) / (high - low)


def clipped(low: float, high: float) -> Change:
    """HU clipped to [low, high], their zero where it was."""
    return lambda hu: np.clip(floats(hu), low, high)


def offset(low: float, high: float = math.inf) -> Change:
    """HU clipped to [low, high], and `low` taken away."""
    return lambda hu: np.clip(floats(hu), low, high) - low


def slabs(x: NDArray[Any], y: NDArray[Any], change: Change = floats) -> Iterator[tuple[slice, Floats, Floats]]:
    """Both images a few slices at a time, with the slice that says which."""
    step = max(1, SLAB // max(1, x[0].size))
    for start in range(0, len(x), step):
        span = slice(start, start + step)
        yield span, change(x[span]), change(y[span])


def halved(image: NDArray[Any], change: Change = floats) -> Floats:
    """Means of 2 x 2 x 2 voxels, one side by side with the next; an odd last plane is dropped."""
    d, h, w = (size // 2 for size in image.shape)
    half = np.empty((d, h, w))
    step = max(1, SLAB // max(1, h * w * 8))
    for start in range(0, d, step):
        block = change(image[2 * start : 2 * min(start + step, d), : 2 * h, : 2 * w])
        half[start : start + step] = block.reshape(-1, 2, h, 2, w, 2).mean(axis=(1, 3, 5))
    return half


def pyramid(
    x: NDArray[Any], y: NDArray[Any], scales: int, change: Change = floats
) -> Iterator[tuple[NDArray[Any], NDArray[Any], Change]]:
    """A pair at each scale, the finest first and as it is stored, with the change it still needs."""
    for scale in range(scales):
        if scale:
            x, y, change = halved(x, change), halved(y, change), floats
        yield x, y, change


def first_weights(scales: int) -> list[float]:
    """The first of the five weights divided by their sum, for volumes too small for all.

    All five are as they are, their sum 1.0001.
    """
    weights = WANG_WEIGHTS[:scales]
    return list(weights) if scales == len(WANG_WEIGHTS) else [weight / sum(weights) for weight in weights]


def single(weights: Sequence[float]) -> list[float]:
    """Weights as float32 holds them."""
    rounded: list[float] = np.asarray(weights, np.float32).astype(np.float64).tolist()
    return rounded


def product(terms: Sequence[float], weights: Sequence[float]) -> float:
    """The product of terms to the power of their weights; NaN where a term is negative."""
    return math.prod(term**weight if term >= 0 else math.nan for term, weight in zip(terms, weights, strict=True))
