"""Translation: a scan, and a run that learnt from pairs, to the scan as it would have been the other way."""

import hashlib
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tomogen import formats
from tomogen.cases.resample import resample as onto
from tomogen.cases.steps import body_box, find_body, only, upright
from tomogen.errors import DataInvalid, Reason, RecipeMismatch, UsageFault
from tomogen.formats import DEFAULT, Provenance, ReadOptions, dicom
from tomogen.formats.dicom import derived
from tomogen.formats.dicom.frames import Frame
from tomogen.generation.load import Loaded, load
from tomogen.generation.tiles import in_hu, tiled
from tomogen.intensity import HU_FLOOR
from tomogen.progress import Progress, silent
from tomogen.storage import free, replacing
from tomogen.volume import Acquisition, Volume

CONDITION = "source"
"""Name of the condition, `(1, *shape)` on -1..1."""

SHARED = 4
"""A tile shares at least one part in so many of each side with the next: half would take 3.4 times as many tiles."""

LOCAL = (32, 128, 128)
"""Voxels of a tile of a network that says how far it sees: tiles are then as the whole, of whatever size."""

UNLIKE = 0.1
"""Part by which a scan's voxels may differ from those that a run learnt from before a warning is due."""

LEAST = 2
"""Slices of a scan; the network works in three dimensions."""


class Translated(NamedTuple):
    """A scan that a run made of another, on the same grid."""

    volume: Volume
    """Int16 HU."""
    tiles: int
    seam: float | None
    """Mean absolute difference in HU of a tile from those laid before it, where they overlap; None of a single tile."""
    share: float
    """Share of the voxels that were translated: the body, or slices with one, within the run's window."""


@dataclass(frozen=True)
class TranslateResult:
    """What was made."""

    files: tuple[Path, ...]
    """The files, and the folders of DICOM series."""
    run: str
    """Identifier of the run."""
    shape: tuple[int, int, int]
    """Voxels along (depth, height, width)."""
    spacing: tuple[float, float, float]
    """mm along (depth, height, width)."""
    orientation: str
    """Patient direction nearest to each axis."""
    hu: tuple[int, int]
    """Lowest and highest value."""
    tiles: int
    seam: float | None
    """Mean absolute difference in HU of tiles where they overlap; None of a single tile."""
    share: float
    """Share of the voxels that were translated; the others are the source's."""
    derived: bool
    """Whether a DICOM series was written beside its source: same patient, study and frame of reference."""


class Given(NamedTuple):
    """A scan as it was read; `slices` are those of a DICOM series, one at each depth, and None of other formats."""

    volume: Volume
    slices: tuple[Frame | None, ...] | None


def translate(
    run: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    format: str = "",
    resample: bool = False,
    device: str = "auto",
    overwrite: bool = False,
    options: ReadOptions = DEFAULT,
    progress: Progress = silent,
) -> TranslateResult:
    """Translate the scan `source` with a run of pix2pix3d and write it as `out`, on the same grid, in whole HU.

    The ending of `out` tells the format (none: a folder of DICOM slices); with `format`, words such as `dicom,nii`,
    `out` is written in each under the ending of its own. DICOM made of DICOM is a derived series: patient, study and
    frame of reference are the source's, each slice lies where its source lies and names it. What is written in other
    formats, or made of them, names nobody.

    Only the body is translated, or, with a run that learnt from scans with all around the body (`body_mask` off), all
    slices that show one. Elsewhere, and where the source lies beyond the HU of the run's window (metal), the source's
    values stay. A scan whose voxels are unlike those the run learnt from is warned of; with `resample` it
    is translated on the run's spacing, and what changed there is added to the source.

    Raises:
        InputMissing: no run, no weights, or no scan.
        RecipeMismatch: the run is of another kind, or its weights do not fit.
        DataInvalid: the source is no CT in HU, holds no body, or has a single slice.
        UsageFault: an output is there and `overwrite` is not given; DICOM of a scan whose slices were resampled.
        DependencyMissing: a codec or the device is not there.
    """
    source, out = Path(source), Path(out)
    targets = _targets(out, format)
    for target in targets:
        free(target, overwrite, source)
    loaded = load(run, device)
    if not translates(loaded):
        raise RecipeMismatch(
            f"the run is of {loaded.run.name}, which does not translate scans",
            at=run,
            fix="a run of pix2pix3d_light or one of its kin: tomogen recipes list",
        )
    given = _read(source, options)
    for target in targets:
        _writable(given, target, source)
    try:
        made = translated(loaded, given.volume, progress, resampled=resample)
    except DataInvalid as error:
        error.at = error.at or str(source)
        raise
    provenance = _provenance(loaded, given.volume, made, resample)
    for target in targets:
        with replacing(target):
            _write(made.volume, target, given, provenance)
    return TranslateResult(
        files=tuple(targets),
        run=loaded.run.identifier,
        shape=made.volume.shape,
        spacing=made.volume.spacing,
        orientation=made.volume.orientation,
        hu=(int(made.volume.hu.min()), int(made.volume.hu.max())),
        tiles=made.tiles,
        seam=made.seam,
        share=made.share,
        derived=given.slices is not None and any(_is_dicom(target) for target in targets),
    )


def translates(loaded: Loaded) -> bool:
    """Whether a run's model makes scans of scans."""
    return tuple(loaded.synthesizer.conditions) == (CONDITION,) and len(loaded.synthesizer.shape) == 3


def translated(loaded: Loaded, volume: Volume, progress: Progress = silent, *, resampled: bool = False) -> Translated:
    """What a run makes of a scan, on its grid.

    The network sees what it saw in training: axes along `SPL`, the box around the body, all outside it at the HU
    floor; where the run learnt without a body mask, whole slices, from the first with a body to the last. With
    `resampled` also voxels of the run's spacing; what it changes there is interpolated and added.

    Raises:
        DataInvalid: a single slice, or no body.
    """
    scan = upright(volume)  # its own array: what is made goes into it
    if len(scan.hu) < LEAST:
        raise DataInvalid(f"a scan of {len(scan.hu)} slice; {LEAST} at least are translated", reason=Reason.TOO_FEW)
    _compare(loaded, scan.spacing, resampled)
    body = find_body(scan)
    if not loaded.run.data.get("body_mask", True):  # runs of earlier versions do not say it, and had one
        slices = np.flatnonzero(body.any(axis=(1, 2)))
        body[slices[0] : slices[-1] + 1] = True
    box = body_box(body)
    place = tuple(slice(int(low + 0.5), int(high + 0.5)) for low, high in zip(box.low, box.high, strict=True))
    inner, inside, window = scan.hu[place], body[place], loaded.run.window
    shown = only(replace(scan, hu=inner), inside)
    hu, tiles, seam = (_resampled if resampled else _network)(loaded, shown, progress)
    inside &= (inner >= window.low) & (inner <= window.high)
    np.copyto(inner, hu, where=inside)
    acquisition = Acquisition(synthetic=True, slice_thickness=volume.acquisition.slice_thickness)
    made = replace(scan, acquisition=acquisition).reorient(volume.orientation)
    return Translated(replace(made, affine=volume.affine), tiles, seam, float(body.mean()))


def _network(loaded: Loaded, shown: Volume, progress: Progress) -> tuple[NDArray[np.int16], int, float | None]:
    """What the network makes of a scan as it is shown it; the number of tiles, and their seam."""
    synthesizer, window, device = loaded.synthesizer, loaded.run.window, loaded.device
    noise = torch.zeros(synthesizer.noise_shape(1), device=device)

    def network(tile: Tensor) -> Tensor:
        return synthesizer.generate(noise, {CONDITION: tile})

    reach: tuple[int, int, int] | None = getattr(synthesizer, "reach", None)
    if reach is None:
        side = synthesizer.shape
        cut: dict[str, Any] = {"tile": side, "overlap": [-(-voxels // SHARED) for voxels in side]}
    else:
        cut = {"tile": LOCAL, "halo": reach, "align": 2}
    made = tiled(in_hu(network, window), shown.hu, **cut, fill=HU_FLOOR, device=device, progress=progress)
    return made.values, made.tiles, made.seam


def _resampled(loaded: Loaded, shown: Volume, progress: Progress) -> tuple[NDArray[np.int16], int, float | None]:
    """The scan with what the network changes on the run's spacing; a network that changes nothing gives it back."""
    size, steps = np.array(shown.shape), np.divide(loaded.run.spacing, shown.spacing)
    shape = np.maximum(np.ceil(size / steps - 1e-6), 1)  # no voxel of the scan lies beyond the other grid
    first = (size - 1) / 2 - (shape - 1) / 2 * steps
    coarse = onto(shown, loaded.run.spacing, shape.astype(int).tolist(), first.tolist())
    window = loaded.run.window
    coarse = replace(coarse, hu=np.rint(coarse.hu.clip(window.low, window.high)).astype(np.int16))
    hu, tiles, seam = _network(loaded, coarse, progress)
    back = (shown.spacing, shown.shape, (-first / steps).tolist())
    after, before = onto(replace(coarse, hu=hu), *back).hu, onto(coarse, *back).hu
    for plane, new, old in zip(shown.hu, after, before, strict=True):
        plane[...] = (plane.astype(np.int32) + new - old).clip(HU_FLOOR, 32767)
    return shown.hu.astype(np.int16, copy=False), tiles, seam


def _compare(loaded: Loaded, spacing: tuple[float, float, float], resampled: bool) -> None:
    """Warn of voxels unlike those of the run."""
    ratio = np.divide(spacing, loaded.run.spacing)
    if not resampled and (abs(np.log(ratio)) > np.log1p(UNLIKE)).any():
        theirs, ours = (" x ".join(f"{mm:.3g}" for mm in one) for one in (spacing, loaded.run.spacing))
        warnings.warn(
            f"the scan's voxels are {theirs} mm (depth, height, width), the run learnt from {ours} mm: "
            "--resample translates on those",
            stacklevel=4,
        )


def _targets(out: Path, words: str) -> list[Path]:
    """What is to be written: `out`, or its name with the ending of each format."""
    if not words:
        formats.writes(out)
        return [out]
    return [out.with_name(f"{formats.stem(out)}{ending}") for ending in formats.endings(words).values()]


def _read(source: Path, options: ReadOptions) -> Given:
    if not source.exists() or formats.format_of(source) is not dicom:
        return Given(formats.read(source, options), None)
    found = dicom.load(dicom.files_in(source), options)
    for text in found.warnings:
        warnings.warn(text, stacklevel=3)
    return Given(found.volume, found.slices)


def _writable(given: Given, target: Path, source: Path) -> None:
    """Raise before the work where `target` could not be written after it."""
    if given.slices is None or not _is_dicom(target):
        return
    if formats.ending_of(target):
        raise UsageFault(
            "a derived series is a folder of slices, as many as its source has", at=target, fix="a name without .dcm"
        )
    if not given.slices:
        raise UsageFault(
            "the scan was resampled (gantry tilt): no slice of a DICOM series could lie where its source lies",
            at=source,
            fix="--format nii",
        )
    derived.check(given.slices)


def _write(volume: Volume, target: Path, given: Given, provenance: Provenance) -> None:
    if given.slices and _is_dicom(target):
        derived.write(volume.hu.astype(np.int16, copy=False), target, given.slices, provenance)
    else:
        formats.write(volume, target, provenance)


def _is_dicom(path: Path) -> bool:
    return not formats.ending_of(path) or path.name.lower().endswith(dicom.SUFFIXES)


def _provenance(loaded: Loaded, volume: Volume, made: Translated, resampled: bool) -> Provenance:
    digest = hashlib.sha256(volume.affine.tobytes())
    for plane in volume.hu:
        digest.update(plane.tobytes())
    how = ", on the spacing of the run" if resampled else ""
    told = "" if made.seam is None else f"; {made.tiles} tiles, seam {made.seam:.2f} HU"
    return Provenance(
        model=loaded.run.recipe.model,
        run=loaded.run.identifier,
        seed=0,
        index=1,
        source=f"sha256:{digest.hexdigest()[:16]}{how}",
        description=f"translated: {made.share:.0%} of the voxels{told}",
    )
