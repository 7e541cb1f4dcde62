"""GANs of slices on real chests, the way that `real-slices.md` shows.

    python docs/real_slices.py CHESTS OUT          ten minutes on one core; started again it goes on
    python docs/real_slices.py CHESTS OUT --tiny   the same way in seconds, to see that it works; fills nothing

CHESTS is a folder of scans, with a table of whose they are, `patients.csv`, beside it. Writes `real-slices.json`, the
table of `real-slices.md` and its pictures beside this file.
"""

import json
import time
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from typed import DOCS, all_typed, asked, filled

from tomogen.cases.folder import CaseFolder
from tomogen.evaluation.scores import Scores
from tomogen.evaluation.subjects import EQUAL, MADE, REAL, UNTRAINED
from tomogen.run import Run

START = "<!-- real slices: made by docs/real_slices.py -->"
KID = "kid/axial"
METRICS = (KID, "density/axial", "coverage/axial")


class Size(NamedTuple):
    """How much is done."""

    shape: str
    steps: dict[str, int]
    samples: int
    sets: str


WHOLE = Size("64 64 64", {"stylegan2_light": 900, "dcgan2d_light": 1200}, 300, " --set data.shift=2")
TINY = Size("64 64 64", {"stylegan2_light": 2, "dcgan2d_light": 2}, 4, " --set training.batch=4")


def commands(chests: str, out: str, size: Size) -> list[str]:
    """What is typed."""
    made = [
        f"tomogen prepare {chests} {out}/cases --patients {chests}/../patients.csv --shape {size.shape} "
        "--split 0.7 0 0.3",
    ]
    for name, steps in size.steps.items():
        made += [
            f"tomogen train {name} {out}/cases {out}/{name} --seed 0 --threads 1 --resume --steps {steps}{size.sets}",
            f"tomogen evaluate run {out}/{name} {out}/cases --n {size.samples} --overwrite",
            f"tomogen sample {out}/{name} {out}/{name}-samples --n 16 --format nii --overwrite",
        ]
    return made


def page_of(out: Path, size: Size) -> str:
    """The figures in Markdown."""
    cases = CaseFolder.open(out / "cases")
    learnt, held = (sorted({case.patient for case in cases.of(split)}) for split in ("train", "test"))
    slices = sum(case.shape[0] for case in cases.of("train"))
    rows = [
        f"**{len(learnt)} patients** to learn from ({slices} slices), **{len(held)}** held out.",
        "",
        "| recipe | learnt for | KID | density | coverage | KID before training |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name in size.steps:
        scores = Scores.read(out / name / "report" / "scores.json")
        cells = [str(scores.get(MADE, metric)) for metric in METRICS]
        seconds = round(Run.open(out / name).log()[-1]["seconds"])
        rows.append(f"| `{name}` | {seconds} s | {' | '.join(cells)} | {scores.get(UNTRAINED, KID)} |")
    real = next((s for s in scores.subjects.get(REAL, ()) if s.definition.metric == KID + EQUAL), None)
    return "\n".join([*rows, f"| real slices against real ones | | {real} | | | |"] if real else rows)


def pictures(out: Path, size: Size, home: Path) -> None:
    """Samples of each recipe, and the curves of the first."""
    for name in size.steps:
        Image.open(out / f"{name}-samples" / "grid.png").convert("L").save(home / f"real-slices-{name}.png")
    first = out / next(iter(size.steps))
    curves = Image.open(first / "losses.png").convert("P", palette=Image.Palette.ADAPTIVE)
    curves.save(home / "real-slices-losses.png", optimize=True)


def main(arguments: list[str] | None = None) -> None:
    """Everything, from nothing to the page."""
    given = asked(str(__doc__), arguments, "chests")
    out, size = given.out, TINY if given.tiny else WHOLE
    began = time.monotonic()
    all_typed(commands(str(given.chests), str(out), size), out / "cases")
    page = page_of(out, size)
    record = {
        "command": f"python docs/real_slices.py CHESTS OUT{' --tiny' if given.tiny else ''}",
        "commands": commands("CHESTS", "OUT", size), "seed": 0, "seconds": round(time.monotonic() - began),
        "data_digest": CaseFolder.open(out / "cases").digest,
        "versions": json.loads((out / next(iter(size.steps)) / "environment.json").read_text())["versions"],
        "figures": {
            name: {
                metric: Scores.read(out / name / "report" / "scores.json").get(MADE, metric).record()
                for metric in METRICS
            }
            for name in size.steps
        },
    }  # fmt: skip
    home = out if given.tiny else DOCS
    (home / "real-slices.json").write_text(json.dumps(record, indent=1) + "\n")
    pictures(out, size, out if given.tiny else DOCS / "images")
    if not given.tiny:
        filled("real-slices.md", START, page)


if __name__ == "__main__":
    main()
