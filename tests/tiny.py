"""Cases and a recipe so small that a training step takes milliseconds."""

from pathlib import Path
from typing import Any

import numpy as np

from tomogen.cases.folder import Case, CaseFolder, write_catalog, write_json, write_volume
from tomogen.cases.preparation import Preparation
from tomogen.training.launch import train
from tomogen.training.result import TrainResult
from tomogen.volume import Acquisition, affine_of

SIZE = 8

RECIPE = """# A 3D WGAN of a few hundred weights.
[model]
name = "wgan"
shape = [8, 8, 8]
latent = 4
doublings = 1
width = 2
widest = 4
critic_turns = 2

[training]
steps = 6
batch = 4
average = 0.9
checkpoint_every = 2
preview_every = 2

[optimizer]
lr = 1e-3
betas = [0.5, 0.9]
"""


def recipe(folder: Path, text: str = RECIPE) -> Path:
    """The tiny recipe as a file."""
    path = folder / "tiny.toml"
    path.write_text(text)
    return path


def cases(folder: Path, count: int = 6, size: int = SIZE) -> Path:
    """A folder of prepared cases: balls of soft tissue of various sizes in air."""
    (folder / "volumes").mkdir(parents=True)
    z, y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j, -1 : 1 : size * 1j]
    made = []
    for number in range(count):
        hu = np.where(z**2 + y**2 + x**2 < 0.4 + 0.1 * number, 40, -1000).astype(np.int16)
        name = f"case-{number:04d}"
        digest = write_volume(folder / "volumes" / f"{name}.npy", hu)
        write_json(folder / "volumes" / f"{name}.json", {"slices": list(range(size))})
        affine = tuple(tuple(row) for row in affine_of((4.0, 3.0, 3.0)).tolist())
        made.append(
            Case(
                id=name,
                patient=f"patient-{number:04d}",
                split="train",
                shape=(size, size, size),
                spacing=(4.0, 3.0, 3.0),
                affine=affine,
                acquisition=Acquisition(),
                slab=None,
                sha256=digest,
            )
        )
    write_catalog(folder, Preparation(shape=(size, size, size)), made, {})
    return folder


def folder(path: Path) -> CaseFolder:
    """Those cases, opened."""
    return CaseFolder.open(cases(path))


def trained(tmp_path: Path, out: str, **options: Any) -> TrainResult:
    """Train the tiny recipe on the tiny cases under `tmp_path`, on one thread."""
    if not (tmp_path / "cases").exists():
        cases(tmp_path / "cases")
        recipe(tmp_path)
    options = {"threads": 1, "device": "cpu"} | options
    return train(tmp_path / "tiny.toml", tmp_path / "cases", tmp_path / out, **options)
