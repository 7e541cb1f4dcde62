"""The pictures of README, from a folder that `tomogen demo` made: `python docs/pictures.py demo`."""

import sys
from pathlib import Path

from PIL import Image

from tomogen.cases.folder import CaseFolder
from tomogen.formats import read
from tomogen.formats.pictures import views
from tomogen.intensity import FULL

IMAGES = Path(__file__).parent / "images"


def main(demo: Path) -> None:
    """Write demo-cases.png, demo-samples.png and demo-progress.gif."""
    cases = CaseFolder.open(demo / "cases")
    learnt = [cases.volume(case) for case in cases.of("train")[:4]]
    made = [read(path) for path in sorted((demo / "samples").glob("*.nii.gz"))[:4]]
    for volumes, name in ((learnt, "demo-cases.png"), (made, "demo-samples.png")):
        rows = [views.three_planes(volume, FULL, size=128) for volume in volumes]
        width, height = rows[0].size
        sheet = Image.new("L", (2 * width, 2 * height))
        for index, row in enumerate(rows):
            sheet.paste(row.convert("L"), (index % 2 * width, index // 2 * height))
        sheet.save(IMAGES / name, optimize=True)
    frames = [Image.open(path).convert("L") for path in sorted((demo / "run" / "previews").glob("step-*.png"))[::2]]
    small = [
        frame.crop((0, 0, frame.width, frame.height // 2)).resize((frame.width // 2, frame.height // 4))
        for frame in frames
    ]
    small[0].save(
        IMAGES / "demo-progress.gif", save_all=True, append_images=small[1:] + [small[-1]] * 6, duration=200, loop=0
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
