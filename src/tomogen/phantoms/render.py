"""A chest drawn on a grid: the anatomy's formulas, evaluated in patient millimetres and painted as HU."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tomogen.phantoms import mediastinum, skeleton
from tomogen.phantoms.abdomen import paint_abdomen
from tomogen.phantoms.anatomy import Anatomy
from tomogen.phantoms.canvas import Canvas
from tomogen.phantoms.contrast import HALF, MARK, marked
from tomogen.phantoms.contrast import iodine as iodine_of
from tomogen.phantoms.grid import Grid
from tomogen.phantoms.lungs import paint_lungs
from tomogen.phantoms.ribs import paint_ribs
from tomogen.phantoms.scanner import grain, paint_table
from tomogen.phantoms.spine import paint_spine
from tomogen.phantoms.thorax import Thorax
from tomogen.phantoms.tissue import PHASES, Tissue
from tomogen.phantoms.tissue import tissue as tissue_of
from tomogen.volume import Acquisition, Affine, Volume, affine_of

FIELD = (300.0, 360.0, 360.0)
"""Default field of view in mm along (depth, height, width)."""
COARSEST = 7.6
"""Largest voxel in mm that is drawn as one."""
MOST_PARTS = 5
"""Into how many parts a larger one is cut at most; beyond 38 mm nothing is seen anyway."""


def chest(
    seed: int,
    shape: Sequence[int] = (128, 256, 256),
    spacing: Sequence[float] | None = None,
    *,
    contrast: str | None = None,
    noise: float = 0.0,
    table: bool = False,
) -> Volume:
    """A chest of nobody: int16 HU on `shape` voxels of `spacing` mm (depth, height, width), around LPS (0, 0, 0).

    Without a spacing the thorax fills the grid. The seed is the person: another shape, spacing, phase of
    `contrast` (`arterial`, `venous`; None is plain) or `noise` (standard deviation in HU) leaves the anatomy as
    it is. `table` draws the scanner's table behind the patient. `Anatomy.draw(seed)` names what was drawn, and
    `contrast.iodine` how strongly this person's blood is enhanced.

    Raises:
        ValueError: the contrast is no phase that there is.
    """
    if contrast is not None and contrast not in PHASES:
        raise ValueError(f"contrast is None, {' or '.join(PHASES)}, not {contrast!r}")
    steps = default_spacing(shape) if spacing is None else spacing
    anatomy = Anatomy.draw(seed)
    hu = image(anatomy, shape, steps, contrast=contrast, iodine=iodine_of(seed, anatomy), table=table)
    if noise:
        # each phase is a scan of its own, with its own noise
        rng = np.random.default_rng([seed, 0 if contrast is None else 1 + PHASES.index(contrast)])
        hu += np.float32(noise) * grain(rng, shape, steps)
    return Volume(
        np.rint(hu).clip(-1024, 3071).astype(np.int16),
        _affine(shape, steps),
        Acquisition(contrast=contrast is not None, synthetic=True),
    )


def vessels(
    seed: int,
    shape: Sequence[int] = (128, 256, 256),
    spacing: Sequence[float] | None = None,
    *,
    contrast: str = "arterial",
) -> Volume:
    """A label of the blood that a phase of `contrast` enhances: 1 where it fills half a voxel or more, otherwise 0.

    Vessels and heart chambers of the same person on the same grid as `chest` draws.
    """
    steps = default_spacing(shape) if spacing is None else spacing
    anatomy = Anatomy.draw(seed)
    change = _drawn(anatomy, shape, steps, marked(contrast)) - _drawn(anatomy, shape, steps, tissue_of(None))
    return Volume((change >= HALF * MARK).astype(np.int16), _affine(shape, steps), Acquisition(synthetic=True))


def _affine(shape: Sequence[int], spacing: Sequence[float]) -> Affine:
    """The affine of a grid around LPS (0, 0, 0)."""
    first = [-(n - 1) / 2 * step for n, step in zip(shape, spacing, strict=True)]
    return affine_of(spacing, first[::-1])


def default_spacing(shape: Sequence[int]) -> tuple[float, float, float]:
    """Mm along (depth, height, width) with which the thorax fills a grid of this shape; pixels are square."""
    pixel = FIELD[1] / max(shape[1], shape[2])
    return FIELD[0] / shape[0], pixel, pixel


def image(
    anatomy: Anatomy,
    shape: Sequence[int],
    spacing: Sequence[float],
    *,
    contrast: str | None = None,
    iodine: float = 1.0,
    table: bool = False,
) -> NDArray[np.float32]:
    """HU of an anatomy on `shape` voxels of `spacing` mm around LPS (0, 0, 0), without noise.

    `iodine` scales what contrast adds.
    """
    return _drawn(anatomy, shape, spacing, tissue_of(contrast, iodine), table)


def _drawn(
    anatomy: Anatomy, shape: Sequence[int], spacing: Sequence[float], tissue: Tissue, table: bool = False
) -> NDArray[np.float32]:
    # voxels so large that organs would fall between them are drawn in parts and averaged
    parts = [min(max(1, int(np.ceil(step / COARSEST - 1e-9))), MOST_PARTS) for step in spacing]
    grid = Grid.centred(
        anatomy,
        [n * f for n, f in zip(shape, parts, strict=True)],
        [step / f for step, f in zip(spacing, parts, strict=True)],
    )
    canvas = Canvas(grid)
    draw(canvas, tissue)
    if table:
        paint_table(canvas.hu, grid)
    (depth, height, width), (fz, fy, fx) = shape, parts
    hu: NDArray[np.float32] = canvas.hu.reshape(depth, fz, height, fy, width, fx).mean((1, 3, 5))
    return hu


def draw(canvas: Canvas, t: Tissue) -> None:
    """Paint the canvas's anatomy, from the skin inwards."""
    region = canvas.grid.whole()
    thorax = Thorax.of(region)
    canvas.paint(region, thorax.body, t.skin)
    canvas.paint(region, thorax.body + 1.8, t.fat)
    glands = thorax.glands(region)
    if glands is not None:
        canvas.paint(region, glands, t.gland)
    canvas.paint(region, thorax.muscles(region), t.muscle)
    skeleton.paint_shoulders(canvas, t)
    canvas.paint(region, thorax.hollow, t.mediastinum)
    paint_abdomen(canvas, region, thorax, t)
    heart = mediastinum.Heart.of(canvas.grid)
    lungs = thorax.lungs(mediastinum.bounds(region, heart), region)
    paint_ribs(canvas, region, thorax, t)
    skeleton.paint_breastbone(canvas, t)
    paint_spine(canvas, t)
    mediastinum.paint(canvas, heart, t)
    paint_lungs(canvas, region, lungs, t)
