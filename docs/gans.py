"""Which GAN makes slices? Four recipes learn as long as one another and are held to patients they never saw.

    python docs/gans.py OUT          forty minutes on one core; started again it goes on
    python docs/gans.py OUT --tiny   the same way in seconds, to see that it works; fills nothing

Writes `gans.json`, the table of `latents.md` and `images/gans.png` beside this file.
"""

import json
import time
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from typed import DOCS, all_typed, asked, filled, typed

from tomogen.evaluation.score import Score
from tomogen.evaluation.scores import Scores
from tomogen.evaluation.subjects import MADE, REAL
from tomogen.run import Run

START = "<!-- gans: made by docs/gans.py -->"
KID = "kid/axial"
OTHERS = ("density/axial", "coverage/axial")
RECIPES = ("stylegan2_light", "dcgan2d_light", "dcgan2d", "wgan2d_mlp")


class Size(NamedTuple):
    """How much is done."""

    phantoms: int
    shape: str
    steps: dict[str, int]
    """Of each recipe: as many as take it equally long on one thread."""
    samples: int
    sets: str


STEPS = {"stylegan2_light": 2150, "dcgan2d_light": 3600, "dcgan2d": 340, "wgan2d_mlp": 3200}
WHOLE = Size(80, "48 64 64", STEPS, 300, "")
TINY = Size(8, "32 64 64", dict.fromkeys(RECIPES, 1), 4, " --set training.batch=4")


def commands(out: str, size: Size) -> list[str]:
    """What is typed."""
    made = [
        f"tomogen phantom {out}/scans --n {size.phantoms} --shape {size.shape} --seed 41 --format nii",
        f"tomogen prepare {out}/scans {out}/cases --shape {size.shape} --split 0.75 0 0.25",
    ]
    for name in RECIPES:
        made += [
            f"tomogen train {name} {out}/cases {out}/{name} --seed 0 --threads 1 --resume "
            f"--steps {size.steps[name]}{size.sets}",
            f"tomogen evaluate run {out}/{name} {out}/cases --n {size.samples} --overwrite",
        ]
    return made


def measured(out: Path) -> dict[str, dict[str, Score]]:
    """The scores of each recipe, and of real slices against real ones."""
    read = {name: Scores.read(out / name / "report" / "scores.json") for name in RECIPES}
    found = {name: {metric: read[name].get(MADE, metric) for metric in (KID, *OTHERS)} for name in RECIPES}
    floors = read[RECIPES[0]].subjects.get(REAL, ())
    return found | {"real": {score.definition.metric: score for score in floors if KID in score.definition.metric}}


def page_of(found: dict[str, dict[str, Score]], seconds: dict[str, int]) -> str:
    """The figures in Markdown."""
    rows = ["| recipe | learnt for | KID | density | coverage |", "|---|--:|--:|--:|--:|"]
    rows += [
        f"| `{name}` | {seconds[name]} s | {' | '.join(str(score) for score in found[name].values())} |"
        for name in RECIPES
    ]
    rows += [f"| real slices against real ones | | {floor} | | |" for floor in found["real"].values()]
    return "\n".join(rows)


def picture(out: Path, path: Path) -> None:
    """Samples of each recipe, one row each."""
    rows = []
    for name in RECIPES:
        typed(f"tomogen sample {out}/{name} {out}/{name}-samples --n 8 --format nii --overwrite")
        rows.append(Image.open(out / f"{name}-samples" / "grid.png").convert("L"))
    sheet = Image.new("L", (max(row.width for row in rows), sum(row.height for row in rows)))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(path, optimize=True)


def main(arguments: list[str] | None = None) -> None:
    """Everything, from nothing to the page."""
    given = asked(str(__doc__), arguments)
    out, size = given.out, TINY if given.tiny else WHOLE
    began = time.monotonic()
    all_typed(commands(str(out), size), out / "cases")
    found = measured(out)
    seconds = {name: round(Run.open(out / name).log()[-1]["seconds"]) for name in RECIPES}
    record = {
        "command": f"python docs/gans.py OUT{' --tiny' if given.tiny else ''}",
        "commands": commands("OUT", size), "seed": 0, "seconds": round(time.monotonic() - began),
        "seconds_of_training": seconds,
        "versions": json.loads((out / RECIPES[0] / "environment.json").read_text())["versions"],
        "figures": {
            name: {metric: score.record() for metric, score in scores.items()} for name, scores in found.items()
        },
    }  # fmt: skip
    home = out if given.tiny else DOCS
    (home / "gans.json").write_text(json.dumps(record, indent=1) + "\n")
    picture(out, (out if given.tiny else DOCS / "images") / "gans.png")
    if not given.tiny:
        filled("latents.md", START, page_of(found, seconds))


if __name__ == "__main__":
    main()
