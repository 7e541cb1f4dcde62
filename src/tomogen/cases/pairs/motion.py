"""How far two scans of one patient lie apart: phase correlation finds the shift, correlation the rigid rest.

Scans are compared on a grid of 4 mm, within the source's body. Phase correlation (Kuglin & Hines, Proc IEEE Conf
Cybernetics and Society 1975:163) sees shifts of any size; from there the correlation of HU, which vessels with contrast
lower in either place, is climbed over three angles and three shifts, first on every second voxel.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tomogen.cases.resample import resample_whole
from tomogen.cases.steps import find_body, only
from tomogen.errors import DataInvalid, Reason
from tomogen.intensity import HU_FLOOR
from tomogen.volume import Affine, Volume

if TYPE_CHECKING:
    import SimpleITK

COARSE = 4.0
"""mm: the grid that scans are compared on; voxels that are larger stay."""
WINDOW = (-1000, 300)
"""HU that are compared: neither metal nor dense contrast outshines the body's outline and its lungs."""
STEPS = 80
SAMPLES = 50_000
"""Voxels of the body that are compared at most."""


@dataclass(frozen=True)
class Motion:
    """A rigid motion of the patient from the source to the target."""

    shift: tuple[float, float, float]
    """mm along LPS x, y, z by which the middle of the source's body moved."""
    angles: tuple[float, float, float]
    """Degrees about LPS x, y, z."""
    affine: Affine
    """4x4: a place in the source (LPS mm) to the same tissue's place in the target."""

    @property
    def distance(self) -> float:
        """How far the middle of the body moved, mm."""
        return float(np.linalg.norm(self.shift))

    @property
    def turn(self) -> float:
        """Degrees of rotation, about whatever axis."""
        cosine = (np.trace(self.affine[:3, :3]) - 1) / 2
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

    def __str__(self) -> str:
        x, y, z = (round(mm, 1) + 0.0 for mm in self.shift)  # no -0.0
        return f"{self.distance:.1f} mm (left {x:.1f}, back {y:.1f}, up {z:.1f}; turned {self.turn:.1f} degrees)"


def motion(source: Volume, target: Volume) -> Motion:
    """The rigid motion that lays the source's body upon the target's; both upright.

    Raises:
        DataInvalid: one of them holds no body, or they have nothing in common.
    """
    one, other = (_coarse(only(volume, find_body(volume))) for volume in (source, target))
    body = one.hu > WINDOW[0]
    middle = one.world(np.argwhere(body).mean(axis=0))
    return _climbed(one, other, body, middle, _shift(one, other))


def moved(target: Volume, source: Volume, motion: Motion) -> Volume:
    """The target on the source's grid, where the motion says that its tissue lay in the source; int16 HU."""
    import SimpleITK

    transform = SimpleITK.AffineTransform(motion.affine[:3, :3].ravel().tolist(), motion.affine[:3, 3].tolist())
    image = SimpleITK.Resample(
        _image(target), _image(source), transform, SimpleITK.sitkLinear, float(HU_FLOOR), SimpleITK.sitkInt16
    )
    hu = np.maximum(SimpleITK.GetArrayFromImage(image), np.int16(HU_FLOOR))
    return replace(target, hu=hu, affine=source.affine)


def _coarse(volume: Volume) -> Volume:
    """The scan on the grid that scans are compared on, its HU within the window."""
    coarse = resample_whole(volume, np.maximum(volume.spacing, COARSE).tolist())
    return replace(coarse, hu=coarse.hu.clip(*WINDOW).astype(np.float32))


def _shift(one: Volume, other: Volume) -> NDArray[np.float64]:
    """The way from the one to the other in mm along LPS, by phase correlation; padded, so that nothing wraps around."""
    from scipy import fft

    if not np.allclose(one.spacing, other.spacing, rtol=1e-3):
        other = resample_whole(replace(other, hu=other.hu.astype(np.int16)), one.spacing)
    size = np.array([fft.next_fast_len(a + b, real=True) for a, b in zip(one.shape, other.shape, strict=True)])
    first, second = (fft.rfftn(volume.hu.astype(np.float32) - WINDOW[0], size.tolist()) for volume in (one, other))
    cross = second * np.conj(first)
    surface = fft.irfftn(cross / (np.abs(cross) + 1e-3 * np.abs(cross).max()), size.tolist())
    peak = np.array(np.unravel_index(int(np.argmax(surface)), surface.shape))
    steps = np.where(peak >= other.shape, peak - size, peak)
    shift: NDArray[np.float64] = one.affine[:3, :3] @ steps + other.origin - one.origin
    return shift


def _climbed(
    one: Volume, other: Volume, body: NDArray[np.bool_], middle: NDArray[np.float64], start: NDArray[np.float64]
) -> Motion:
    """The motion of the highest correlation, climbed to from a shift; one thread, so that it is always the same."""
    import SimpleITK

    transform = SimpleITK.Euler3DTransform()
    transform.SetCenter(middle.tolist())
    transform.SetTranslation(start.tolist())
    method = SimpleITK.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsCorrelation()
    share = min(1.0, SAMPLES / int(body.sum()))
    if share < 1:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(share, 1)  # a seed: by default the clock's
    mask = SimpleITK.GetImageFromArray(body.astype(np.uint8))
    fixed = _image(one)
    mask.CopyInformation(fixed)
    method.SetMetricFixedMask(mask)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([COARSE, 0.0])
    method.SetOptimizerAsRegularStepGradientDescent(
        2.0, 0.02, STEPS, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-6
    )  # fmt: skip
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, _image(other))
    except RuntimeError:
        raise DataInvalid("the two scans have nothing in common to register by", reason=Reason.UNPAIRED) from None
    affine = np.eye(4)
    affine[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
    affine[:3, 3] = np.array(transform.GetTranslation()) + middle - affine[:3, :3] @ middle
    x, y, z = (float(mm) for mm in transform.GetTranslation())
    a, b, c = (
        float(np.degrees(angle)) for angle in (transform.GetAngleX(), transform.GetAngleY(), transform.GetAngleZ())
    )
    return Motion((x, y, z), (a, b, c), affine)


def _image(volume: Volume) -> "SimpleITK.Image":
    """A Volume as SimpleITK sees it: axes from the fastest on, LPS mm."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(volume.hu)
    image.SetSpacing(volume.spacing[::-1])
    image.SetOrigin(volume.origin.tolist())
    image.SetDirection(volume.directions[:, ::-1].ravel().tolist())
    return image
