"""Many phantoms as files: the cohort that demonstrations, tests and benchmarks feed on."""

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from tomogen import formats
from tomogen._version import __version__
from tomogen.errors import OutOfSpace, UsageFault
from tomogen.phantoms.render import chest, vessels
from tomogen.phantoms.tissue import PHASES
from tomogen.progress import Progress, silent

LABEL = "vessels.nii.gz"
"""Name of the label beside a pair's scans."""

_CASE = re.compile(r"phantom-\d{4,}(\..+)?")


@dataclass(frozen=True)
class PhantomCase:
    """One phantom: its name, the seed that `chest` makes it again from, and its files."""

    case: str
    seed: int
    paths: tuple[Path, ...]
    """Every scan written, files or DICOM folders; of a pair, first those of CT1 (plain), then of CT2 (contrast)."""
    vessels: Path | None = None
    """Of a pair, the label of the blood that contrast enhances."""


@dataclass(frozen=True)
class PhantomCohort:
    """What `phantom` wrote."""

    out: Path
    cases: tuple[PhantomCase, ...]


@dataclass(frozen=True)
class _Order:
    """What every phantom of a cohort has in common; travels to the workers."""

    out: Path
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    seed: int
    pairs: bool
    contrast: str | None
    noise: float
    table: bool
    endings: tuple[str, ...]

    @property
    def run(self) -> str:
        """Identifier of these settings: the same settings, seed and index give the same UIDs."""
        settings = (__version__, self.shape, self.spacing, self.pairs, self.contrast, self.noise, self.table)
        return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def phantom(
    out: str | Path,
    *,
    n: int = 8,
    shape: Sequence[int] = (128, 256, 256),
    spacing: Sequence[float] | None = None,
    seed: int = 0,
    pairs: bool = False,
    contrast: str | None = None,
    noise: float = 10.0,
    table: bool = False,
    format: str = "dicom",
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress = silent,
) -> PhantomCohort:
    """Write `n` chests of nobody as `out/phantom-0001...`; different phantoms are different patients.

    `shape` is voxels and `spacing` mm along (depth, height, width); without a spacing the thorax fills the grid.
    `pairs` writes each phantom twice on one grid, as `phantom-0001/CT1` (plain) and `CT2` (with contrast), and
    beside them `vessels.nii.gz`, a label of vessels and heart chambers.
    `contrast` is the phase, `arterial` or `venous` (of a pair's CT2: arterial unless named). `noise` is its
    standard deviation in HU; `table` puts the scanner's table below. `format` lists formats, such as `dicom,nii`.

    Raises:
        UsageFault: `out` is occupied and `overwrite` not given, or an argument is out of its range.
        OutOfSpace: the disk cannot hold the scans, or a worker ran out of memory.
    """
    out = Path(out)
    depth, height, width = shape
    endings = tuple(formats.endings(format).values())
    if not endings:
        raise UsageFault("no format is named", fix="--format dicom,nii")
    _check(n=n, shape=shape, spacing=spacing, seed=seed, contrast=contrast, noise=noise, workers=workers)
    order = _Order(
        out=out,
        shape=(depth, height, width),
        spacing=None if spacing is None else (spacing[0], spacing[1], spacing[2]),
        seed=seed,
        pairs=pairs,
        contrast=contrast or ("arterial" if pairs else None),
        noise=noise,
        table=table,
        endings=endings,
    )
    _clear(out, overwrite)
    _room_for(order, n)
    cases: dict[int, PhantomCase] = {}
    progress(0, n, "phantoms")
    for index, case in _made(order, n, workers):
        cases[index] = case
        progress(len(cases), n, case.case)
    return PhantomCohort(out, tuple(cases[index] for index in range(n)))


def case_seed(seed: int, index: int) -> int:
    """The seed of phantom `index` of the cohort `seed`: cohorts of neighbouring seeds share no phantom."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> np.uint64(11))


def _check(
    *,
    n: int,
    shape: Sequence[int],
    spacing: Sequence[float] | None,
    seed: int,
    contrast: str | None,
    noise: float,
    workers: int,
) -> None:
    def refuse(flag: str, found: object, expected: str) -> None:
        raise UsageFault(f"--{flag} {found}: expected {expected}")

    if n < 1:
        refuse("n", n, "at least 1")
    if min(shape) < 8:
        refuse("shape", " ".join(map(str, shape)), "at least 8 voxels along each axis")
    low, high = formats.SPACING
    if spacing is not None and not all(low <= step <= high for step in spacing):
        refuse("spacing", " ".join(map(str, spacing)), f"mm between {low} and {high:g}")
    if seed < 0:
        refuse("seed", seed, "0 or more")
    if contrast is not None and contrast not in PHASES:
        refuse("contrast", contrast, f"one of {', '.join(PHASES)}")
    if not (np.isfinite(noise) and noise >= 0):
        refuse("noise", noise, "HU of 0 or more")
    if workers < 1:
        refuse("workers", workers, "at least 1")


def _clear(out: Path, overwrite: bool) -> None:
    """Make `out` a folder without phantoms of before; whatever else lies there stays."""
    if out.exists() and not out.is_dir():
        raise UsageFault("the output is to be a folder, and a file of that name is there", at=out)
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise UsageFault("the output folder is not empty", at=out, fix="--overwrite, or another folder")
        for entry in out.iterdir():
            if _CASE.fullmatch(entry.name):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    out.mkdir(parents=True, exist_ok=True)


def _room_for(order: _Order, n: int) -> None:
    """See that the disk holds the cohort: two bytes a voxel in DICOM, about half of that in compressed files."""
    share = sum(1.0 if not ending else 0.5 for ending in order.endings)
    needed = int(n * (1 + order.pairs) * 2 * np.prod(order.shape, dtype=np.float64) * share)
    free = shutil.disk_usage(order.out).free
    if needed > free:
        raise OutOfSpace(
            f"{n} phantoms need about {_size(needed)}, {_size(free)} are free",
            at=order.out,
            fix="fewer phantoms (--n), a smaller --shape, or another disk",
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _made(order: _Order, n: int, workers: int) -> Iterator[tuple[int, PhantomCase]]:
    """Each phantom's index and files, in order of completion."""
    if workers == 1 or n == 1:
        for index in range(n):
            yield index, _write(order, index)
        return
    # spawn: forking a process that runs threads (torch, BLAS) may deadlock
    with ProcessPoolExecutor(min(workers, n), mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(_write, order, index): index for index in range(n)}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BrokenProcessPool as error:
            raise OutOfSpace(
                "a worker was killed, as systems do when memory runs out", at=order.out, fix="fewer --workers"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write(order: _Order, index: int) -> PhantomCase:
    """Draw and write phantom `index`."""
    case, seed = f"phantom-{index + 1:04d}", case_seed(order.seed, index)
    halves = [("CT1", None), ("CT2", order.contrast)] if order.pairs else [("", order.contrast)]
    paths: list[Path] = []
    for scan, (half, contrast) in enumerate(halves, 1):
        volume = chest(seed, order.shape, order.spacing, contrast=contrast, noise=order.noise, table=order.table)
        provenance = formats.Provenance(
            model="phantom",
            run=order.run,
            seed=order.seed,
            index=index,
            scan=scan,
            description=f"chest phantom, {contrast or 'no'} contrast",
        )
        for ending in order.endings:
            path = order.out / case / f"{half}{ending}" if half else order.out / f"{case}{ending}"
            path.parent.mkdir(exist_ok=True)
            paths.append(formats.write(volume, path, provenance))
    label = _label(order, case, seed, index) if order.pairs else None
    return PhantomCase(case, seed, tuple(paths), label)


def _label(order: _Order, case: str, seed: int, index: int) -> Path:
    """Write which voxels of a pair are blood."""
    phase = order.contrast or "arterial"
    text = formats.Provenance(model="phantom", run=order.run, seed=order.seed, index=index, description="vessels")
    return formats.write(vessels(seed, order.shape, order.spacing, contrast=phase), order.out / case / LABEL, text)
