"""The whole way in one call: phantoms to DICOM and NIfTI, cases, a trained 3D WGAN, new scans, scores, a report."""

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
SCAN = (48, 96, 96)
"""Voxels of a phantom along (depth, height, width); finer ones would take most of the demo's time."""
HELD_OUT = 16
"""Phantoms that are not trained on: the samples are scored against them."""
KID = "kid/volume"
"""The score that the demo tells."""
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
    kid: float
    """Kernel distance of samples to phantoms that were not trained on, by features of whole volumes; 0 is the best."""
    kid_untrained: float
    """The same of the model before training."""
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
    """Make phantoms, prepare them, train `wgan3d_tiny` on `n` of them for `steps` (by default the recipe's), sample.

    What it makes is scored against 16 more that are held out, and a report is written. Half of the phantoms are
    DICOM, half NIfTI, as a user's folder might be. Nothing is downloaded.

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

    count = n + HELD_OUT
    half = count // 2
    stage = _stage(progress, "1/6 phantoms (next: prepare)")
    phantom(scans / "dicom", n=half, shape=SCAN, seed=2 * seed, format="dicom", workers=2, progress=stage)
    phantom(
        scans / "nifti",
        n=count - half,
        shape=SCAN,
        seed=2 * seed + 1,
        format="nii",
        workers=2,
        progress=stage,
    )

    from tomogen.cases.prepare import prepare

    stage = _stage(progress, "2/6 prepare (next: train)")
    prepare([scans], cases, shape=(SIDE,) * 3, split=_split(n), seed=seed, workers=2, progress=stage)

    from tomogen.training.launch import train

    stage = _stage(progress, f"3/6 train {RECIPE} (next: sample)")
    train(RECIPE, cases, run, seed=seed, steps=steps, threads=threads, progress=stage)

    from tomogen.generation.sample import sample

    stage = _stage(progress, "4/6 sample (next: evaluate)")
    sample(run, samples, n=4, seed=seed, format="dicom,nii,gif,png", progress=stage)

    from tomogen import evaluate
    from tomogen.evaluation.subjects import MADE, UNTRAINED

    stage = _stage(progress, "5/6 evaluate (next: report)")
    scores = evaluate.run(run, cases, n=HELD_OUT, seed=seed, progress=stage).scores

    from tomogen.reporting.page import report

    stage = _stage(progress, "6/6 report")
    page = report(run, out / "report", data=cases, samples=samples, commands=commands, progress=stage)
    return DemoResult(
        out=out, scans=scans, cases=cases, run=run, samples=samples, report=page,
        kid=scores.get(MADE, KID).value,
        kid_untrained=scores.get(UNTRAINED, KID).value,
        seconds=round(time.monotonic() - start, 1),
        commands=tuple(commands),
    )  # fmt: skip


def _split(n: int) -> tuple[float, float, float]:
    """`n` patients to train on and the rest to test with."""
    share = n / (n + HELD_OUT)
    return share, 0.0, 1 - share


def _commands(out: Path, seed: int, n: int, steps: int | None) -> list[str]:
    count = n + HELD_OUT
    half = count // 2
    train, _, test = _split(n)
    more = "" if steps is None else f" --steps {steps}"
    shape = " ".join(map(str, SCAN))
    return [
        f"tomogen phantom {out}/scans/dicom --n {half} --shape {shape} --seed {2 * seed} --format dicom",
        f"tomogen phantom {out}/scans/nifti --n {count - half} --shape {shape} --seed {2 * seed + 1} --format nii",
        f"tomogen prepare {out}/scans {out}/cases --shape {SIDE} {SIDE} {SIDE} --split {train:.6g} 0 {test:.6g}"
        f" --seed {seed}",
        f"tomogen train {RECIPE} {out}/cases {out}/run --seed {seed}{more}",
        f"tomogen sample {out}/run {out}/samples --n 4 --seed {seed} --format dicom,nii,gif,png",
        f"tomogen evaluate run {out}/run {out}/cases --n {HELD_OUT} --seed {seed}",
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
