"""Two radiographs or one? Phantoms reconstructed by models that saw neither of them nor their like. Fills a page.

    python docs/two_radiographs.py OUT          at most half an hour on two cores; started again it goes on
    python docs/two_radiographs.py OUT --tiny   the same way in seconds, to see that it works; fills nothing

Writes `two-radiographs.json`, the table of `reconstruct.md` and `images/two-radiographs.png` beside this file.
"""

import json
import time
from pathlib import Path
from typing import NamedTuple

from compared import Told, table, told
from typed import DOCS, all_typed, asked, filled, typed

from tomogen.cases.folder import CaseFolder
from tomogen.evaluation.scores import Scores
from tomogen.evaluation.subjects import MADE, MEAN
from tomogen.formats import read, write
from tomogen.formats.pictures import views
from tomogen.intensity import FULL
from tomogen.run import Run

START = "<!-- two radiographs: made by docs/two_radiographs.py -->"
METRICS = ("psnr", "ssim", "mae", "reprojection")
MODELS = {"biplanar": "x2ct_light", "single": "x2ct_light_single"}
WORDS = {"biplanar": "two radiographs", "single": "the frontal one alone", "mean": "none: the mean of training"}
SHOWN = 3
"""Patients in the picture."""


class Size(NamedTuple):
    """How much is done."""

    phantoms: int
    side: int
    """Voxels along each axis."""
    spacing: float
    """mm."""
    split: str
    flags: str


WHOLE = Size(240, 64, 5.5, "0.86 0.02 0.12", "")
TINY = Size(
    6, 32, 11, "0.5 0 0.5",
    " --steps 2 --set model.shape=[32,32,32] --set training.batch=1 --set model.width=4 --set model.growth=4"
    " --set model.bottleneck=4 --set model.decoder_width=4 --set model.discriminator_width=4",
)  # fmt: skip


def commands(out: str, size: Size) -> list[str]:
    """What is typed."""
    cube = f"--shape {size.side} {size.side} {size.side}"
    made = [
        f"tomogen phantom {out}/scans --n {size.phantoms} {cube} --seed 11 --format nii",
        f"tomogen prepare {out}/scans {out}/cases {cube} --spacing {size.spacing:g} --split {size.split}",
    ]
    for name, recipe in MODELS.items():
        made += [
            f"tomogen train {recipe} {out}/cases {out}/{name} --seed 0 --resume{size.flags}",
            f"tomogen evaluate run {out}/{name} {out}/cases --conventions x2ct2019 --overwrite",
        ]
    return made


def measured(out: Path) -> Told:
    """Each way's scores, and how much better one is than the next on the same patients."""
    read_of = {name: Scores.read(out / name / "report" / "scores.json") for name in MODELS}
    found = {name: {metric: read_of[name].get(MADE, metric) for metric in METRICS} for name in MODELS}
    found["mean"] = {metric: read_of["biplanar"].get(MEAN, metric) for metric in METRICS}
    return told(found, [("biplanar", "single"), ("single", "mean")], out / "cases")


def page_of(figures: Told) -> str:
    """The figures in Markdown."""
    return table(figures, WORDS, METRICS, "made of | PSNR, dB | SSIM | MAE, HU | re-projection")


def picture(out: Path, path: Path) -> None:
    """Held-out patients: truth, two radiographs, one; each by `xray` and `reconstruct`, as a user has it."""
    cases = CaseFolder.open(out / "cases")
    sheets = []
    for number, case in enumerate(cases.of("test")[:SHOWN]):
        own = out / f"patient-{number}"
        own.mkdir(exist_ok=True)
        truth = cases.volume(case)
        write(truth, own / "truth.nii.gz")
        typed(f"tomogen xray {own}/truth.nii.gz {own}/shots --size 256 --overwrite")
        typed(
            f"tomogen reconstruct {out}/biplanar {own}/biplanar.nii.gz --frontal {own}/shots/pa.png "
            f"--lateral {own}/shots/lateral.png --overwrite"
        )
        typed(f"tomogen reconstruct {out}/single {own}/single.nii.gz --frontal {own}/shots/pa.png --overwrite")
        scans = [truth, read(own / "biplanar.nii.gz"), read(own / "single.nii.gz")]
        sheets.append(views.beside([views.three_planes(scan, FULL, size=160) for scan in scans]))
    views.stacked(sheets).save(path, optimize=True)


def main(arguments: list[str] | None = None) -> None:
    """Everything, from nothing to the page."""
    given = asked(str(__doc__), arguments)
    out, size = given.out, TINY if given.tiny else WHOLE
    began = time.monotonic()
    all_typed(commands(str(out), size), out / "cases")
    figures = measured(out)
    record = {
        "command": f"python docs/two_radiographs.py OUT{' --tiny' if given.tiny else ''}",
        "commands": commands("OUT", size), "seed": 0, "seconds": round(time.monotonic() - began),
        "seconds_of_training": {name: round(Run.open(out / name).log()[-1]["seconds"]) for name in MODELS},
        "versions": json.loads((out / "biplanar" / "environment.json").read_text())["versions"], "figures": figures,
    }  # fmt: skip
    home = out if given.tiny else DOCS
    (home / "two-radiographs.json").write_text(json.dumps(record, indent=1) + "\n")
    picture(out, (out if given.tiny else DOCS / "images") / "two-radiographs.png")
    if not given.tiny:
        filled("reconstruct.md", START, page_of(figures))


if __name__ == "__main__":
    main()
