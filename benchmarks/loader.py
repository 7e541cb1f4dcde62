"""Images that the loader can feed against images that `wgan3d` takes: 64^3, batch 4, five critic turns to one step.

The loader runs as it does in training, reading memory-mapped cases made here (noise: its content costs nothing else):
whole volumes, and random crops with shifts of volumes eight times as large. The step is the trainer's own, the recipe
as it is shipped. Rounds are interleaved, medians given, the disk's cache warm. The claim: at least three times.

    python benchmarks/loader.py            # writes benchmarks/loader.json
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from tomogen.batch import Batch
from tomogen.cases.folder import Case, CaseFolder, write_catalog, write_json, write_volume
from tomogen.cases.preparation import Preparation
from tomogen.cases.scans import Scans
from tomogen.cases.stream import stream
from tomogen.intensity import Window
from tomogen.recipe import Recipe
from tomogen.training.allocator import keep_freed_memory
from tomogen.training.trainer import Game, train
from tomogen.volume import Acquisition, affine_of

SHAPE, BATCH = (64, 64, 64), 4
CLAIM = 3.0


def cases(path: Path, size: int, count: int) -> CaseFolder:
    (path / "volumes").mkdir(parents=True)
    affine = tuple(tuple(row) for row in affine_of((2.0, 2.0, 2.0)).tolist())
    made = []
    for number in range(count):
        hu = np.random.default_rng(number).integers(-1000, 400, (size, size, size)).astype(np.int16)
        name = f"case-{number:04d}"
        digest = write_volume(path / "volumes" / f"{name}.npy", hu)
        write_json(path / "volumes" / f"{name}.json", {"slices": list(range(size))})
        made.append(
            Case(
                id=name, patient=name, split="train", shape=(size, size, size), spacing=(2.0, 2.0, 2.0), affine=affine,
                acquisition=Acquisition(), slab=None, sha256=digest,
            )
        )  # fmt: skip
    return write_catalog(path, Preparation(shape=(size, size, size)), made, {})


def batches(folder: CaseFolder, shift: int) -> Iterator[Batch]:
    return stream(Scans(folder, SHAPE, Window(), shift=shift), batch=BATCH, seed=0)


def fed(found: Iterator[Batch], count: int) -> float:
    """Images per second; the first batches, which wait already, are left out."""
    for _ in itertools.islice(found, 8):
        pass
    began = time.perf_counter()
    for _ in itertools.islice(found, count):
        pass
    return count * BATCH / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=200, help="that the loader makes in a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as place:
        whole, large = cases(Path(place) / "whole", 64, 64), cases(Path(place) / "large", 128, 16)
        recipe = Recipe.load("wgan3d", ["training.steps=1000000"])
        fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
        play = train(Game(recipe.build(), recipe, fabric), batches(whole, 0))
        taken = next(play).images  # the first step sets up what later ones reuse
        rates: dict[str, list[float]] = {"step": [], "whole volumes": [], "crops with shift": []}
        for _ in range(options.rounds):
            rates["whole volumes"].append(fed(batches(whole, 0), options.batches))
            rates["crops with shift"].append(fed(batches(large, 4), options.batches))
            began = time.perf_counter()
            next(play)
            rates["step"].append(taken / (time.perf_counter() - began))
    rate = {name: statistics.median(found) for name, found in rates.items()}
    ratios = {name: rate[name] / rate["step"] for name in rate if name != "step"}
    report = {
        "images_per_second": {name: round(value, 2) for name, value in rate.items()},
        "ratio": {name: round(value, 1) for name, value in ratios.items()},
        "claim": CLAIM,
        "reached": min(ratios.values()) >= CLAIM,
        "rounds": options.rounds,
        "threads": options.threads,
        "machine": f"{platform.system()} {platform.machine()}, torch {torch.__version__}, "
        f"{torch.backends.cpu.get_cpu_capability()}",
    }
    text = json.dumps(report, indent=1)
    Path(__file__).with_suffix(".json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
