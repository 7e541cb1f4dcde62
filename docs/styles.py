"""Computed radiographs made to look real, and back: train a CycleGAN; the figure and the numbers of docs/styles.md.

    python docs/styles.py CHESTS RADIOGRAPHS OUT --patients patients.csv --minutes 10
    python docs/styles.py CHESTS RADIOGRAPHS OUT --collect              the pictures and the JSON of a run that is there

Started again with the same OUT it goes on where it stopped. `--minutes` is how long training may take on this machine:
a few steps are timed first, and the schedule of the learning rate is made to fit; without it the recipe's steps are
taken. Each command that is run is printed; `styles.json` holds them with seed, wall time, versions and hashes.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from typed import DOCS, filled

from tomogen.cases.folder import CaseFolder
from tomogen.cases.unpaired import Unpaired
from tomogen.generation.load import load
from tomogen.models.cyclegan import Model, Style
from tomogen.recipe import Recipe
from tomogen.run import Run, sha256

RECIPE = "cyclegan_light"
PLAN = "plan.json"
"""In the folder that is worked in: how many steps there are to be. Written once, so that a restart keeps them."""
TIMED = 12
"""Steps that are timed for `--minutes`, without the first third, in which pictures are read and memory is found."""
START = "<!-- measured: made by docs/styles.py -->"
EACH = 3
"""Pictures of each kind that are shown."""
HEAD, GAP = 18, 6

Pictures = NDArray[np.float32]
"""`(n, rows, columns)` on -1..1."""


def commands(
    chests: Path = Path("CHESTS"),
    radiographs: Path = Path("RADIOGRAPHS"),
    out: Path = Path("out"),
    patients: Path | None = Path("patients.csv"),
    steps: int = 0,
) -> list[list[str]]:
    """What is typed, without the word tomogen; the last one trains, for `steps` where that is not the recipe's own."""
    who = ["--patients", str(patients)] if patients else []
    grid = ["--shape", "128", "128", "128"]
    half = steps // 2
    schedule = [f"training.steps={steps}", f"optimizer.decay_start={half}", f"optimizer.decay_steps={steps - half}"]
    return [
        ["phantom", f"{out}/phantoms", "--n", "24", "--shape", "128", "160", "160", "--format", "nii"],
        ["prepare", str(chests), f"{out}/phantoms", f"{out}/cases", *who, *grid, "--radiographs", str(radiographs)],
        ["train", RECIPE, f"{out}/cases", f"{out}/run", "--seed", "0", "--threads", "1"]
        + [word for setting in (schedule if steps else []) for word in ("--set", setting)],
    ]  # fmt: skip


def run(words: list[str]) -> None:
    """Do one command, printed first."""
    print("$ tomogen", shlex.join(words), flush=True)
    subprocess.run([sys.executable, "-m", "tomogen", *words], check=True)


def planned(out: Path, minutes: float | None) -> int:
    """How many steps: those of an earlier start, the recipe's, or as many as `minutes` hold at the pace of a few."""
    plan = out / PLAN
    if plan.is_file():
        return int(json.loads(plan.read_text())["steps"])
    steps = 0
    if minutes is not None:
        trial = commands(out=out, steps=TIMED)[-1]
        trial[3] = f"{out}/timing"
        run([*trial, "--overwrite"])
        seconds = [line["seconds"] for line in Run.open(out / "timing").log()]
        pace = (seconds[-1] - seconds[TIMED // 3 - 1]) / (TIMED - TIMED // 3)
        steps = max(2 * TIMED, int(60 * minutes / pace))
        shutil.rmtree(out / "timing")
    plan.write_text(json.dumps({"steps": steps}) + "\n")
    return steps


def work(chests: Path, radiographs: Path, out: Path, patients: Path | None, minutes: float | None) -> None:
    """Run all commands, each only as far as an earlier start has not."""
    out.mkdir(parents=True, exist_ok=True)
    phantoms, prepare, _ = commands(chests, radiographs, out, patients)
    if not (out / "cases" / "catalog.json").is_file():
        run([*phantoms, "--overwrite"])
        run(prepare)
    train = commands(chests, radiographs, out, patients, planned(out, minutes))[-1]
    run([*train, "--resume"])


def collect(out: Path) -> None:
    """A sheet of pictures of patients that the model has not seen, both ways, and the facts."""
    opened, cases = Run.open(out / "run"), CaseFolder.open(out / "cases")
    synthesizer = load(opened.path, "cpu").synthesizer
    assert isinstance(synthesizer, Model)
    config = synthesizer.config

    def restyled(pictures: Pictures, towards: Style) -> Pictures:
        with torch.no_grad():
            made = [synthesizer.restyle(torch.from_numpy(one)[None, None], towards)[0, 0] for one in pictures]
        return torch.stack(made).numpy()

    shown: list[dict[str, Pictures]] = []
    facts: dict[str, Any] = {"held_out": {}}
    for kind in config.views:
        feeds = [
            Unpaired(cases, config.shape[0], kinds=(kind,), geometry=config.geometry, energy=config.energy, split=split)
            for split in ("val", "test")
        ]
        drr = np.stack([feed.computed(case, kind) for feed in feeds for case in feed.cases]) * 2 - 1
        real = np.stack([feed.real(entry) for feed in feeds for entry in feed.pictures[kind]]) * 2 - 1
        like_real, like_drr = restyled(drr, "radiograph"), restyled(real, "drr")
        facts["held_out"][kind] = {
            "radiographs": len(real),
            "drrs": len(drr),
            "grey_distance_to_radiographs": {"drr": apart(drr, real), "drr_as_radiograph": apart(like_real, real)},
            "grey_distance_to_drrs": {"radiograph": apart(real, drr), "radiograph_as_drr": apart(like_drr, drr)},
            "detail": {
                "drr": detail(drr), "drr_as_radiograph": detail(like_real),
                "radiograph": detail(real), "radiograph_as_drr": detail(like_drr),
            },
            "cycle_error": {
                "drr": error(restyled(like_real, "drr"), drr),
                "radiograph": error(restyled(like_drr, "radiograph"), real),
            },
        }  # fmt: skip
        shown.append(
            {"DRR": drr, "as a radiograph": like_real, "real radiograph": real, "as a DRR": like_drr},
        )
    (DOCS / "images").mkdir(exist_ok=True)
    sheet(shown).save(DOCS / "images" / "styles.png", optimize=True)
    last = opened.log()[-1]
    given = opened.recipe.training.steps
    own = given == Recipe.load(RECIPE).training.steps
    facts |= {
        "commands": [f"tomogen {shlex.join(words)}" for words in commands(steps=0 if own else given)],
        "seed": opened.recipe.training.seed,
        "steps": last["step"],
        "wall_seconds_of_training": round(last["seconds"]),
        "scans": {split: len(cases.of(split)) for split in ("train", "val", "test")},
        "real_scans_held_out": sum(not case.acquisition.synthetic for s in ("val", "test") for case in cases.of(s)),
        "weights_sha256": sha256(opened.weights),
        "data_digest": opened.data["digest"],
        **{name: opened.environment[name] for name in ("versions", "processor", "threads")},
    }
    (DOCS / "styles.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    filled("styles.md", START, told(facts))


def told(facts: dict[str, Any]) -> str:
    """The measured part of the page: what was typed, how long it took, and a table."""
    minutes = round(facts["wall_seconds_of_training"] / 60)
    scans, real = facts["scans"], facts["real_scans_held_out"]
    rows = []
    for kind, found in facts["held_out"].items():
        detail, cycle = found["detail"], found["cycle_error"]
        to_real, to_drr = found["grey_distance_to_radiographs"], found["grey_distance_to_drrs"]
        for look, made, distances, count in (
            ("drr", "drr_as_radiograph", to_real, found["drrs"]),
            ("radiograph", "radiograph_as_drr", to_drr, found["radiographs"]),
        ):
            rows.append(
                f"| {kind}, {made.replace('_', ' ').replace('drr', 'DRR')} | {count} "
                f"| {distances[look]:.3f} | {distances[made]:.3f} "
                f"| {detail[look]:.4f} | {detail[made]:.4f} | {cycle[look]:.3f} |"
            )
    return "\n".join(
        [
            "```console", *(f"$ {command}" for command in facts["commands"]), "```", "",
            f"{facts['steps']} steps in {minutes} minutes, threads {facts['threads']}. Held out are "
            f"{scans['val'] + scans['test']} scans, {real} of them of a real patient, and the radiographs of other "
            "patients than those trained on.", "",
            "| held out | pictures | grey distance to that look before | after | detail before | after "
            "| there and back |",
            "|---|---|---|---|---|---|---|",
            *rows, "",
            "![Rows: DRRs, the same as radiographs, real radiographs, the same as DRRs](images/styles.png)",
        ]
    )  # fmt: skip


def apart(some: Pictures, others: Pictures) -> float:
    """How far two sets are apart in grey: the mean difference of their sorted values (1-Wasserstein), on 0..1."""
    levels = np.linspace(0, 1, 1001)
    return round(float(np.abs(np.quantile(some, levels) - np.quantile(others, levels)).mean() / 2), 4)


def detail(pictures: Pictures) -> float:
    """Mean size of the grey steps from pixel to pixel, on 0..1: what blur lowers, and ribs, vessels and noise raise."""
    return round(float(np.mean([np.abs(np.diff(pictures, axis=axis)).mean() for axis in (1, 2)]) / 2), 4)


def error(back: Pictures, pictures: Pictures) -> float:
    """Mean difference of pictures from themselves there and back again, on 0..1."""
    return round(float(np.abs(back - pictures).mean() / 2), 4)


def sheet(shown: list[dict[str, Pictures]]) -> Image.Image:
    """Rows by look; columns are the first pictures of each kind."""
    names = list(shown[0])
    side = shown[0][names[0]].shape[-1]
    columns = [(kind, number) for kind in shown for number in range(EACH)]
    page = Image.new("L", (len(columns) * (side + GAP) - GAP, len(names) * (HEAD + side + GAP) - GAP), 255)
    for row, name in enumerate(names):
        top = row * (HEAD + side + GAP)
        ImageDraw.Draw(page).text((2, top + 2), name, fill=0, font=ImageFont.load_default(size=12))
        for column, (kind, number) in enumerate(columns):
            if number < len(kind[name]):
                grey = Image.fromarray(((kind[name][number] + 1) * 127.5).round().astype(np.uint8))
                page.paste(grey, (column * (side + GAP), top + HEAD))
    return page


def main() -> None:
    """Run the commands, unless `--collect`, and collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chests", type=Path)
    parser.add_argument("radiographs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", type=Path)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--collect", action="store_true")
    given = parser.parse_args()
    if not given.collect:
        work(given.chests, given.radiographs, given.out, given.patients, given.minutes)
    collect(given.out)


if __name__ == "__main__":
    main()
