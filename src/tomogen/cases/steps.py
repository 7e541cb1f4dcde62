"""What is done to one scan on its way to a case: pure functions, Volume in, Volume out.

Order matters: HU and orientation first, then the body on the scan's own voxels (a table 5 mm thick is not seen on a
grid of 5 mm), then one resampling straight onto the final grid, and the window last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tomogen.cases.preparation import ORIENTATION, Preparation
from tomogen.cases.resample import resample
from tomogen.errors import DataInvalid, Reason
from tomogen.intensity import HU_FLOOR
from tomogen.volume import Volume

TISSUE = -500
"""HU above which a voxel is taken for tissue: between lung or foam (-900 to -600) and fat (-100)."""

WORKING = 2.0
"""mm: the grid on which the body is found. Finer gains nothing, coarser merges body and table."""

THIN = 4.0
"""mm to either side: tissue thinner than twice this is cut off, as table shells, bridges to the table, tubes are.
Back comes what lies within twice this of the rest, so a thin chest wall stays; gaps as wide are closed."""

PARTS = 0.3
"""A part of the body has at least this share of the largest part's voxels: two legs stay, arms and tables go."""

OBLIQUE = 1.0
"""Degrees off the patient's axes from which a scan is turned; below, it is taken as straight."""


@dataclass(frozen=True)
class Box:
    """Part of a scan in fractional voxel edges: from `low` up to `high` along (depth, height, width)."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @property
    def size(self) -> NDArray[np.float64]:
        """Voxels along each axis."""
        return np.subtract(self.high, self.low)

    @property
    def middle(self) -> NDArray[np.float64]:
        """Index of the centre: voxel 0 has its centre at 0 and its edges at -0.5 and 0.5."""
        return np.add(self.high, self.low) / 2


@dataclass(frozen=True)
class Grid:
    """Where a case's voxels lie in a scan: spacing in mm, shape, index of the first voxel's centre."""

    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    first: tuple[float, float, float]


def cases_of(volume: Volume, preparation: Preparation) -> list[Volume]:
    """All steps: the cases that a scan gives, several with `slab`, otherwise one.

    Raises:
        DataInvalid: the scan holds no body.
    """
    scan = straight(upright(volume))
    body = find_body(scan)
    box = body_box(body) if preparation.body_mask else field_box(scan, body)
    if preparation.body_mask:
        scan = only(scan, body)
    return [
        clip(resample(scan, grid.spacing, grid.shape, grid.first), preparation.window)
        for grid in grids(scan, box, preparation)
    ]


def upright(volume: Volume) -> Volume:
    """Axes along `SPL`, values as int16 HU from the floor up; no voxel is interpolated."""
    volume = volume.reorient(ORIENTATION)
    hu = volume.hu
    if hu.dtype != np.int16:
        hu = np.rint(np.nan_to_num(hu, nan=HU_FLOOR)).clip(HU_FLOOR, 32767).astype(np.int16)
    return replace(volume, hu=np.maximum(hu, np.int16(HU_FLOOR)))


def straight(volume: Volume) -> Volume:
    """A scan that is oblique to the patient's axes, interpolated onto axes along them; a straight one as it is.

    The new spacing is as fine as what the turned voxels resolve along each axis.
    """
    cosines = np.abs(np.diag(volume.directions[[2, 1, 0]]))
    if cosines.min() > np.cos(np.radians(OBLIQUE)):
        return volume
    import SimpleITK

    axes = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], dtype=np.float64)
    turned = axes.T @ volume.directions
    spacing = 1 / np.sqrt(((turned / volume.spacing) ** 2).sum(axis=1))
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in volume.shape])).reshape(3, -1).T
    patient = volume.world(corners) @ axes
    low, high = patient.min(axis=0), patient.max(axis=0)
    shape = np.maximum(np.ceil((high - low) / spacing - 1e-6), 1).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = axes @ (low + spacing / 2)
    to_index = np.linalg.inv(volume.affine) @ affine
    # SimpleITK sees both grids as plain indices (x fastest); the transform alone carries the geometry.
    transform = SimpleITK.AffineTransform(to_index[:3, :3][::-1, ::-1].ravel().tolist(), to_index[:3, 3][::-1].tolist())
    image = SimpleITK.GetImageFromArray(volume.hu)
    size = [int(n) for n in shape[::-1]]
    turned_image = SimpleITK.Resample(
        image,
        size,
        transform,
        SimpleITK.sitkLinear,
        (0.0,) * 3,
        (1.0,) * 3,
        np.eye(3).ravel().tolist(),
        float(HU_FLOOR),
    )
    return replace(volume, hu=SimpleITK.GetArrayFromImage(turned_image), affine=affine)


def find_body(volume: Volume) -> NDArray[np.bool_]:
    """The patient's voxels, lungs and bowel gas among them, without table, blankets and tubes.

    Tissue on a 2 mm grid, opened in each slice, its largest parts in 3D, grown back, holes filled in each slice.

    Raises:
        DataInvalid: nothing is tissue.
    """
    from scipy import ndimage

    spacing = np.maximum(volume.spacing, WORKING)
    shape = np.maximum(np.rint(np.array(volume.shape) * volume.spacing / spacing), 1).astype(int)
    steps = np.array(volume.shape) / shape
    coarse = resample(volume, steps * volume.spacing, shape.tolist(), (steps / 2 - 0.5).tolist())
    tissue = coarse.hu > TISSUE
    if not tissue.any():
        raise DataInvalid(
            f"no body: nothing above {TISSUE} HU, the highest value is {volume.hu.max()}", reason=Reason.HU_RANGE
        )
    cross = ndimage.generate_binary_structure(2, 1)[None]
    reach = max(1, round(THIN / max(coarse.spacing[1:])))
    core = ndimage.binary_erosion(tissue, cross, iterations=reach, border_value=1)
    parts = _large_parts(core if core.any() else tissue)
    body = ndimage.binary_dilation(parts, cross, iterations=2 * reach, mask=tissue)
    body |= ndimage.binary_closing(body, cross, iterations=reach)
    body |= _walls(body)
    body = np.stack([ndimage.binary_fill_holes(plane) for plane in body])
    body[1:-1] |= body[:-2] & body[2:]
    body = ndimage.binary_dilation(body, cross)  # skin is half a voxel of tissue and half of air
    nearest = [
        np.minimum(((np.arange(n) + 0.5) / step).astype(int), m - 1)
        for n, step, m in zip(volume.shape, steps, shape, strict=True)
    ]
    found: NDArray[np.bool_] = body[np.ix_(*nearest)]
    return found


def only(volume: Volume, mask: NDArray[np.bool_]) -> Volume:
    """What is not in the mask becomes the HU floor."""
    return replace(volume, hu=np.where(mask, volume.hu, np.int16(HU_FLOOR)))


def body_box(body: NDArray[np.bool_]) -> Box:
    """The smallest box around the body."""
    spans = [np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    d, h, w = (float(span[0]) - 0.5 for span in spans)
    e, i, x = (float(span[-1]) + 0.5 for span in spans)
    return Box((d, h, w), (e, i, x))


def field_box(volume: Volume, body: NDArray[np.bool_]) -> Box:
    """The whole field in plane, and from the first slice with body to the last."""
    box = body_box(body)
    _, height, width = volume.shape
    return Box((box.low[0], -0.5, -0.5), (box.high[0], height - 0.5, width - 0.5))


def grids(volume: Volume, box: Box, preparation: Preparation) -> list[Grid]:
    """The grids of a scan's cases, about the middle of the box.

    Slabs lie end to end about the middle: as many as the box's depth gives when rounded, one at least, so that less
    than half a slab is lost or padded.
    """
    extent = box.size * volume.spacing
    spacing = np.array(preparation.spacing or volume.spacing)
    if preparation.shape is not None and preparation.spacing is None:
        ratio = extent / preparation.shape
        fitted = ratio[1:] if preparation.slab else ratio
        spacing = ratio if preparation.fit == "stretch" else np.full(3, fitted.max())
    needed = np.maximum(np.ceil(extent / spacing - 1e-6), 1).astype(int)
    shape = needed if preparation.shape is None else np.array(preparation.shape)
    count = 1
    if preparation.slab is not None:
        shape = np.array([preparation.slab, *shape[1:]])
        count = max(1, round(int(needed[0]) / preparation.slab))
    steps = spacing / volume.spacing
    # The body's own voxels are centred in the box, then as many added or left out on both sides: so an edge of the
    # body is an edge of voxels, and a stack thinner than one voxel has its centre in it.
    spare = (shape * (count, 1, 1) - needed) // 2
    first = box.middle - ((needed - 1) / 2 + spare) * steps
    if preparation.spacing is None and preparation.shape is None:
        first = np.rint(first)  # the scan's own voxels: nothing is interpolated
    return [
        Grid(_three(spacing), tuple(shape.tolist()), _three(first + np.array([slab * shape[0] * steps[0], 0, 0])))
        for slab in range(count)
    ]


def clip(volume: Volume, window: tuple[float, float] | None) -> Volume:
    """Values clipped to a window in HU; None leaves them."""
    if window is None:
        return volume
    return replace(volume, hu=volume.hu.clip(round(window[0]), round(window[1])).astype(np.int16))


def slices_with_body(volume: Volume, least: float = 0.01) -> list[int]:
    """Indices of the axial slices of which at least this share is tissue: those that 2D models draw from."""
    share = (volume.hu > TISSUE).mean(axis=(1, 2))
    return np.flatnonzero(share >= least).tolist()


def _walls(body: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """At each edge of each slice, all between the first and the last voxel of the body.

    A body that is wider than the field leaves its lungs open there: without a wall they would count as outside.
    """
    walls = np.zeros_like(body)
    for edge in (np.s_[:, :, 0], np.s_[:, :, -1], np.s_[:, 0, :], np.s_[:, -1, :]):
        line = body[edge]
        after = np.logical_or.accumulate(line, axis=1)
        before = np.logical_or.accumulate(line[:, ::-1], axis=1)[:, ::-1]
        walls[edge] |= after & before
    return walls


def _large_parts(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    large: NDArray[np.bool_] = (counts >= PARTS * counts.max())[labels]
    large &= mask
    return large


def _three(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float, float]:
    d, h, w = (float(value) for value in values)
    return d, h, w
