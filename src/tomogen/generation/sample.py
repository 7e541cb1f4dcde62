"""Sampling: a run and a seed to new scans in true Hounsfield units."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tomogen import formats, storage
from tomogen.errors import DataInvalid, UsageFault
from tomogen.formats import Provenance, pictures
from tomogen.generation import codes
from tomogen.generation.knobs import PLAIN, Knobs, Tuned
from tomogen.generation.latent import Code
from tomogen.generation.load import Loaded, load
from tomogen.progress import Progress, silent
from tomogen.run import occupied
from tomogen.volume import Acquisition, Volume, affine_of

GRID = "grid.png"
SHOWN = 64
"""Slices in the grid, at most."""
OURS = re.compile(r"sample-\d{6}(\..*)?|grid\.png")
"""What a sampling writes, and so may replace."""


@dataclass(frozen=True)
class SampleResult:
    """What was made."""

    out: Path
    run: str
    """Identifier of the run."""
    seed: int
    n: int
    shape: tuple[int, int, int]
    """Voxels along (depth, height, width); a slice has depth 1."""
    spacing: tuple[float, float, float]
    """mm along (depth, height, width)."""
    knobs: dict[str, Any]
    """What was set beside the seed, by name."""
    files: tuple[Path, ...]
    """The files, and the folders of DICOM series."""


def sample(
    run: str | Path,
    out: str | Path,
    *,
    n: int = 1,
    seed: int = 0,
    format: str = "nii",
    truncation: float | None = None,
    mix: tuple[int, int] | None = None,
    crossover: int | None = None,
    noise: str | None = None,
    label: str | None = None,
    around: str | Path | None = None,
    alpha: float | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = silent,
) -> SampleResult:
    """Make `n` scans with the model of a run and write each as `sample-000001` and so on, in every format named.

    Sample i is a function of the run, `seed` and i alone, whatever `n` is. HU are whole numbers within the run's
    window, the same in every format; the grid has the spacing of the training cases and its middle at 0 mm.
    A 2D run makes slices, and a picture of the first 64 of them, `grid.png`.

    The other knobs are those of runs of stylegan2, set for all samples. `truncation` draws styles to their mean: 1 is
    as trained, 0 the mean scan, without noise unless `noise` says otherwise. `mix` makes one scan of two samples of
    the seed, by their numbers: the first's styles and noise in the first `crossover` layers, coarse ones, the second's
    in the others. `noise` tells which layers have noise: `all`, `none`, or numbers such as `0,1,2`. `label` names a
    class; without it each sample picks one, and truncation goes to the mean of all classes.

    With `around`, for runs of a VAE, samples are drawn around a scan of any format and size, or around its code as
    `encode` writes it: mean + `alpha` deviations of its posterior (1 if not given), on the scan's grid; 0 gives its
    reconstruction.

    Raises:
        UsageFault: `out` holds something and `overwrite` is not given, or is a file; no format, or one that is
            unknown; no sample; a knob out of its range, or without the other that it needs.
        RecipeMismatch: a run that makes scans of something else than noise, or has no such knob; and as `load` says.
        InputMissing, DependencyMissing: as `load` says; the scan is not there.
        DataInvalid: the scan cannot be used.
    """
    knobs = Knobs(
        truncation=truncation, mix=mix, crossover=crossover, noise=noise, label=label, around=around, alpha=alpha
    )
    out = Path(out)
    if out.resolve() == Path(run).resolve():
        raise UsageFault("the samples and the run are one folder", at=out, fix="another folder for the samples")
    endings = formats.endings(format)
    if n < 1 or not endings:
        raise UsageFault(f"nothing to make: n={n}, format {format!r}", fix="--n 1 --format nii")
    if mix is not None and n > 1:
        raise UsageFault(f"two samples mixed at one crossover are one scan, not {n}", fix="--n 1")
    taken = occupied(out)
    if taken and not (overwrite and out.is_dir()):
        raise UsageFault(
            "the output is there already and not empty",
            at=out,
            fix="--overwrite, or another folder" if out.is_dir() else "name a folder",
        )
    loaded = load(run, device)
    scans, source = _scans(loaded, n, seed, knobs)
    names: list[str] = []
    slices: list[NDArray[np.int16]] = []
    place = out.with_name(f"{out.name}.new") if taken else out
    with storage.whole(place) as staging:
        staging.mkdir()
        for index, volume in enumerate(scans, start=1):
            progress(index - 1, n, f"sample {index}")
            provenance = Provenance(
                model=loaded.run.recipe.model,
                run=loaded.run.identifier,
                seed=seed,
                index=index,
                source=source and f"{source}, seed {seed}, sample {index}",
            )
            for ending in endings.values():
                names.append(f"sample-{index:06d}{ending}")
                formats.write(volume, staging / names[-1], provenance)
            if len(volume.hu) == 1 and len(slices) < SHOWN:
                slices.append(volume.hu[0])
        if slices:
            names.append(GRID)
            shown = pictures.grid(np.stack(slices), loaded.run.window)
            pictures.save([shown], staging / GRID, formats.origin(volume, None))
    if taken:
        _replace(out, place)
    progress(n, n, "written")
    return SampleResult(
        out=out,
        run=loaded.run.identifier,
        seed=seed,
        n=n,
        shape=volume.shape,
        spacing=volume.spacing,
        knobs=knobs.given,
        files=tuple(out / name for name in names),
    )


def volumes(loaded: Loaded, n: int, seed: int, knobs: Knobs = PLAIN) -> Iterator[Volume]:
    """`n` scans in int16 HU, one at a time.

    Made one by one: convolutions round differently in batches of another size, by enough to move a voxel by 1 HU.

    Raises:
        RecipeMismatch, UsageFault: at once, as `Tuned` says.
    """
    tuned = Tuned(loaded, knobs)
    return (placed(loaded, tuned.image(seed, index)) for index in range(1, n + 1))


def volume(loaded: Loaded, seed: int, index: int) -> Volume:
    """Sample `index` (from 1) of a seed in int16 HU, its middle at 0 mm; a slice has depth 1."""
    return placed(loaded, images(loaded, seed, index))


def images(loaded: Loaded, seed: int, index: int) -> torch.Tensor:
    """Image `index` of a seed, `shape`, on -1..1."""
    return Tuned(loaded, PLAIN).image(seed, index)


def placed(loaded: Loaded, image: torch.Tensor) -> Volume:
    """An image on -1..1 as a scan in int16 HU with the spacing of the training cases, its middle at 0 mm."""
    hu = loaded.run.window.to_hu(image).round().to(torch.int16).cpu().numpy()
    return Volume(_deep(hu), centred(_deep(hu).shape, loaded.run.spacing), Acquisition(synthetic=True))


def code_of(loaded: Loaded, scan: str | Path, like: Code | None = None) -> Code:
    """The code of a scan that needs no flags to be read, or the code itself; as `codes.code_of` says.

    Raises:
        RecipeMismatch, InputMissing, DataInvalid: as that says; a fix that is a flag of reading is one of `encode`.
    """
    try:
        return codes.code_of(loaded, scan, like=like)
    except DataInvalid as error:
        if error.fix and error.fix.startswith("--"):
            error.fix = f"give its code instead: tomogen encode RUN SCAN CODE, and there {error.fix}"
        raise


def _scans(loaded: Loaded, n: int, seed: int, knobs: Knobs) -> tuple[Iterator[Volume], str]:
    """`n` scans, and what they are made of beside seed and number, in words; nothing where that is all."""
    drawn = volumes(loaded, n, seed, knobs)
    if knobs.around is None:
        return drawn, knobs.spelled()
    code, alpha = code_of(loaded, knobs.around), 1.0 if knobs.alpha is None else knobs.alpha
    scans = (codes.around(loaded, code, alpha, seed, index) for index in range(1, n + 1))
    return scans, f"{code.source}, alpha {alpha:g}"


def _deep(hu: NDArray[np.int16]) -> NDArray[np.int16]:
    """A slice as a volume of depth 1."""
    return hu if hu.ndim == 3 else hu[None]


def centred(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """The affine of a grid whose middle lies at 0 mm."""
    affine = affine_of(spacing)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


def _replace(out: Path, new: Path) -> None:
    """Move the samples in `new` to `out` in the place of earlier ones; whatever else lies there stays."""
    for old in out.iterdir():
        if OURS.fullmatch(old.name):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    for entry in new.iterdir():
        entry.replace(out / entry.name)
    new.rmdir()
