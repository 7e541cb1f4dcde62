"""The textbook in three dimensions: SSIM (Wang et al. 2004) and MS-SSIM (Wang, Simoncelli, Bovik 2003), in float64.

HU clipped to [-1024, 3000] and mapped to [0, 1]; K1 = .01, K2 = .03. Gaussian windows of sigma 1.5 and 11 taps, windows
wholly inside, population covariance (sample covariance where the name says so). MS-SSIM is the product over scales of
mean(cs)^w, with SSIM instead of cs at the last scale (equation 7 of 2003, luminance at the coarsest scale alone);
between scales means of 2^3 voxels, an odd last plane dropped. Three scales take the first three weights divided by
their sum. NaN where a scale is smaller than its window, or a mean of cs is negative, which has no such power.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from tomogen.evaluation.definition import Definition
from tomogen.evaluation.local import Floats, gaussian, uniform
from tomogen.evaluation.pair import HU, Pair, Reading
from tomogen.evaluation.similarity import first_weights, product, pyramid, unit
from tomogen.evaluation.structure import Means, means

define = partial(Definition, convention="wang2003", better="higher", range=(-1024.0, 3000.0))


def ssim(truth: HU, made: HU, weights: Floats, sample: bool = False) -> float:
    """Mean SSIM over windows inside; NaN where an axis is shorter than the window."""
    return means(truth, made, weights, 1.0, change=unit(-1024, 3000), sample=sample).ssim


def by_scale(truth: HU, made: HU, weights: Floats, scales: int) -> list[Means]:
    """Mean SSIM, luminance, contrast-structure of each scale, the finest first."""
    return [
        means(x, y, weights, 1.0, change=change) for x, y, change in pyramid(truth, made, scales, unit(-1024, 3000))
    ]


def ms_ssim(scales: Sequence[Means]) -> float:
    """The product over scales of mean(cs)^w, with SSIM at the last; NaN where a mean is negative."""
    return product([*(one.contrast for one in scales[:-1]), scales[-1].ssim], first_weights(len(scales)))


class Way(NamedTuple):
    """One setting of MS-SSIM."""

    weights: Floats
    scales: int
    departs: str


WAYS = {
    "gauss11_5scales_clip4024": Way(gaussian(1.5, 11), 5, ""),
    "gauss11_3scales_clip4024": Way(gaussian(1.5, 11), 3, "Takes three scales, their weights divided by their sum."),
    "uniform3_5scales_clip4024": Way(uniform(3), 5, "Takes uniform windows of 3^3 voxels."),
    "gauss3_5scales_clip4024": Way(gaussian(1.5, 3), 5, "Takes windows of 3^3 voxels."),
}


def measure(pair: Pair) -> Iterator[Reading]:
    """SSIM, MS-SSIM, and the means of each scale; masks are not looked at."""
    known: dict[bytes, list[Means]] = {}
    for name, way in WAYS.items():
        key = way.weights.tobytes()
        if len(known.get(key, ())) < way.scales:
            known[key] = by_scale(pair.truth, pair.made, way.weights, way.scales)
        yield from _multiscale(name, way, known[key][: way.scales])
    finest = known[gaussian(1.5, 11).tobytes()][0]
    single = partial(define, reduction="mean over windows")
    yield Reading(
        single(
            metric="ssim_gauss11_valid_clip4024",
            parameters={"window": "Gaussian, sigma 1.5", "taps": 11, "covariance": "population", "peak": 1},
        ),
        finest.ssim,
    )
    yield Reading(
        single(
            metric="ssim_uniform7_sample_cov_clip4024",
            parameters={"window": "uniform", "taps": 7, "covariance": "sample", "peak": 1},
            departs="Takes 7^3 uniform windows and sample covariance.",
        ),
        ssim(pair.truth, pair.made, uniform(7), sample=True),
    )


def _multiscale(name: str, way: Way, scales: list[Means]) -> Iterator[Reading]:
    parameters: dict[str, float | int | str] = {
        "window": "uniform" if "uniform" in name else "Gaussian, sigma 1.5",
        "taps": len(way.weights),
        "covariance": "population",
        "peak": 1,
        "scales": way.scales,
    }
    whole = define(
        metric=f"{name}/ms_ssim",
        reduction="product over scales of means over windows",
        parameters=parameters,
        departs=way.departs,
    )
    yield Reading(whole, ms_ssim(scales))
    for number, found in enumerate(scales, start=1):
        for term, value in (("cs", found.contrast), ("ssim", found.ssim), ("luminance", found.luminance)):
            yield Reading(
                define(
                    metric=f"{name}/{term}_mean_by_scale/{number}",
                    reduction="mean over windows",
                    parameters={**parameters, "scale": number},
                    departs=way.departs,
                ),
                value,
            )
