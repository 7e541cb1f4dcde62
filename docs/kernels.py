"""Sharp kernel to soft on real scans: each patient in turn is left out, the network learns from the others.

    python docs/kernels.py PAIRS OUT          about five minutes on two cores; OUT must be empty or absent
    python docs/kernels.py PAIRS OUT --tiny   the same way in seconds, to see that it works; fills nothing

PAIRS holds `PATIENT/SERIES/ct.nii.gz` for the pairs below. Writes `kernels.json`, the table of `translate.md` and
`images/kernels.png` beside this file.
"""

import json
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from typed import DOCS, asked, filled, typed

from tomogen.evaluation.scores import Scores
from tomogen.evaluation.subjects import INPUT, MADE
from tomogen.formats import read
from tomogen.formats.pictures import views
from tomogen.intensity import Window

START = "<!-- kernels: made by docs/kernels.py -->"
METRICS = ("mae", "mae/lung", "mae/soft", "ssim")
WORDS = {MADE: "translated", INPUT: "the input itself"}
CROP = 0.5, 0.32, 0.24
"""Part of the depth, and of height and width from where the picture's square begins."""
SIDE = 64
"""Voxels of that square."""


class Pair(NamedTuple):
    """A patient's two series, and what tells their kernels apart."""

    patient: str
    sharp: str
    soft: str
    kernels: str


PAIRS = (Pair("A0001", "series2", "series3", "Philips, L to B"), Pair("A0002", "B70f", "B40f", "Siemens, B70f to B40f"))
TINY = "--steps 2 --set model.shape=[5,32,32] --set model.width=4 --set model.detail=4 --set training.batch=1"


def learnt(left: Pair, pairs: str, out: str, flags: str) -> list[str]:
    """What is typed for one patient who is left out."""
    others = " ".join(f"{pairs}/{pair.patient}" for pair in PAIRS if pair != left)
    fold = f"{out}/without-{left.patient}"
    return [
        f"tomogen prepare {others} {fold}/cases --split 1 0 0 --no-body-mask --pairs {fold}/pairs.csv",
        f"tomogen train pix2pix3d_kernel {fold}/cases {fold}/run --seed 0 {flags}".rstrip(),
        f"tomogen translate {fold}/run {out}/input/{left.patient}.nii.gz {out}/made/{left.patient}.nii.gz",
    ]


def judged(out: str) -> str:
    """What is typed to judge."""
    return (
        f"tomogen evaluate pairs {out}/truth {out}/made --input {out}/input --mask body --conventions standard "
        f"--out {out}/report"
    )


def laid_out(pairs: Path, out: Path) -> None:
    """The halves of each pair under one name in folders of their own, and for each patient a table of the others."""
    for part, series in (("input", "sharp"), ("truth", "soft")):
        (out / part).mkdir(parents=True)
        for pair in PAIRS:
            shutil.copy(
                pairs / pair.patient / getattr(pair, series) / "ct.nii.gz", out / part / f"{pair.patient}.nii.gz"
            )
    for left in PAIRS:
        fold = out / f"without-{left.patient}"
        fold.mkdir()
        home = pairs.resolve()
        others = [pair for pair in PAIRS if pair != left]
        rows = [f"{home / p.patient / p.sharp},{home / p.patient / p.soft},{p.patient}" for p in others]
        (fold / "pairs.csv").write_text("\n".join(["source,target,patient", *rows]) + "\n")


def page_of(scores: Scores) -> str:
    """The figures in Markdown."""
    rows = ["| left out | | MAE in the body, HU | in the lung | in soft tissue | SSIM |", "|---|---|--:|--:|--:|--:|"]
    found = {who: [scores.get(who, metric) for metric in METRICS] for who in WORDS}
    for number, pair in enumerate(PAIRS):
        for who, word in WORDS.items():
            cells = [f"{list(score.cases.values())[number]:.4g}" for score in found[who]]
            rows.append(f"| {pair.patient} ({pair.kernels}) | {word} | {' | '.join(cells)} |")
    for who, word in WORDS.items():
        rows.append(f"| mean [95 %] | {word} | {' | '.join(score.figure for score in found[who])} |")
    return "\n".join(rows)


def picture(out: Path, path: Path) -> None:
    """A square of the middle slice of each patient, magnified: input, what was made, truth."""
    rows = []
    for pair in PAIRS:
        planes = []
        for part in ("input", "made", "truth"):
            hu = read(out / part / f"{pair.patient}.nii.gz").reorient().hu
            k, j, i = (int(share * size) for share, size in zip(CROP, hu.shape, strict=True))
            planes.append(hu[k, j : j + SIDE, i : i + SIDE])
        rows.append(views.grid(np.stack(planes), Window(-1000, 400), columns=3, tile=256))
    views.stacked(rows).save(path, optimize=True)


def main(arguments: list[str] | None = None) -> None:
    """Everything, from nothing to the page."""
    given = asked(str(__doc__), arguments, "pairs")
    out, flags = given.out, TINY if given.tiny else ""
    began = time.monotonic()
    laid_out(given.pairs, out)
    for left in PAIRS:
        for command in learnt(left, str(given.pairs), str(out), flags):
            typed(command)
    typed(judged(str(out)))
    scores = Scores.read(out / "report" / "scores.json")
    run = out / f"without-{PAIRS[0].patient}" / "run"
    record = {
        "command": f"python docs/kernels.py PAIRS OUT{' --tiny' if given.tiny else ''}",
        "commands": [*(line for left in PAIRS for line in learnt(left, "PAIRS", "OUT", flags)), judged("OUT")],
        "seed": 0, "seconds": round(time.monotonic() - began),
        "versions": json.loads((run / "environment.json").read_text())["versions"],
        "figures": {who: {metric: scores.get(who, metric).record() for metric in METRICS} for who in WORDS},
    }  # fmt: skip
    home = out if given.tiny else DOCS
    (home / "kernels.json").write_text(json.dumps(record, indent=1) + "\n")
    picture(out, (out if given.tiny else DOCS / "images") / "kernels.png")
    if not given.tiny:
        filled("translate.md", START, page_of(scores))


if __name__ == "__main__":
    main()
