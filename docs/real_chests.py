"""The first run on real chest CT: prepare, train, sample, and what docs/real-chests.md shows of it.

    python docs/real_chests.py CHESTS OUT --patients patients.csv     everything (about an hour on two cores)
    python docs/real_chests.py CHESTS OUT --collect                   the pictures and the JSON of a run that is there

Each command that is run is printed; `real-chests.json` holds them with seed, wall time, versions and hashes.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tomogen.cases.folder import CaseFolder
from tomogen.formats import read
from tomogen.formats.pictures import views
from tomogen.intensity import FULL
from tomogen.run import Run, sha256

DOCS = Path(__file__).parent
IMAGES = DOCS / "images"
SETTINGS = (
    "model.width=16", "model.widest=128", "model.latent=128", "model.critic_turns=2", "optimizer.lr=1e-3",
    "training.average=0.99", "data.shift=2", "training.preview_every=50", "training.checkpoint_every=100",
)  # fmt: skip


def commands(
    chests: Path = Path("CHESTS"),
    out: Path = Path("out"),
    patients: Path | None = Path("patients.csv"),
    steps: int = 4000,
) -> list[list[str]]:
    """What is typed, without the word tomogen."""
    who = ["--patients", str(patients)] if patients else []
    overrides = [word for setting in SETTINGS for word in ("--set", setting)]
    return [
        ["prepare", str(chests), f"{out}/cases", *who, "--shape", "64", "64", "64", "--split", "1", "0", "0"],
        [
            "train",
            "wgan3d",
            f"{out}/cases",
            f"{out}/run",
            "--steps",
            str(steps),
            "--seed",
            "0",
            "--threads",
            "2",
            *overrides,
        ],
        ["sample", f"{out}/run", f"{out}/samples", "--n", "6", "--seed", "1", "--format", "nii"],
    ]


def collect(out: Path) -> None:
    """Pictures into docs/images, facts into docs/real-chests.json."""
    run, cases = Run.open(out / "run"), CaseFolder.open(out / "cases")
    _film(run.path / "previews", IMAGES / "real-chests.gif")
    Image.open(run.path / "losses.png").convert("P", palette=Image.Palette.ADAPTIVE).save(
        IMAGES / "real-chests-losses.png", optimize=True
    )
    real = [cases.volume(case) for case in cases.of("train")]
    made = [read(path) for path in sorted((out / "samples").glob("*.nii.gz"))]
    for volumes, name in ((real, "real-chests-real.png"), (made, "real-chests-samples.png")):
        rows = [views.three_planes(volume, FULL, size=128) for volume in volumes[:6]]
        _tiled(rows, 2).save(IMAGES / name, optimize=True)
    last = run.log()[-1]
    facts = {
        "commands": [f"tomogen {shlex.join(words)}" for words in commands(steps=last["step"])],
        "seed": run.recipe.training.seed,
        "patients": run.data["patients"],
        "steps": last["step"],
        "images": last["images"],
        "wall_seconds_of_training": round(last["seconds"]),
        "weights_sha256": sha256(run.weights),
        "data_digest": run.data["digest"],
        **{name: run.environment[name] for name in ("versions", "processor", "threads")},
    }
    (DOCS / "real-chests.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _film(previews: Path, path: Path) -> None:
    """At most 18 frames, the first two samples of each, close together at the start where most happens."""
    files = sorted(previews.glob("step-*.png"))
    chosen = sorted({round((len(files) - 1) * (i / 17) ** 1.5) for i in range(18)})
    frames = []
    for index in chosen:
        frame = Image.open(files[index]).convert("L")
        frames.append(frame.crop((0, 0, frame.width, frame.height // 2)))
    frames[0].save(
        path, save_all=True, append_images=frames[1:] + [frames[-1]] * 6, duration=250, loop=0, optimize=True
    )


def _tiled(pictures: list[Image.Image], columns: int) -> Image.Image:
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("L", (columns * width, rows * height))
    for index, picture in enumerate(pictures):
        sheet.paste(picture.convert("L"), (index % columns * width, index // columns * height))
    return sheet


def main() -> None:
    """Run the commands, unless `--collect`, and collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chests", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--collect", action="store_true")
    given = parser.parse_args()
    if not given.collect:
        for words in commands(given.chests, given.out, given.patients, given.steps):
            print("$ tomogen", shlex.join(words))
            subprocess.run([sys.executable, "-m", "tomogen", *words], check=True)
    collect(given.out)


if __name__ == "__main__":
    main()
