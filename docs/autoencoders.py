"""Slices for channels, or volumes? Autoencoders that learnt as long as one another, on patients they never saw.

    python docs/autoencoders.py OUT          half an hour on one core; started again it goes on
    python docs/autoencoders.py OUT --tiny   the same way in seconds, to see that it works; fills nothing

Writes `autoencoders.json`, the table of `latents.md` and `images/autoencoders.png` beside this file.
"""

import json
import time
from pathlib import Path
from typing import NamedTuple

from compared import Told, table, told
from typed import DOCS, all_typed, asked, filled, typed

from tomogen.cases.folder import CaseFolder
from tomogen.evaluation.scores import Scores
from tomogen.evaluation.subjects import BLURRED, RECONSTRUCTED
from tomogen.formats import read, write
from tomogen.formats.pictures import views
from tomogen.intensity import FULL
from tomogen.run import Run

START = "<!-- autoencoders: made by docs/autoencoders.py -->"
METRICS = ("psnr", "ssim", "mae")
BLUR = "blurred"
WORDS = {
    "volumes": "`vae3d_light`",
    "large": "`vae2d_large`, 64 slices as channels",
    "small": "`vae2d_small`, as published first",
    BLUR: "no model: the scan, blurred",
}
SHOWN = 2
"""Patients in the picture."""


class Size(NamedTuple):
    """How much is done."""

    phantoms: int
    side: int
    """Voxels along each axis."""
    steps: dict[str, int]
    """Of each model: as many as take it equally long on one thread."""
    sets: dict[str, str]


CUBE = "--set model.shape=[64,64,64]"
WHOLE = Size(
    60, 64, {"volumes": 2400, "large": 880, "small": 1430},
    {"volumes": "", "large": CUBE, "small": CUBE},
)  # fmt: skip
SMALL = "--set model.shape=[16,16,16] --set model.width=4 --set model.widest=8 --set training.batch=1"
TINY = Size(
    5, 16, {"volumes": 1, "large": 1, "small": 1},
    {
        "volumes": f"{SMALL} --set model.latent=2", "large": f"{SMALL} --set model.doublings=2",
        "small": f"{SMALL} --set model.doublings=1",
    },
)  # fmt: skip
RECIPES = {"volumes": "vae3d_light", "large": "vae2d_large", "small": "vae2d_small"}


def commands(out: str, size: Size) -> list[str]:
    """What is typed."""
    cube = f"--shape {size.side} {size.side} {size.side}"
    made = [
        f"tomogen phantom {out}/scans --n {size.phantoms} {cube} --seed 31 --format nii",
        f"tomogen prepare {out}/scans {out}/cases {cube} --split 0.8 0 0.2",
    ]
    for name, recipe in RECIPES.items():
        flags = f"--steps {size.steps[name]} {size.sets[name]}".rstrip()
        made += [
            f"tomogen train {recipe} {out}/cases {out}/{name} --seed 0 --threads 1 --resume {flags}",
            f"tomogen evaluate run {out}/{name} {out}/cases --n 12 --overwrite",
        ]
    return made


def measured(out: Path) -> Told:
    """Scores of the reconstructions, and differences from model to model."""
    read_of = {name: Scores.read(out / name / "report" / "scores.json") for name in RECIPES}
    found = {name: {metric: read_of[name].get(RECONSTRUCTED, metric) for metric in METRICS} for name in RECIPES}
    found[BLUR] = {metric: read_of["volumes"].get(BLURRED, metric) for metric in METRICS}
    return told(found, [("volumes", "large"), ("large", "small")], out / "cases")


def page_of(figures: Told) -> str:
    """The figures in Markdown."""
    return table(figures, WORDS, METRICS, "reconstructed by | PSNR, dB | SSIM | MAE, HU")


def picture(out: Path, path: Path) -> None:
    """Held-out patients: the scan, and each model's reconstruction, made as a user makes it."""
    cases = CaseFolder.open(out / "cases")
    rows = []
    for number, case in enumerate(cases.of("test")[:SHOWN]):
        own = out / f"patient-{number}"
        own.mkdir(exist_ok=True)
        write(cases.volume(case), own / "scan.nii.gz")
        for name in RECIPES:
            typed(f"tomogen sample {out}/{name} {own}/{name} --around {own}/scan.nii.gz --alpha 0 --overwrite")
        scans = [read(own / "scan.nii.gz"), *(read(own / name / "sample-000001.nii.gz") for name in RECIPES)]
        rows.append(views.beside([views.three_planes(scan, FULL, size=150) for scan in scans]))
    views.stacked(rows).save(path, optimize=True)


def main(arguments: list[str] | None = None) -> None:
    """Everything, from nothing to the page."""
    given = asked(str(__doc__), arguments)
    out, size = given.out, TINY if given.tiny else WHOLE
    began = time.monotonic()
    all_typed(commands(str(out), size), out / "cases")
    figures = measured(out)
    record = {
        "command": f"python docs/autoencoders.py OUT{' --tiny' if given.tiny else ''}",
        "commands": commands("OUT", size), "seed": 0, "seconds": round(time.monotonic() - began),
        "seconds_of_training": {name: round(Run.open(out / name).log()[-1]["seconds"]) for name in RECIPES},
        "versions": json.loads((out / "volumes" / "environment.json").read_text())["versions"], "figures": figures,
    }  # fmt: skip
    home = out if given.tiny else DOCS
    (home / "autoencoders.json").write_text(json.dumps(record, indent=1) + "\n")
    picture(out, (out if given.tiny else DOCS / "images") / "autoencoders.png")
    if not given.tiny:
        filled("latents.md", START, page_of(figures))


if __name__ == "__main__":
    main()
