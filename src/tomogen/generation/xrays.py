"""What a run that learnt from radiographs makes of some: a scan, and how well that explains them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tomogen.cases.xrays import beam, shots
from tomogen.errors import RecipeMismatch
from tomogen.generation.load import Loaded
from tomogen.generation.sample import centred
from tomogen.radiography.geometry import Geometry, Point
from tomogen.volume import Acquisition, Volume

CONDITION = "xrays"
"""Name of the condition, `(views, rows, columns)` on -1..1."""

Pictures = NDArray[np.float32]
"""Radiographs `(views, rows, columns)` on 0..1, as `radiography.normal` gives them."""


def reconstructs(loaded: Loaded) -> bool:
    """Whether a run's model makes scans of radiographs."""
    return CONDITION in loaded.synthesizer.conditions


def room(loaded: Loaded) -> Geometry:
    """Beam, detector and views that a run learnt from."""
    return beam(_shape(loaded), loaded.run.spacing, **_beam(loaded), size=_shape(loaded)[-1])


def scan_of(loaded: Loaded, pictures: Pictures, middle: Point = (0.0, 0.0, 0.0)) -> Volume:
    """The scan that a run makes of radiographs, in int16 HU, its middle at a point in mm LPS.

    Raises:
        RecipeMismatch: another number of views, or another size, than the run learnt from; it makes no numbers.
    """
    wanted = loaded.synthesizer.condition_shape(CONDITION)
    if pictures.shape != wanted:
        raise RecipeMismatch(
            f"radiographs (views, rows, columns) of {pictures.shape}, the run takes {wanted}",
            at=loaded.run.path,
            fix=f"one for each of: {', '.join(loaded.run.recipe.config.views)}",
        )
    condition = torch.from_numpy(2 * pictures - 1)[None].to(loaded.device)
    noise = torch.zeros(loaded.synthesizer.noise_shape(1), device=loaded.device)
    with torch.inference_mode():
        image = loaded.synthesizer.generate(noise, {CONDITION: condition})[0, 0].float()
    if not bool(image.isfinite().all()):
        raise RecipeMismatch(
            "the run makes a scan with NaN or infinity in it: its weights are spoilt",
            at=loaded.run.path,
            fix="train again",
        )
    hu = loaded.run.window.to_hu(image).round().to(torch.int16).cpu().numpy()
    affine = centred(hu.shape, loaded.run.spacing)
    affine[:3, 3] += middle
    return Volume(hu, affine, Acquisition(synthetic=True))


def shot(loaded: Loaded, hu: NDArray[Any]) -> Pictures:
    """The radiographs of a scan on a run's grid, in the run's room."""
    energy = loaded.run.recipe.config.energy
    return shots(hu, loaded.run.spacing, **_beam(loaded), energy=energy, size=hu.shape[-1])


def residuals(loaded: Loaded, hu: NDArray[Any], pictures: Pictures) -> dict[str, float]:
    """How far the radiographs of a scan are from those given, by view: ||a - b|| / ||b|| of normalised grey."""
    found = shot(loaded, hu)
    return {
        view: float(np.linalg.norm(again - given)) / max(float(np.linalg.norm(given)), 1e-12)
        for view, again, given in zip(loaded.run.recipe.config.views, found, pictures, strict=True)
    }


def _shape(loaded: Loaded) -> tuple[int, int, int]:
    depth, height, width = loaded.synthesizer.shape
    return depth, height, width


def _beam(loaded: Loaded) -> dict[str, Any]:
    config = loaded.run.recipe.config
    return {"views": config.views, "geometry": config.geometry, "field": config.field}
