"""The whole way in one call: phantoms to DICOM and NIfTI, cases, a trained 3D WGAN, new scans, a report."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tomogen.errors import UsageFault
from tomogen.progress import Progress, silent

RECIPE = "wgan3d_tiny"
SIDE = 32
"""Voxels per side of the recipe's volumes."""
PARTS = ("scans", "cases", "run", "samples", "report", "demo.log")
"""What the demo writes, and so may replace."""
MARK = "demo.log"
"""The commands that were run; a folder that holds it was made by the demo."""


@dataclass(frozen=True)
class DemoResult:
    """Where everything is."""

    out: Path
    scans: Path
    cases: Path
    run: Path
    samples: Path
    report: Path
    seconds: float
    commands: tuple[str, ...]
    """The same way, typed verb by verb."""


def demo(
    out: str | Path = "demo",
    *,
    seed: int = 0,
    n: int = 32,
    steps: int | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> DemoResult:
    """Make `n` phantoms, prepare them, train `wgan3d_tiny` for `steps` (by default the recipe's), sample, report.

    Half of the phantoms are written as DICOM, half as NIfTI, as a user's folder might be. Nothing is downloaded.

    Raises:
        UsageFault: `out` is not empty; with `overwrite`, it holds something that the demo did not make.
    """
    out = Path(out)
    _clear(out, overwrite)
    out.mkdir(parents=True, exist_ok=True)
    commands = _commands(out, seed, n, steps)
    (out / MARK).write_text("".join(f"$ {command}\n" for command in commands), encoding="utf-8")
    start = time.monotonic()
    scans, cases, run, samples = (out / name for name in PARTS[:4])

    from tomogen.phantoms.cohort import phantom

    half = n // 2
    stage = _stage(progress, "1/5 phantoms (next: prepare)")
    phantom(scans / "dicom", n=half, shape=(64, 128, 128), seed=2 * seed, format="dicom", workers=2, progress=stage)
    phantom(
        scans / "nifti", n=n - half, shape=(64, 128, 128), seed=2 * seed + 1, format="nii", workers=2, progress=stage
    )

    from tomogen.cases.prepare import prepare

    stage = _stage(progress, "2/5 prepare (next: train)")
    prepare([scans], cases, shape=(SIDE,) * 3, split=(1.0, 0.0, 0.0), seed=seed, workers=2, progress=stage)

    from tomogen.training.launch import train

    stage = _stage(progress, f"3/5 train {RECIPE} (next: sample)")
    train(RECIPE, cases, run, seed=seed, steps=steps, threads=threads, progress=stage)

    from tomogen.generation.sample import sample

    stage = _stage(progress, "4/5 sample (next: report)")
    sample(run, samples, n=4, seed=seed, format="dicom,nii,gif,png", progress=stage)

    from tomogen.reporting.page import report

    stage = _stage(progress, "5/5 report")
    page = report(run, out / "report", data=cases, samples=samples, commands=commands, progress=stage)
    return DemoResult(out, scans, cases, run, samples, page, round(time.monotonic() - start, 1), tuple(commands))


def _commands(out: Path, seed: int, n: int, steps: int | None) -> list[str]:
    half = n // 2
    more = "" if steps is None else f" --steps {steps}"
    return [
        f"tomogen phantom {out}/scans/dicom --n {half} --shape 64 128 128 --seed {2 * seed} --format dicom",
        f"tomogen phantom {out}/scans/nifti --n {n - half} --shape 64 128 128 --seed {2 * seed + 1} --format nii",
        f"tomogen prepare {out}/scans {out}/cases --shape {SIDE} {SIDE} {SIDE} --split 1 0 0 --seed {seed}",
        f"tomogen train {RECIPE} {out}/cases {out}/run --seed {seed}{more}",
        f"tomogen sample {out}/run {out}/samples --n 4 --seed {seed} --format dicom,nii,gif,png",
    ]


def _stage(progress: Progress, title: str) -> Callable[[int, int | None, str], None]:
    """The bar of one part of the way: its name stands before what happens in it."""
    return lambda done, total, what: progress(done, total, f"{title}: {what}")


def _clear(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise UsageFault("the output folder is not empty", at=out, fix="--overwrite, or another folder")
    if not (out / MARK).is_file():
        raise UsageFault("--overwrite replaces only what the demo made, and this folder is something else", at=out)
    for name in PARTS:
        entry = out / name
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
