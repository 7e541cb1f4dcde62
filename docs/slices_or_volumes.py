"""Slices or volumes? A 2D and a 3D model learn from the same scans; both are judged as volumes. Fills docs/scores.md.

    python docs/slices_or_volumes.py OUT          about ten minutes on two cores; OUT must be empty or absent

Writes `slices-or-volumes.json` beside this file: figures, commands, seed, wall time, versions.
"""

import json
import shlex
import sys
import time
from pathlib import Path

from tomogen.cli.__main__ import main as tomogen
from tomogen.evaluation.scores import Scores

DOCS = Path(__file__).parent
START, END = "<!-- slices or volumes: made by docs/slices_or_volumes.py -->", "<!-- end -->"
SIDE = "32"
METRICS = ("kid/axial", "kid/volume", "coherence")
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


def typed(command: str) -> None:
    """Run a command as the shell would; end here if it fails."""
    print(f"$ {command}", flush=True)
    try:
        tomogen([*shlex.split(command)[1:], "-q"])
    except SystemExit as done:
        if done.code:
            raise


def figures(out: Path) -> dict[str, dict[str, dict[str, object]]]:
    """Value and interval of each metric, by what it was measured of."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for name in MODELS:
        scores = Scores.read(out / name / "report" / "scores.json")
        for subject, label in (("made", name), ("floor: real against real", "real")):
            for metric in METRICS:
                score = scores.get(subject, f"{metric}/equal n")
                found.setdefault(label, {})[metric] = {"value": score.value, "interval": score.interval}
    return found


def table(found: dict[str, dict[str, dict[str, object]]]) -> str:
    """The figures in Markdown."""
    labels = {
        "real": "real phantoms against real ones",
        "volumes": "made by `wgan3d_tiny`, whole",
        "slices": "made by `dcgan2d_light`, slices stacked",
    }
    rows = ["| scans | " + " | ".join(f"`{metric}`" for metric in METRICS) + " |", "|---|--:|--:|"]
    for label, words in labels.items():
        cells = []
        for metric in METRICS:
            low, high = found[label][metric]["interval"]  # type: ignore[misc]
            cells.append(f"{found[label][metric]['value']:.3g} [{low:.2g}, {high:.2g}]")
        rows.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(rows)


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
        "seconds": round(time.monotonic() - began), "versions": versions, "figures": found,
    }  # fmt: skip
    (DOCS / "slices-or-volumes.json").write_text(json.dumps(record, indent=1) + "\n")
    page = DOCS / "scores.md"
    head, _, rest = page.read_text(encoding="utf-8").partition(START)
    page.write_text(f"{head}{START}\n{table(found)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
