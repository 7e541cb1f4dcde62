"""Sampling: a run and a seed to new scans in true Hounsfield units."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tomogen import formats, storage
from tomogen.batch import normal, seed_of
from tomogen.errors import RecipeMismatch, UsageFault
from tomogen.formats import Provenance, pictures
from tomogen.generation.load import Loaded, load
from tomogen.progress import Progress, silent
from tomogen.run import occupied
from tomogen.volume import Acquisition, Volume, affine_of

GRID = "grid.png"
SHOWN = 64
"""Slices in the grid, at most."""
OURS = re.compile(r"sample-\d{6}(\..*)?|grid\.png")
"""What a sampling writes, and so may replace."""

_VERBS = {
    "xrays": "tomogen reconstruct RUN OUT --frontal PICTURE --lateral PICTURE",
    "source": "tomogen translate RUN SCAN OUT",
    "drr": "tomogen reconstruct RUN OUT --style THIS_RUN",
}
"""What a run is for that starts from a condition."""


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
    files: tuple[Path, ...]
    """The files, and the folders of DICOM series."""


def sample(
    run: str | Path,
    out: str | Path,
    *,
    n: int = 1,
    seed: int = 0,
    format: str = "nii",
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = silent,
) -> SampleResult:
    """Make `n` scans with the model of a run and write each as `sample-000001` and so on, in every format named.

    Sample i is a function of the run, `seed` and i alone, whatever `n` is. HU are whole numbers within the run's
    window, the same in every format; the grid has the spacing of the training cases and its middle at 0 mm.
    A 2D run makes slices, and a picture of the first 64 of them, `grid.png`.

    Raises:
        UsageFault: `out` holds something and `overwrite` is not given, or is a file; no format, or one that is
            unknown; no sample.
        RecipeMismatch: a run that makes scans of something else than noise; and as `load` says.
        InputMissing, DependencyMissing: as `load` says.
    """
    out = Path(out)
    if out.resolve() == Path(run).resolve():
        raise UsageFault("the samples and the run are one folder", at=out, fix="another folder for the samples")
    endings = formats.endings(format)
    if n < 1 or not endings:
        raise UsageFault(f"nothing to make: n={n}, format {format!r}", fix="--n 1 --format nii")
    taken = occupied(out)
    if taken and not (overwrite and out.is_dir()):
        raise UsageFault(
            "the output is there already and not empty",
            at=out,
            fix="--overwrite, or another folder" if out.is_dir() else "name a folder",
        )
    loaded = load(run, device)
    if loaded.synthesizer.conditions:
        raise RecipeMismatch(
            f"the run makes scans of {', '.join(loaded.synthesizer.conditions)}, not of noise",
            at=run,
            fix=_VERBS.get(loaded.synthesizer.conditions[0]),
        )
    names: list[str] = []
    slices: list[NDArray[np.int16]] = []
    place = out.with_name(f"{out.name}.new") if taken else out
    with storage.whole(place) as staging:
        staging.mkdir()
        for index, volume in enumerate(volumes(loaded, n, seed), start=1):
            progress(index - 1, n, f"sample {index}")
            provenance = Provenance(model=loaded.run.recipe.model, run=loaded.run.identifier, seed=seed, index=index)
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
        spacing=loaded.run.spacing,
        files=tuple(out / name for name in names),
    )


def volumes(loaded: Loaded, n: int, seed: int) -> Iterator[Volume]:
    """`n` scans in int16 HU, one at a time.

    Made one by one: convolutions round differently in batches of another size, by enough to move a voxel by 1 HU.
    """
    return (volume(loaded, seed, index) for index in range(1, n + 1))


def volume(loaded: Loaded, seed: int, index: int) -> Volume:
    """Sample `index` (from 1) of a seed in int16 HU, its middle at 0 mm; a slice has depth 1."""
    hu = loaded.run.window.to_hu(images(loaded, seed, index)).round().to(torch.int16).cpu().numpy()
    return Volume(_deep(hu), centred(_deep(hu).shape, loaded.run.spacing), Acquisition(synthetic=True))


def images(loaded: Loaded, seed: int, index: int) -> torch.Tensor:
    """Image `index` of a seed, `shape`, on -1..1."""
    synthesizer = loaded.synthesizer
    noise = normal([seed_of("sample", seed, index)], "noise", synthesizer.noise_shape(1)[1:])
    with torch.inference_mode():
        return synthesizer.generate(noise.to(loaded.device), {})[0, 0].float()


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
