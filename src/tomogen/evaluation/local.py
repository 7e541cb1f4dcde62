"""Local means, variances and covariances under a sliding window: what all kinds of SSIM are made of."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.floating]
Edges = Literal["inside", "reflect", "mirror"]
"""Windows wholly inside (the result is smaller); or the array continued: `reflect` repeats the edge voxel
(d c b a | a b c d), `mirror` does not (d c b | a b c d)."""


class Moments(NamedTuple):
    """Under each window: means, (co)variances."""

    mean_x: Floats
    mean_y: Floats
    var_x: Floats
    var_y: Floats
    cov: Floats


def gaussian(sigma: float, taps: int) -> Floats:
    """Weights of a sampled Gaussian, their sum 1."""
    offset = np.arange(taps) - (taps - 1) / 2
    weights = np.exp(-(offset**2) / (2 * sigma**2))
    return weights / weights.sum()


def uniform(taps: int) -> Floats:
    """Equal weights, their sum 1."""
    return np.full(taps, 1 / taps)


def smooth(image: Floats, weights: Floats, edges: Edges = "inside") -> Floats:
    """The image under a separable window, the same weights along every axis; in the image's precision."""
    mode = "reflect" if edges == "inside" else edges
    for axis in range(image.ndim):
        image = ndimage.correlate1d(image, weights, axis=axis, mode=mode)
    if edges == "inside":
        radius = len(weights) // 2
        image = image[tuple(slice(radius, size - radius) for size in image.shape)]
    return image


def moments(x: Floats, y: Floats, weights: Floats, edges: Edges = "inside", sample: bool = False) -> Moments:
    """Moments of two images of one shape; `sample`: (co)variances with N/(N-1), N the window's voxels."""
    mean_x, mean_y = smooth(x, weights, edges), smooth(y, weights, edges)
    count = len(weights) ** x.ndim
    factor = count / (count - 1) if sample else 1.0
    return Moments(
        mean_x,
        mean_y,
        factor * (smooth(x * x, weights, edges) - mean_x**2),
        factor * (smooth(y * y, weights, edges) - mean_y**2),
        factor * (smooth(x * y, weights, edges) - mean_x * mean_y),
    )
