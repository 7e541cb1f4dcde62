"""Every metric of two sets: what it is, and its value of any scans of theirs against any others."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tomogen._version import __version__
from tomogen.evaluation import coherence, planes, sizes
from tomogen.evaluation.collection import VOLUME, Collection
from tomogen.evaluation.definition import Definition
from tomogen.evaluation.distances import frechet, histogram
from tomogen.evaluation.distances.kernel import Grams
from tomogen.evaluation.features.network import FeatureNetwork
from tomogen.evaluation.view import FAMILIES, KERNELS, Chosen, View

MEAN = "2.5d"
"""The mean of the three planes."""
_HIGHER = ("precision", "recall", "density", "coverage")
_PAIRS = "of unlike patients, each the mean over their rows"


@dataclass(frozen=True)
class SetMetric:
    """A metric of two lots of scans."""

    definition: Definition
    statistic: Callable[[Chosen, Chosen], float]
    """Of the second lot against the first."""
    grams: Callable[[Chosen, Chosen], Grams] | None = None
    """Of a kernel distance, what it is read off, a row a patient."""
    note: str = ""
    dear: bool = False
    """Whether the statistic takes long."""


@dataclass(frozen=True)
class Pool:
    """Both sets, the real scans first."""

    scans: Collection
    real: Chosen
    made: Chosen
    views: dict[str, View]
    networks: Sequence[FeatureNetwork]
    slices: int
    """Of a scan in a plane, at most."""
    grid: str
    """Voxels and spacing of the real scans, in words."""
    noun: str
    """`scans`, or `slices` where those are all there is."""

    @classmethod
    def of(
        cls, real: Collection, made: Collection, networks: Sequence[FeatureNetwork], slices: int, *, flat: bool
    ) -> "Pool":
        """Of two collections; `flat`: of slices."""
        scans = real.joined(made)
        patients = np.array([f"real {one}" for one in real.patients] + [f"made {one}" for one in made.patients])
        shape = " x ".join(map(str, min(real.shapes))) if len(real.shapes) == 1 else "unlike numbers of"
        spacing = " x ".join(f"{mm:.4g}" for mm in real.spacing[flat:])
        order = [*planes.PLANES, VOLUME]
        return cls(
            scans=scans,
            real=np.arange(len(real)),
            made=np.arange(len(real), len(scans)),
            views={name: View(scans.views[name], patients, len(real)) for name in sorted(scans.views, key=order.index)},
            networks=sorted(networks, key=lambda network: network.dims),
            slices=slices,
            grid=f"{shape} voxels of {spacing} mm as they are, axes turned to S, P, L",
            noun="slices" if flat else "scans",
        )


def metrics_of(pool: Pool, real: Chosen, made: Chosen) -> Iterator[SetMetric]:
    """Every metric there is, defined for as many real and made scans as these."""
    base = Definition(
        metric="",
        n=(len(real), len(made)),
        preprocessing=pool.grid,
        versions={"tomogen": __version__, "numpy": np.__version__, "torch": torch.__version__},
    )
    for network in pool.networks:
        names = [name for name in pool.views if (name == VOLUME) == (network.dims == 3)]
        groups = [(name, [name]) for name in names] + ([(MEAN, names)] if len(names) > 1 else [])
        for view, members in groups:
            common = replace(
                base,
                axis="3d" if view == VOLUME else ", ".join(members),
                range=network.range,
                features=f"{network.name}, SHA-256 {network.sha256}",
                preprocessing=f"{network.preprocessing}; {pool.grid}",
                reduction=_reduction(view, pool),
            )
            yield from _of_view(view, common, [pool.views[name] for name in members], real, made, network.width)
    yield _histogram(base, pool.scans)
    if pool.scans.profiles.shape[1]:
        yield _coherence(base, pool.scans)


def _reduction(view: str, pool: Pool) -> str:
    if view == VOLUME:
        return "a row of features a scan"
    if pool.noun == "slices":
        return "a row of features a slice"
    mean = "; mean of the three planes" if view == MEAN else ""
    return f"a row of features a slice, {pool.slices} of a scan in a plane at most, evenly spaced{mean}"


def _of_view(
    view: str, common: Definition, views: Sequence[View], real: Chosen, made: Chosen, width: int
) -> Iterator[SetMetric]:
    rows = min(one.count(scans) for one in views for scans in (real, made))
    k = sizes.neighbours(rows)
    for family, metrics in FAMILIES.items():
        parameters: dict[str, float | int | str] = {}
        note = ""
        if family == "fid" and rows <= width:
            note = f"{rows} rows of {width} features: a singular covariance, and much bias"
        elif family == "fid_above_floor":
            parameters = {"halvings": frechet.HALVINGS, "floor": "FID between halves of one set, patients whole"}
        elif family == "kid":
            parameters = {"kernel": "(x.y/d + 1)^3", "pairs": _PAIRS}
        elif family == "mmd":
            sigma = ", ".join(f"{one.sigma:g}" for one in views)
            parameters = {"kernel": "Gaussian", "sigma, the median distance of real rows": sigma, "pairs": _PAIRS}
        elif family == "prdc":
            parameters = {"k": k}
            if k < sizes.NEIGHBOURS:
                note = f"k = {k} instead of {sizes.NEIGHBOURS}: {rows} rows bear no more"
        for metric in metrics:
            better = "higher" if metric in _HIGHER else "lower"
            definition = replace(common, metric=f"{metric}/{view}", better=better, parameters=parameters)
            yield SetMetric(
                definition,
                _mean_of(views, family, metric, k),
                _mean_grams(views, family) if family in KERNELS else None,
                note,
                dear=family == "fid_above_floor",
            )


def _mean_of(views: Sequence[View], family: str, metric: str, k: int) -> Callable[[Chosen, Chosen], float]:
    return lambda first, second: float(np.mean([view.values(family, first, second, k)[metric] for view in views]))


def _mean_grams(views: Sequence[View], family: str) -> Callable[[Chosen, Chosen], Grams]:
    def mean(first: Chosen, second: Chosen) -> Grams:
        found = [view.grams(family, first, second) for view in views]
        return Grams(*(np.mean(side, axis=0) for side in zip(*found, strict=True)))

    return mean


def _histogram(base: Definition, scans: Collection) -> SetMetric:
    shares = scans.counts / scans.counts.sum(axis=1, keepdims=True)
    definition = replace(
        base,
        metric="hu_histogram",
        unit="HU",
        better="lower",
        range=(histogram.LOW, histogram.HIGH),
        reduction="1-Wasserstein distance of the mean histograms, bins of 1 HU, all scans of one weight",
    )
    return SetMetric(
        definition, lambda first, second: histogram.wasserstein(shares[first].mean(axis=0), shares[second].mean(axis=0))
    )


def _coherence(base: Definition, scans: Collection) -> SetMetric:
    count = scans.profiles.shape[1]
    definition = replace(
        base,
        metric="coherence",
        better="lower",
        reduction=(
            "log2 of change between slices over change within slices at equal mm, mean of the scans; absolute "
            "difference of the sets, mean over distances"
        ),
        parameters={"slices apart": f"1 to {count}", "mm": f"{scans.spacing[0]:.4g} to {count * scans.spacing[0]:.4g}"},
    )
    return SetMetric(
        definition, lambda first, second: coherence.incoherence(scans.profiles[first], scans.profiles[second])
    )
