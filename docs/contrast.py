"""Contrast out of none: pix2pix3d learns what phantoms look like with contrast, and is held to patients it never saw.

    python docs/contrast.py OUT          at most half an hour on two cores; started again it goes on
    python docs/contrast.py OUT --tiny   the same way in seconds, to see that it works; fills nothing

Writes `contrast.json`, the table of `translate.md` and `images/contrast.png` beside this file.
"""

import json
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from typed import DOCS, all_typed, asked, filled, typed

from tomogen.evaluation.scores import Scores
from tomogen.evaluation.subjects import INPUT, MADE
from tomogen.formats import read
from tomogen.formats.pictures import views
from tomogen.intensity import Window
from tomogen.run import Run

START = "<!-- contrast: made by docs/contrast.py -->"
METRICS = ("mae", "mae/structure", "bias/structure", "cnr/ratio")
WORDS = {MADE: "translated", INPUT: "the input itself"}
SHOWN = 2
"""Patients in the picture."""


class Size(NamedTuple):
    """How much is done."""

    pairs: int
    held: int
    shape: str
    flags: str


WHOLE = Size(
    64, 12, "64 96 96",
    "--steps 6500 --set model.shape=[16,96,96] --set optimizer.decay_start=3000 --set optimizer.decay_steps=3500",
)  # fmt: skip
NOISE = 4
"""HU of the phantoms' noise: that of voxels as large as these, 4.7 x 3.8 x 3.8 mm."""
TINY = Size(
    3, 2, "24 32 32",
    "--steps 2 --set model.shape=[8,32,32] --set model.width=4 --set model.widest=8 --set model.judge_width=4",
)  # fmt: skip


def learnt(out: str, size: Size) -> list[str]:
    """What is typed to learn."""
    drawn = f"--pairs --shape {size.shape} --noise {NOISE} --format nii"
    return [
        f"tomogen phantom {out}/scans --n {size.pairs} --seed 21 {drawn}",
        f"tomogen phantom {out}/held --n {size.held} --seed 22 {drawn}",
        f"tomogen prepare {out}/scans {out}/cases --split 1 0 0 --pairs",
        f"tomogen train pix2pix3d_light {out}/cases {out}/run --seed 0 --threads 1 --resume {size.flags}",
    ]


def made(out: str | Path, name: str) -> str:
    """What is typed for one held-out scan."""
    return f"tomogen translate {out}/run {out}/input/{name}.nii.gz {out}/made/{name}.nii.gz --overwrite"


def judged(out: str) -> str:
    """What is typed to judge."""
    return (
        f"tomogen evaluate pairs {out}/truth {out}/made --input {out}/input --structure {out}/vessels --mask body "
        f"--conventions standard --out {out}/report --overwrite"
    )


def translated(out: Path) -> None:
    """Held-out scans without contrast, translated; the halves of each pair under one name in folders of their own."""
    for part in ("truth", "input", "vessels"):
        (out / part).mkdir(exist_ok=True)
    for patient in sorted(folder for folder in (out / "held").iterdir() if folder.is_dir()):
        for part, name in (("input", "CT1"), ("truth", "CT2"), ("vessels", "vessels")):
            shutil.copy(patient / f"{name}.nii.gz", out / part / f"{patient.name}.nii.gz")
        typed(made(out, patient.name))


def page_of(scores: Scores) -> str:
    """The figures in Markdown."""
    rows = ["| scan | MAE in the body, HU | MAE in vessels, HU | bias there, HU | CNR over the truth's |"]
    rows.append("|---|--:|--:|--:|--:|")
    rows += [f"| {WORDS[who]} | {' | '.join(str(scores.get(who, metric)) for metric in METRICS)} |" for who in WORDS]
    return "\n".join(rows)


def picture(out: Path, path: Path) -> None:
    """Held-out patients: input, what was made, truth."""
    names = sorted(file.name for file in (out / "truth").iterdir())[:SHOWN]
    window = Window(-200, 400)
    rows = [
        views.beside(
            [views.three_planes(read(out / part / name), window, size=200) for part in ("input", "made", "truth")]
        )
        for name in names
    ]
    views.stacked(rows).save(path, optimize=True)


def main(arguments: list[str] | None = None) -> None:
    """Everything, from nothing to the page."""
    given = asked(str(__doc__), arguments)
    out, size = given.out, TINY if given.tiny else WHOLE
    began = time.monotonic()
    all_typed(learnt(str(out), size), out / "cases")
    translated(out)
    typed(judged(str(out)))
    scores = Scores.read(out / "report" / "scores.json")
    record = {
        "command": f"python docs/contrast.py OUT{' --tiny' if given.tiny else ''}",
        "commands": [*learnt("OUT", size), made("OUT", "NAME"), judged("OUT")],
        "seed": 0, "seconds": round(time.monotonic() - began),
        "seconds_of_training": round(Run.open(out / "run").log()[-1]["seconds"]),
        "versions": json.loads((out / "run" / "environment.json").read_text())["versions"],
        "figures": {who: {metric: scores.get(who, metric).record() for metric in METRICS} for who in WORDS},
    }  # fmt: skip
    home = out if given.tiny else DOCS
    (home / "contrast.json").write_text(json.dumps(record, indent=1) + "\n")
    picture(out, (out if given.tiny else DOCS / "images") / "contrast.png")
    if not given.tiny:
        filled("translate.md", START, page_of(scores))


if __name__ == "__main__":
    main()
