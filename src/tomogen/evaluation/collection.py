"""Collection: what is kept of many scans once each has been seen: features, a histogram, a coherence profile."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomogen.errors import DataInvalid, Reason
from tomogen.evaluation import coherence, planes
from tomogen.evaluation.distances import histogram
from tomogen.evaluation.features.network import FeatureNetwork
from tomogen.volume import Volume

VOLUME = "volume"
"""The view that sees a whole scan; the others are planes."""


class Scan(NamedTuple):
    """One scan of a set."""

    id: str
    patient: str
    """Scans with the same one are no independent draws. A made scan is its own."""
    volume: Volume


class Grid(NamedTuple):
    """What is remembered of a scan when it is gone, turned to S, P, L."""

    id: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @classmethod
    def of(cls, scan: Scan) -> "Grid":
        """Of a scan whatever its orientation."""
        order = [scan.volume.orientation.translate(_AXES).index(letter) for letter in "SPL"]
        shape, spacing = scan.volume.shape, scan.volume.spacing
        return cls(
            scan.id,
            (shape[order[0]], shape[order[1]], shape[order[2]]),
            (spacing[order[0]], spacing[order[1]], spacing[order[2]]),
        )


_AXES = str.maketrans("IAR", "SPL")


class Rows(NamedTuple):
    """Features of a collection in one view."""

    values: NDArray[np.float64]
    """`(rows, width)`"""
    scan: NDArray[np.intp]
    """The scan each row is of, rising."""

    def of(self, scans: NDArray[np.intp]) -> NDArray[np.intp]:
        """Indices of the rows of some scans."""
        return np.flatnonzero(np.isin(self.scan, scans))


@dataclass(frozen=True, eq=False)
class Collection:
    """Many scans, none of them held."""

    ids: Sequence[str]
    patients: Sequence[str]
    shapes: frozenset[tuple[int, int, int]]
    """Voxels along (depth, height, width), turned to S, P, L."""
    spacing: tuple[float, float, float]
    """mm along (depth, height, width), of the first."""
    views: dict[str, Rows]
    counts: NDArray[np.int64]
    """Voxels in each bin of HU, a row a scan."""
    profiles: NDArray[np.float64]
    """Coherence profiles `(scans, distances)`; no distances for slices, NaN of scans whose slices are blank."""
    too_small: dict[str, str]
    """Views that a network cannot see, and why."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def people(self) -> int:
        """Patients."""
        return len(set(self.patients))

    def joined(self, other: "Collection") -> "Collection":
        """These scans and after them the others', in the views that both have."""
        count = min(self.profiles.shape[1], other.profiles.shape[1])
        views = {}
        for name in self.views.keys() & other.views.keys():
            a, b = self.views[name], other.views[name]
            views[name] = Rows(np.concatenate([a.values, b.values]), np.concatenate([a.scan, b.scan + len(self)]))
        return Collection(
            ids=[*self.ids, *other.ids],
            patients=[*self.patients, *other.patients],
            shapes=self.shapes | other.shapes,
            spacing=self.spacing,
            views=views,
            counts=np.concatenate([self.counts, other.counts]),
            profiles=np.concatenate([self.profiles[:, :count], other.profiles[:, :count]]),
            too_small=self.too_small | other.too_small,
        )

    def thinned(self, most: int) -> "Collection":
        """With at most so many slices of a scan in each plane, evenly spaced among those there are."""
        views = {name: rows if name == VOLUME else _thinned(rows, most) for name, rows in self.views.items()}
        return replace(self, views=views)


def collect(
    scans: Iterable[Scan], what: str, networks: Sequence[FeatureNetwork], *, flat: bool, most: int = planes.MOST
) -> Collection:
    """See each scan once. `flat`: each slice of a volume counts as a scan of one slice, of the volume's patient.

    `what` is `real` or `made`, for messages.

    Raises:
        DataInvalid: no scans, NaN, unlike spacings, slices among volumes, real scans of one value; the scan is named.
    """
    ids, patients, shapes, counts, profiles = [], [], [], [], []
    found: dict[str, list[NDArray[np.float64]]] = {}
    too_small: dict[str, str] = {}
    first: Grid | None = None
    for scan in _sound(scans, what):
        grid = Grid.of(scan)
        first = first or grid
        same_spacing(first, grid, (what, what), flat=flat)
        slices = len(scan.volume.hu) == 1
        if not flat and slices:
            raise DataInvalid(f"a slice among {what} volumes", reason=Reason.MIXED, at=scan.id, fix="score them apart")
        for part in _slices(scan, most) if flat else (scan,):
            ids.append(part.id)
            patients.append(part.patient)
            shapes.append(part.volume.shape)
            counts.append(histogram.counts(part.volume.hu))
            if not flat:
                profiles.append(_profile(part.volume))
            for view, network, images in _images(part.volume, networks, flat, most):
                try:
                    found.setdefault(view, []).append(_rows(network, images, part.id))
                except DataInvalid as error:
                    if error.reason is not Reason.TOO_SMALL:
                        raise
                    too_small.setdefault(view, f"{part.id}: {error.what}")
    if first is None:
        raise DataInvalid(f"no {what} scans", reason=Reason.EMPTY, fix="another folder")
    count = min(map(len, profiles), default=0)
    return Collection(
        ids=ids,
        patients=patients,
        shapes=frozenset(shapes),
        spacing=first.spacing,
        views={view: _joined(rows) for view, rows in found.items() if view not in too_small},
        counts=np.stack(counts),
        profiles=np.array([one[:count] for one in profiles]).reshape(len(profiles), count),
        too_small=too_small,
    )


NEAR = 0.01
"""Share by which spacings may differ and count as one: less than a voxel in a hundred."""


def same_spacing(a: Grid, b: Grid, names: tuple[str, str], *, flat: bool) -> None:
    """Refuse scans on unlike voxels; of slices the distance between them is no matter.

    Raises:
        DataInvalid: both are shown.
    """
    one, other = (list(grid.spacing)[1 if flat else 0 :] for grid in (a, b))
    if not np.allclose(one, other, rtol=NEAR, atol=0):
        raise DataInvalid(
            f"voxels of {_mm(one)} ({names[0]} {a.id}) against {_mm(other)} ({names[1]} {b.id})",
            reason=Reason.MIXED,
            at=b.id,
            fix="--resample, or other scans",
        )


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{mm:.4g}" for mm in spacing) + " mm"


def _sound(scans: Iterable[Scan], what: str) -> Iterator[Scan]:
    """Each scan turned to S, P, L. What a model makes may be one value everywhere: it is scored as badly as it is.

    Raises:
        DataInvalid: NaN or infinity; a real scan of one value.
    """
    for scan in scans:
        hu = scan.volume.hu
        if hu.dtype.kind == "f" and not np.isfinite(hu).all():
            raise DataInvalid(f"NaN or infinity in a {what} scan", reason=Reason.NOT_FINITE, at=scan.id)
        if what == "real" and hu.min() == hu.max():
            raise DataInvalid(f"every voxel of a real scan is {hu.min():g} HU", reason=Reason.CONSTANT, at=scan.id)
        yield scan._replace(volume=scan.volume.reorient())


def _slices(scan: Scan, most: int) -> Iterator[Scan]:
    """Axial slices of a scan, at most so many, evenly spaced; a slice is itself."""
    depth, height, width = scan.volume.shape
    if depth == 1:
        yield scan
        return
    for k in planes.places(depth, most):
        yield Scan(f"{scan.id}#{k}", scan.patient, scan.volume.crop((k, 0, 0), (1, height, width)))


def _profile(volume: Volume) -> NDArray[np.float64]:
    """Of coherence, NaN where nothing changes within the slices."""
    count = coherence.distances(volume.shape, volume.spacing)
    try:
        return coherence.profile(volume, count) if count else np.empty(0)
    except DataInvalid as error:
        if error.reason is not Reason.CONSTANT:
            raise
        return np.full(count, np.nan)


def _images(
    volume: Volume, networks: Sequence[FeatureNetwork], flat: bool, most: int
) -> Iterator[tuple[str, FeatureNetwork, NDArray[np.float32]]]:
    """What each network is to see of one scan, by view."""
    for network in networks:
        if network.dims == 3:
            if not flat:
                yield VOLUME, network, volume.hu[None].astype(np.float32)
            continue
        for plane, images in planes.cut(volume, most, planes.PLANES[:1] if flat else planes.PLANES).items():
            yield plane, network, images


def _rows(network: FeatureNetwork, images: NDArray[np.float32], at: str) -> NDArray[np.float64]:
    rows = np.asarray(network(images), dtype=np.float64)
    if not np.isfinite(rows).all():
        raise DataInvalid(f"features of {network.name} are not finite", reason=Reason.NOT_FINITE, at=at)
    return rows


def _joined(rows: Sequence[NDArray[np.float64]]) -> Rows:
    return Rows(np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(one) for one in rows]))


def _thinned(rows: Rows, most: int) -> Rows:
    kept = []
    for scan in range(int(rows.scan[-1]) + 1):
        own = np.flatnonzero(rows.scan == scan)
        kept.append(own[planes.places(len(own), most)])
    chosen = np.concatenate(kept)
    return Rows(rows.values[chosen], rows.scan[chosen])
