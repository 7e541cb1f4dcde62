"""One real chest learnt by heart: can the light recipe hold a chest at all? Fills a line of docs/reconstruct.md.

    python docs/one_chest.py CHESTS OUT         about ten minutes on two cores; OUT must be empty or absent

CHESTS holds a folder for each patient; the first of `LEARNT` is learnt, the mean of the others is what it is held to.
Writes `one-chest.json` and `images/one-chest.png` beside this file.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from typed import DOCS, filled, typed

from tomogen.cases.folder import CaseFolder
from tomogen.evaluation.scores import Scores
from tomogen.evaluation.subjects import MADE, MEAN
from tomogen.formats import read, write
from tomogen.formats.pictures import views
from tomogen.generation.sample import centred
from tomogen.intensity import FULL

START = "<!-- one chest: made by docs/one_chest.py -->"
LEARNT = "LIDC-IDRI-0314"
GRID = "--shape 64 64 64 --spacing 5.5 --split 1 0 0"
STEPS = 1000


def prepared(chests: str, others: str, out: str) -> list[str]:
    """What is typed before the truth is there."""
    half = STEPS // 2
    return [
        f"tomogen prepare {chests}/{LEARNT} {out}/one {GRID}",
        f"tomogen prepare {others} {out}/others {GRID}",
        f"tomogen train x2ct_light {out}/one {out}/run --seed 0 --steps {STEPS} --set training.batch=1 "
        f"--set optimizer.decay_start={half} --set optimizer.decay_steps={half}",
    ]


def reconstructed(out: str) -> list[str]:
    """What is typed then."""
    return [
        f"tomogen xray {out}/truth.nii.gz {out}/shots --no-body-mask",
        f"tomogen reconstruct {out}/run {out}/made.nii.gz --frontal {out}/shots/pa.png "
        f"--lateral {out}/shots/lateral.png",
        f"tomogen evaluate pairs {out}/truth.nii.gz {out}/made.nii.gz --train {out}/others --conventions x2ct2019 "
        f"--out {out}/report",
    ]


def main() -> None:
    """Everything, from nothing to the line."""
    chests, out = Path(sys.argv[1]), Path(sys.argv[2])
    began = time.monotonic()
    others = sorted(str(folder) for folder in chests.iterdir() if folder.name != LEARNT)
    for command in prepared(str(chests), " ".join(others), str(out)):
        typed(command)
    one = CaseFolder.open(out / "one")
    scan = one.volume(one.cases[0])
    # Its middle at 0 mm, where reconstructions have theirs: radiographs do not tell where a patient lay.
    write(replace(scan, affine=centred(scan.shape, scan.spacing)), out / "truth.nii.gz")
    for command in reconstructed(str(out)):
        typed(command)
    scores = Scores.read(out / "report" / "scores.json")
    figures = {
        subject: {metric: scores.get(subject, metric).value for metric in ("psnr", "ssim", "mae")}
        for subject in (MADE, MEAN)
    }
    gain = figures[MADE]["psnr"] - figures[MEAN]["psnr"]
    residuals = json.loads((out / "made.nii.gz.reconstruction.json").read_text())["residuals"]
    record = {
        "command": "python docs/one_chest.py CHESTS OUT",
        "commands": [*prepared("CHESTS", "OTHERS", "OUT"), *reconstructed("OUT")],
        "seed": 0, "seconds": round(time.monotonic() - began),
        "versions": json.loads((out / "run" / "environment.json").read_text())["versions"],
        "figures": figures, "gain_db": gain, "residuals": residuals,
    }  # fmt: skip
    (DOCS / "one-chest.json").write_text(json.dumps(record, indent=1) + "\n")
    scans = [read(out / name) for name in ("truth.nii.gz", "made.nii.gz")]
    views.beside([views.three_planes(scan, FULL, size=220) for scan in scans]).save(
        DOCS / "images" / "one-chest.png", optimize=True
    )
    made, mean = (f"{one['psnr']:.1f} dB, SSIM {one['ssim']:.3f}" for one in figures.values())
    filled(
        "reconstruct.md", START, f"PSNR {made}; the mean of the other chests on the same grid {mean}: {gain:.1f} dB."
    )


if __name__ == "__main__":
    main()
