"""Scans and their codes: a run of an autoencoder takes one to the other, around a code, and from one to the next."""

import hashlib
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tomogen import formats
from tomogen.batch import normal, seed_of
from tomogen.cases.resample import resample, resample_whole
from tomogen.cases.steps import TISSUE, body_box, find_body, only, straight, upright
from tomogen.errors import DataInvalid, Reason, RecipeMismatch, UsageFault
from tomogen.formats import DEFAULT, ReadOptions
from tomogen.generation.coder import Autoencoding, Coder
from tomogen.generation.latent import Code, Point, is_code, read
from tomogen.generation.load import Loaded
from tomogen.progress import Progress, silent
from tomogen.volume import Acquisition, Volume

UNLIKE = 0.1
"""Part by which a scan's voxels may differ from those that a run learnt from; others are resampled."""

OUTSIDE = 0.3
"""Share of a scan's tissue that may lie beyond the HU that a run learnt before a warning is due: of a scan that is 1024
off it is the body's share of the field, some 0.4."""

NOTHING = 0.9
"""Share beyond which the scan is refused: hardly anything of it is left."""

FAR = 4.0
"""Times by which a scan's voxels and field may be those of a run, or the run's be its."""


class Shown(NamedTuple):
    """A scan as a run's encoder is shown it."""

    volume: Volume
    """Int16 HU from the floor up, axes along `SPL`; not yet clipped to the run's window."""
    resampled: bool
    """Whether its voxels are not its own, but the run's."""
    middle: Point | None = None
    """LPS mm of the middle of the body, where the run learnt from bodies alone; None for the middle of the grid."""


def encodes(loaded: Loaded) -> bool:
    """Whether a run's model is an autoencoder: only such have codes of scans."""
    return isinstance(loaded.synthesizer, Autoencoding)


def code_of(
    loaded: Loaded,
    path: str | Path,
    options: ReadOptions = DEFAULT,
    *,
    like: Code | None = None,
    progress: Progress = silent,
) -> Code:
    """The code at `path`: of a scan in any format, or one that `encode` has written.

    A scan is put on the grid of `like` where that is given, body upon body, so that the two can be mixed.

    Raises:
        InputMissing: there is nothing at `path`.
        DataInvalid: it is no CT in HU, holds no body where the run learnt from bodies alone, has a size or values far
            from the run's, or is a damaged code.
        RecipeMismatch: the run's model has no codes, or the code is another run's.
    """
    coder, path = Coder(loaded), Path(path)
    if is_code(path):
        code = read(path)
        fits(coder, code, path)
        return code
    volume = formats.read(path, options)
    try:
        return coded(loaded, shown(loaded, volume, like), progress)
    except DataInvalid as error:
        error.at = error.at or str(path)
        raise


def shown(loaded: Loaded, volume: Volume, like: Code | None = None) -> Shown:
    """A scan as the encoder saw scans in training: upright, without what is not the body, on voxels like the run's.

    A run that learnt with a body mask sees the HU floor around the body; the field stays. Voxels that differ from the
    run's by more than a tenth are resampled onto the run's spacing, with a warning; a network of slices looks at
    rows and columns alone. Values beyond the run's window are clipped by the encoder; where that is most of the
    tissue, it is warned of.

    Raises:
        DataInvalid: no body; nearly no tissue within the run's window; a field that the run never saw.
    """
    scan = straight(upright(volume))
    _compare_sizes(loaded, scan)
    middle = scan.centre
    if loaded.run.data.get("body_mask", True):  # runs of earlier versions do not say it, and had one
        body = find_body(scan)
        scan, middle = only(scan, body), scan.world(body_box(body).middle)
    _compare_values(loaded, scan, volume)
    spacing = _spacing(loaded, scan)
    if like is not None:
        ahead = np.linalg.inv(like.affine[:3, :3]) @ (np.array(like.middle) - like.affine[:3, 3])
        first = scan.index(middle) - ahead * np.divide(like.spacing, scan.spacing)
        scan = resample(scan, like.spacing, like.shape, first.tolist())
    elif spacing is not None:
        scan = resample_whole(scan, spacing)
    return Shown(scan, spacing is not None, _point(middle))


def coded(loaded: Loaded, scan: Shown, progress: Progress = silent) -> Code:
    """The code of a scan as the encoder is shown it."""
    volume, run = scan.volume, loaded.run
    return Code(
        posterior=Coder(loaded).encode(volume.hu, progress),
        shape=volume.shape,
        affine=volume.affine,
        middle=scan.middle or _point(volume.centre),
        window=run.window,
        run=run.identifier,
        recipe=run.name,
        source=_digest(volume),
    )


def decoded(loaded: Loaded, code: Code, progress: Progress = silent) -> Volume:
    """The scan that a code's mean stands for, in int16 HU on the grid of the scan that was coded."""
    return _scan(loaded, code, code.posterior.mean, progress)


def around(loaded: Loaded, code: Code, alpha: float, seed: int, index: int, progress: Progress = silent) -> Volume:
    """Scan `index` (from 1) of a seed around a code, mean + alpha * deviation * noise, in int16 HU on its grid.

    With `alpha` 0 it is the reconstruction, with 1 a draw of the posterior.

    Raises:
        UsageFault: `alpha` is below 0 or not finite.
        RecipeMismatch: the code is another run's, or the run makes no numbers of it.
    """
    if not 0 <= alpha < math.inf:
        raise UsageFault(f"alpha of {alpha:g}; 0 is the reconstruction, 1 a draw", fix="--alpha 0.5")
    posterior = code.posterior
    noise = normal([seed_of("around", seed, index)], "code", posterior.mean.shape[1:])
    return _scan(loaded, code, posterior.at(noise, alpha), progress)


def between(loaded: Loaded, first: Code, second: Code, share: float, progress: Progress = silent) -> Volume:
    """The scan of the code at `share` (0..1) of the way from the mean of one code to that of another.

    It lies where the first lies; the ends are the two reconstructions.

    Raises:
        UsageFault: `share` is out of range.
        DataInvalid: the codes are not of one grid.
        RecipeMismatch: a code is another run's.
    """
    if not 0 <= share <= 1:
        raise UsageFault(f"a share of {share:g} of the way; 0 is the first scan, 1 the second")
    if first.shape != second.shape or not np.allclose(first.spacing, second.spacing, rtol=UNLIKE):
        one, other = (
            f"{' x '.join(map(str, code.shape))} voxels of {' x '.join(f'{mm:.3g}' for mm in code.spacing)} mm"
            for code in (first, second)
        )
        raise DataInvalid(
            f"codes of unlike grids: {one}, and {other}",
            reason=Reason.MIXED,
            fix="give the second as a scan: it is put on the first one's grid",
        )
    fits(Coder(loaded), second)
    start, end = first.posterior.mean, second.posterior.mean
    return _scan(loaded, first, start if share == 0 else end if share == 1 else start.lerp(end, share), progress)


def fits(coder: Coder, code: Code, path: Path | None = None) -> None:
    """Whether a run's decoder knows what a code means.

    Raises:
        RecipeMismatch: another run made it.
        DataInvalid: its numbers are not as many as its grid has.
    """
    run = coder.loaded.run
    if code.run != run.identifier:
        raise RecipeMismatch(
            f"the code is of run {code.run} ({code.recipe}), not of this one, {run.identifier} ({run.name})",
            at=path,
            fix="the run that made it, or encode the scan anew: the code changes with each training step",
        )
    wanted = (coder.model.code[0], *coder.grid(code.shape))
    if code.grid != wanted:
        shape = " x ".join(map(str, code.shape))
        raise DataInvalid(
            f"a code of {code.grid} (channels, depth, height, width); a scan of {shape} voxels has one of {wanted}",
            reason=Reason.CORRUPT,
            at=path,
            fix="encode the scan anew",
        )


def _scan(loaded: Loaded, code: Code, latent: Tensor, progress: Progress) -> Volume:
    coder = Coder(loaded)
    fits(coder, code)
    return Volume(coder.decode(latent, code.shape, progress), code.affine, Acquisition(synthetic=True))


def _spacing(loaded: Loaded, scan: Volume) -> tuple[float, float, float] | None:
    """The voxels that a scan is to have; None if it may keep its own."""
    depth, height, width = loaded.run.spacing
    if len(loaded.synthesizer.shape) == 2:
        depth = scan.spacing[0]
    wanted = (depth, height, width)
    if (abs(np.log(np.divide(scan.spacing, wanted))) <= np.log1p(UNLIKE)).all():
        return None
    theirs, ours = (" x ".join(f"{mm:.3g}" for mm in one) for one in (scan.spacing, wanted))
    warnings.warn(
        f"the scan's voxels are {theirs} mm (depth, height, width), the run learnt from {ours} mm: "
        "it is resampled, and coded, on those",
        stacklevel=4,
    )
    return wanted


def _compare_sizes(loaded: Loaded, scan: Volume) -> None:
    """Refuse a scan of a size that the run never saw: most often the file's spacing is wrong.

    Too small: a field below a quarter of the trained one; along the depth, where a few slices may be a scan, only with
    voxels below a quarter of the run's too. Too large: field and voxels both above four times. A larger field of
    voxels like the run's, or finer, is a scan as others, and is coded in tiles. A network of slices is asked about
    rows and columns alone.
    """
    trained = np.array(loaded.synthesizer.shape)
    first = 3 - len(trained)
    voxels, usual = np.array(scan.spacing)[first:], np.array(loaded.run.spacing)[first:]
    field, learnt = voxels * scan.shape[first:], usual * trained
    fine = voxels * FAR < usual
    fine[-2:] = True
    small, large = (field * FAR < learnt) & fine, (field > learnt * FAR) & (voxels > usual * FAR)
    if not (small | large).any():
        return
    theirs, whole, ours, known = (" x ".join(f"{mm:.4g}" for mm in one) for one in (voxels, field, usual, learnt))
    axes = "(height, width)" if first else "(depth, height, width)"
    size = "small" if small.any() else "large"
    raise DataInvalid(
        f"the scan has a field of {whole} mm {axes} in voxels of {theirs} mm, too {size} "
        f"for a run that learnt from {known} mm in voxels of {ours} mm: a quarter to {FAR:g} times that works",
        reason=Reason.BAD_GEOMETRY,
        fix="put the spacing right in the file (--spacing is for files that tell none), or another run",
    )


def _compare_values(loaded: Loaded, scan: Volume, file: Volume) -> None:
    """Warn of tissue beyond what the run learnt, and refuse where it is nearly all; air below is as in training."""
    window = loaded.run.window
    tissue = beyond = 0
    for plane in scan.hu:
        tissue += int((plane > TISSUE).sum())
        beyond += int(((plane > TISSUE) & ((plane < window.low) | (plane > window.high))).sum())
    if beyond > NOTHING * tissue:
        raise DataInvalid(
            f"{beyond / tissue:.0%} of the tissue lies beyond the {window.low:g} to {window.high:g} HU that the run "
            f"learnt; the scan's values go from {file.hu.min():g} to {file.hu.max():g}",
            reason=Reason.HU_RANGE,
            fix="a scan in HU, or a run with a window for such values",
        )
    if beyond > OUTSIDE * tissue:
        warnings.warn(
            f"{beyond / tissue:.0%} of the tissue lies beyond the {window.low:g} to {window.high:g} HU that the run "
            "learnt and is clipped: are the scan's values HU?",
            stacklevel=4,
        )


def _point(place: NDArray[np.float64]) -> Point:
    x, y, z = (float(mm) for mm in place)
    return x, y, z


def _digest(volume: Volume) -> str:
    digest = hashlib.sha256(volume.affine.tobytes())
    for plane in volume.hu:
        digest.update(plane.tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"
