"""What two scans must have in common to be a pair, and what a message says where they do not."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tomogen.cases.pairs.motion import WINDOW
from tomogen.cases.resample import resample_whole
from tomogen.cases.steps import find_body
from tomogen.errors import DataInvalid, Reason
from tomogen.volume import Volume

if TYPE_CHECKING:
    from tomogen.cases.pairs.motion import Motion
    from tomogen.cases.scan import Finding

Words = tuple[str, str]
"""What messages call the source and the target."""

REGISTER = "prepare with --register, which moves the target onto the source's grid"

SHIFT = 1.5
"""mm between the bodies' middles from which a pair is misaligned; half a voxel, where voxels are larger than 3 mm."""
TURN = 1.0
"""Degrees likewise: 2.6 mm at the skin, 150 mm from the middle."""
AFTER = 2.0
"""So many times both are allowed after registration: what a moved scan lost at its edges disturbs the measure."""
SPACING = 0.01
"""Relative difference of spacing from which voxels are unlike."""
AXES = 1.0
"""Degrees between axes from which scans are turned against each other."""
SAME = 0.05
"""Voxels by which corners of one grid may differ."""
ALIKE, SURE = 0.5, 0.85
"""Correlation of HU within the body: below the first two scans show unlike bodies, below the second they may.

With a contrast agent or another kernel one body reaches 0.98 to 0.997, two persons' chests laid upon each other 0.55
to 0.82; how deep the breath was lies between.
"""
BLOOD = (0, 100)
"""HU of plain blood and soft tissue."""
ENHANCED = 60
"""HU that contrast adds to a vessel at least."""
VOLUME = 20.0
"""ml so enhanced that tell of contrast: a tenth of what the heart holds."""
COARSE, SMOOTH = 3.0, 9.0
"""mm: the grid that contrast is looked for on, and over how much HU are averaged: an aorta measures 25."""


def patients(source: "Finding", target: "Finding", words: Words) -> None:
    """Raise if the headers name two patients.

    Raises:
        DataInvalid: they do.
    """
    if source.patient and target.patient and source.patient.strip() != target.patient.strip():
        raise _unpaired(
            f"{words[0]} and {words[1]} are of two patients, as their headers say", "pair scans of one patient"
        )


def unlike_voxels(source: Volume, target: Volume, words: Words) -> None:
    """Raise if both halves are one scan.

    Raises:
        DataInvalid: they are.
    """
    if source.shape == target.shape and np.array_equal(source.hu, target.hu):
        raise DataInvalid(
            f"{words[0]} and {words[1]} hold the same voxels: one scan twice", reason=Reason.DUPLICATE,
            fix=f"put the scan that is meant into {words[1]}",
        )  # fmt: skip


def frames(source: "Finding", target: "Finding", words: Words) -> None:
    """Raise if positions in the two scans cannot be compared.

    Raises:
        DataInvalid: their headers name two frames of reference.
    """
    one, other = (_frame(finding) for finding in (source, target))
    if one and other and one != other:
        raise _unpaired(
            f"{words[0]} and {words[1]} have two frames of reference: the patient was laid down anew between them",
            REGISTER,
        )


def grids(source: Volume, target: Volume, words: Words) -> None:
    """Raise unless both scans lie on one grid; both upright.

    Raises:
        DataInvalid: axes, spacing, number of slices, matrix or place differ.
    """
    one, other = words
    turned = _angle(source, target)
    if turned > AXES:
        raise _unpaired(f"the axes of {one} and {other} are {turned:.1f} degrees apart", REGISTER)
    if not np.allclose(source.spacing, target.spacing, rtol=SPACING, atol=0):
        here, there = (" x ".join(f"{mm:.4g}" for mm in volume.spacing) for volume in (source, target))
        raise _unpaired(f"unlike spacing: {one} has {here} mm, {other} {there} mm", REGISTER)
    if source.shape[0] != target.shape[0]:
        raise _unpaired(f"{one} has {source.shape[0]} slices, {other} {target.shape[0]}", REGISTER)
    if source.shape != target.shape:
        here, there = (f"{volume.shape[1]} x {volume.shape[2]}" for volume in (source, target))
        raise _unpaired(f"unlike slices: {one} has {here} voxels, {other} {there}", REGISTER)
    if not same_grid(source, target):
        apart = float(np.linalg.norm(target.centre - source.centre))
        share = overlap(source, target)
        raise _unpaired(
            f"the grids of {one} and {other} lie {apart:.1f} mm apart; their fields overlap by {share:.0%}", REGISTER
        )


def same_grid(source: Volume, target: Volume) -> bool:
    """Whether voxels of one index lie in one place."""
    if source.shape != target.shape:
        return False
    corners = np.array([np.multiply(corner, np.array(source.shape) - 1) for corner in np.ndindex(2, 2, 2)])
    apart = np.abs(source.world(corners) - target.world(corners)).max()
    return bool(apart <= SAME * max(source.spacing))


def overlap(source: Volume, target: Volume) -> float:
    """Share of the source's field that lies in the target's, by the boxes along LPS that hold them."""
    lows, highs = zip(*(_box(volume) for volume in (source, target)), strict=True)
    common = np.minimum(*highs) - np.maximum(*lows)
    return float(np.prod(np.maximum(common, 0)) / np.prod(highs[0] - lows[0]))


def aligned(measured: "Motion", source: Volume, slack: float = 1.0) -> bool:
    """Whether the body lies in one place in both scans, as well as can be told; `slack` widens what is allowed."""
    shift = max(SHIFT, min(source.spacing) / 2)
    return measured.distance <= slack * shift and measured.turn <= slack * TURN


def misaligned(measured: "Motion", words: Words, *, again: bool = False) -> DataInvalid:
    """The error of a pair that is not aligned; `again`: not even after registration."""
    after = " even after registration" if again else ""
    fix = "pair scans that one rigid motion lays upon each other" if again else REGISTER
    return _unpaired(f"misaligned{after}: the body in {words[1]} lies {measured} from that in {words[0]}", fix)


def bodies(source: Volume, target: Volume, words: Words) -> tuple[str, ...]:
    """A warning where the two may show unlike bodies; both on one grid.

    Raises:
        DataInvalid: they do.
    """
    body = find_body(source)
    one, other = (volume.hu[body].clip(*WINDOW).astype(np.float32) for volume in (source, target))
    spread = float(one.std() * other.std())
    found = float(((one - one.mean()) * (other - other.mean())).mean()) / spread if spread else 0.0
    if found < ALIKE:
        raise _unpaired(
            f"{words[0]} and {words[1]} show unlike bodies (correlation {found:.2f}, {ALIKE} at least)",
            "pair scans of one patient and region",
        )
    return () if found >= SURE else (f"the bodies differ (correlation {found:.2f}): one patient, one breath?",)


def order(source: Volume, target: Volume, words: Words, *, strict: bool) -> tuple[str, ...]:
    """Warnings about contrast; both on one grid.

    With `strict` the words promise a plain source and a target with contrast.

    Raises:
        DataInvalid: with `strict`, where the source has the contrast.
    """
    gained, lost = enhanced(source, target), enhanced(target, source)
    if lost > VOLUME and lost > 3 * gained:
        what = f"{lost:.0f} ml are brighter in {words[0]} than in {words[1]} by what contrast adds"
        if strict:
            raise _unpaired(
                f"swapped: {what}", f"exchange the two, or --pairs {words[1]},{words[0]} if {words[0]} is to be made"
            )
        return (f"{what}: are source and target swapped?",)
    if strict and gained < VOLUME:
        return (f"only {gained:.0f} ml are enhanced in {words[1]}: has it contrast?",)
    return ()


def enhanced(plain: Volume, contrast: Volume) -> float:
    """Millilitres of blood in the one that measure as blood with contrast in the other; HU are smoothed."""
    from scipy import ndimage

    coarse = [resample_whole(volume, np.maximum(volume.spacing, COARSE).tolist()) for volume in (plain, contrast)]
    size = [2 * round(SMOOTH / mm / 2) + 1 for mm in coarse[0].spacing]
    one, other = (ndimage.uniform_filter(volume.hu.astype(np.float32), size) for volume in coarse)
    found = find_body(coarse[0]) & (one > BLOOD[0]) & (one < BLOOD[1]) & (other - one > ENHANCED)
    return float(found.sum() * np.prod(coarse[0].spacing) / 1000)


def _angle(source: Volume, target: Volume) -> float:
    """Largest angle in degrees between axes of one name."""
    cosines = (source.directions * target.directions).sum(axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).max())


def _box(volume: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    corners = np.array([np.multiply(corner, volume.shape) - 0.5 for corner in np.ndindex(2, 2, 2)])
    world = volume.world(corners)
    return world.min(axis=0), world.max(axis=0)


def _frame(finding: "Finding") -> str:
    """FrameOfReferenceUID of a series: compared, never told; empty where there is none."""
    if finding.format != "dicom":
        return ""
    import pydicom

    try:
        dataset = pydicom.dcmread(finding.files[0], stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"])
        return str(dataset.get("FrameOfReferenceUID", "") or "").strip()
    except Exception:  # the reader of the scan itself has the word on damaged headers
        return ""


def _unpaired(what: str, fix: str) -> DataInvalid:
    return DataInvalid(what, reason=Reason.UNPAIRED, fix=fix)
