"""The verb `encode`: a scan to the code that an autoencoder has for it, and a code back to its scan."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomogen import formats
from tomogen.errors import DataInvalid, InputMissing, UsageFault
from tomogen.formats import DEFAULT, Provenance, ReadOptions
from tomogen.generation.coder import Coder
from tomogen.generation.codes import coded, decoded, fits, shown
from tomogen.generation.latent import SUFFIX, Code, is_code, read, write
from tomogen.generation.load import Loaded, load
from tomogen.intensity import Window
from tomogen.layers.activity import ACTIVE
from tomogen.losses.latent import divergence
from tomogen.progress import Progress, silent
from tomogen.storage import free, replacing


@dataclass(frozen=True)
class EncodeResult:
    """What was made: a code of a scan, or the scan of a code. What only a scan tells is None of the way back."""

    out: Path
    run: str
    """Identifier of the run."""
    shape: tuple[int, int, int]
    """Voxels of the scan along (depth, height, width), as it was coded."""
    spacing: tuple[float, float, float]
    """mm along (depth, height, width)."""
    code: tuple[int, ...]
    """Numbers of the code along its channels, depth, height and width."""
    kl: tuple[float, ...]
    """KL from the standard normal in nats of each channel."""
    active: int
    """Channels whose means vary over the grid with a variance above 0.01."""
    resampled: bool | None = None
    """Whether the scan was put on the run's spacing."""
    mae: float | None = None
    """Mean absolute error of the reconstruction in HU, over all voxels, against the scan as the encoder saw it."""
    psnr: float | None = None
    """Its peak signal-to-noise ratio in dB; None of an exact one."""
    psnr_peak: float | None = None
    """The peak of that ratio in HU: the width of the run's window, where `evaluate` has the peak of its definition."""


def encode(
    run: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    options: ReadOptions = DEFAULT,
    progress: Progress = silent,
) -> EncodeResult:
    """Write the code of the scan `source` as `out`, a safetensors file, with a run of an autoencoder; or the way back.

    Where `source` is such a code, `out` is the scan that it stands for, in the format that its ending names (none: a
    folder of DICOM slices), on the grid of the scan that was coded.

    A scan may have any size. It is put upright, loses what is not the body if the run learnt so, is resampled where
    its voxels are unlike the run's (with a warning), and clipped to the run's window. A code names no patient and no
    file, but stands for the patient's scan: it is to be kept like one.

    Raises:
        InputMissing: no run, no weights, or no source.
        RecipeMismatch: the run is of another kind, its weights do not fit, or the code is another run's.
        DataInvalid: the source is no CT in HU, holds no body, has a size or values far from the run's, or is a damaged
            code.
        UsageFault: an output is there and `overwrite` is not given; a code's name is that of a scan, or of a folder.
        DependencyMissing: a codec or the device is not there.
    """
    source, out = Path(source), Path(out)
    if not source.exists():
        raise InputMissing(f"no such scan or code{formats.near(source)}", at=source)
    given = read(source) if is_code(source) else None
    if given is None:
        formats.format_of(source)
    _writable(out, given is not None, overwrite, source)
    loaded = load(run, device)
    coder = Coder(loaded)
    if given is not None:
        fits(coder, given, source)
        return _back(loaded, given, out, progress)
    volume = formats.read(source, options)
    try:
        scan = shown(loaded, volume)
    except DataInvalid as error:
        error.at = error.at or str(source)
        raise
    del volume
    code = coded(loaded, scan, _titled(progress, "encoding"))
    again = decoded(loaded, code, _titled(progress, "decoding")).hu
    mae, psnr = _errors(scan.volume.hu, again, loaded.run.window)
    write(code, out)
    told = _told(code, out)
    return replace(told, resampled=scan.resampled, mae=mae, psnr=psnr, psnr_peak=loaded.run.window.width)


def _back(loaded: Loaded, code: Code, out: Path, progress: Progress) -> EncodeResult:
    volume = decoded(loaded, code, progress)
    provenance = Provenance(
        model=loaded.run.recipe.model,
        run=loaded.run.identifier,
        seed=0,
        index=1,
        source=code.source,
        description="reconstructed from its code",
    )
    with replacing(out):
        formats.write(volume, out, provenance)
    return _told(code, out)


def _told(code: Code, out: Path) -> EncodeResult:
    mean = code.posterior.mean[0].flatten(1)
    kl: list[float] = divergence(*code.posterior)[0].flatten(1).double().sum(1).tolist()
    return EncodeResult(
        out=out,
        run=code.run,
        shape=code.shape,
        spacing=code.spacing,
        code=code.grid,
        kl=tuple(kl),
        active=int((mean.var(1, correction=0) > ACTIVE).sum()),
    )


def _writable(out: Path, back: bool, overwrite: bool, source: Path) -> None:
    """Raise before the work where `out` could not be written after it."""
    if back:
        if out.name.endswith(SUFFIX):
            raise UsageFault("a code goes back to a scan", at=out, fix="a name such as scan.nii.gz")
        formats.writes(out)
    elif out.is_dir():
        raise UsageFault("a code is one file, and this is a folder", at=out, fix=f"{out / 'scan'}{SUFFIX}")
    elif out.name.lower().endswith(formats.suffixes()):
        raise UsageFault(
            "a scan becomes a code, which is no scan's file",
            at=out,
            fix=f"{formats.stem(out)}{SUFFIX}, and from that tomogen encode RUN {formats.stem(out)}{SUFFIX} {out.name}",
        )
    free(out, overwrite, source)


def _errors(truth: NDArray[np.int16 | np.float32], made: NDArray[np.int16 | np.float32], window: Window) -> tuple[
    float, float | None
]:  # fmt: skip
    """Mean absolute error in HU and PSNR in dB, slice by slice."""
    absolute = square = 0.0
    for real, other in zip(truth, made, strict=True):
        difference = other - real.astype(np.float64).clip(window.low, window.high)
        absolute += float(np.abs(difference).sum())
        square += float((difference**2).sum())
    psnr = 10 * math.log10(window.width**2 * truth.size / square) if square else None
    return absolute / truth.size, psnr


def _titled(progress: Progress, what: str) -> Progress:
    return lambda done, total, tiles: progress(done, total, f"{tiles}, {what}")
