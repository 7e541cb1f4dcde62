"""Slices or volumes? A 2D and a 3D model learn from the same scans; both are judged as volumes. Fills docs/scores.md.

    python docs/slices_or_volumes.py OUT          about ten minutes on two cores; OUT must be empty or absent

Writes `slices-or-volumes.json` beside this file: figures, commands, seed, wall time, versions.
"""

import json
import sys
import time
from pathlib import Path

from typed import DOCS, filled, typed

from tomogen.evaluation.score import Score
from tomogen.evaluation.scores import Scores
from tomogen.evaluation.subjects import EQUAL, MADE, REAL

START = "<!-- slices or volumes: made by docs/slices_or_volumes.py -->"
SIDE = "32"
METRICS = ("kid/volume", "coherence")
ALONE = "kid/axial"
"""Of the 2D model's slices as slices; another definition than that of volumes, and so no column of the table."""
MODELS = {
    "slices": ("dcgan2d_light", f"--set model.shape=[{SIDE},{SIDE}] --set model.doublings=3 --steps 1500"),
    "volumes": ("wgan3d_tiny", ""),
}


def commands(out: str) -> list[str]:
    """What is typed."""
    made = [
        f"tomogen phantom {out}/scans --n 64 --shape 64 128 128 --seed 5 --format nii",
        f"tomogen prepare {out}/scans {out}/cases --shape {SIDE} {SIDE} {SIDE} --split 0.75 0 0.25",
    ]
    for name, (recipe, flags) in MODELS.items():
        made += [
            f"tomogen train {recipe} {out}/cases {out}/{name} --seed 0 --threads 1 {flags}".rstrip(),
            f"tomogen evaluate run {out}/{name} {out}/cases --n 16 --seed 0",
        ]
    return made


def figures(out: Path) -> dict[str, dict[str, Score]]:
    """The scores at equal n, by what they were measured of."""
    read = {name: Scores.read(out / name / "report" / "scores.json") for name in MODELS}
    found = {name: {metric: read[name].get(MADE, metric + EQUAL) for metric in METRICS} for name in MODELS}
    found["real"] = {metric: read["volumes"].get(REAL, metric + EQUAL) for metric in METRICS}
    for metric in METRICS:
        found["slices"][metric].compare(found["volumes"][metric])  # raises where they are not of one definition
    found["slices alone"] = {ALONE: read["slices"].get(MADE, ALONE + EQUAL)}
    found["real slices"] = {ALONE: read["slices"].get(REAL, ALONE + EQUAL)}
    return found


def page_of(found: dict[str, dict[str, Score]]) -> str:
    """The figures in Markdown."""
    labels = {
        "real": "real phantoms against real ones",
        "volumes": "made by `wgan3d_tiny`, whole",
        "slices": "made by `dcgan2d_light`, slices stacked",
    }
    rows = ["| scans | " + " | ".join(f"`{metric}`" for metric in METRICS) + " |", "|---|--:|--:|"]
    rows += [
        f"| {words} | {' | '.join(str(found[label][metric]) for metric in METRICS)} |"
        for label, words in labels.items()
    ]
    made, real = found["slices alone"][ALONE], found["real slices"][ALONE]
    return "\n".join([*rows, "", f"Slice by slice the 2D model is at its floor: `{ALONE}` {made}, real slices {real}."])


def main() -> None:
    """Everything, from nothing to the page."""
    out = Path(sys.argv[1])
    began = time.monotonic()
    for command in commands(str(out)):
        typed(command)
    found = figures(out)
    versions = json.loads((out / "volumes" / "environment.json").read_text())["versions"]
    record = {
        "command": "python docs/slices_or_volumes.py OUT", "commands": commands("OUT"), "seed": 0,
        "seconds": round(time.monotonic() - began), "versions": versions,
        "figures": {
            name: {metric: {"value": score.value, "interval": score.interval} for metric, score in scores.items()}
            for name, scores in found.items()
        },
    }  # fmt: skip
    (DOCS / "slices-or-volumes.json").write_text(json.dumps(record, indent=1) + "\n")
    filled("scores.md", START, page_of(found))


if __name__ == "__main__":
    main()
