"""What one real optimiser step of `vae3d` takes at each size: peak memory and time, each in a process of its own.

The last step is timed; the peak is that of all, optimizer state and weight averages included. Run it where nothing
else runs; a row that the machine's free memory could not hold is left out, and said to be.

    python benchmarks/vae_memory.py            # writes benchmarks/vae_memory.json
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from tomogen.batch import Batch
from tomogen.recipe import Recipe
from tomogen.synthesizer import Turn
from tomogen.training.allocator import keep_freed_memory
from tomogen.training.devices import fabric_of
from tomogen.training.trainer import Game

ROWS = (
    ((64, 128, 128), "fp32", False, None),
    ((64, 128, 128), "bf16", False, None),
    ((64, 128, 128), "bf16", True, None),
    ((64, 256, 256), "fp32", False, 24),
    ((64, 256, 256), "bf16", False, None),
    ((64, 256, 256), "bf16", True, 12),
    ((64, 512, 512), "bf16", True, 18),
)
"""Size, precision, checkpointing, and the peak in GiB that was promised."""


def one(shape: tuple[int, ...], precision: str, checkpointing: bool, steps: int) -> dict[str, float]:
    """So many steps in this process."""
    keep_freed_memory()
    sides = [f"model.shape={list(shape)}", f"model.checkpointing={str(checkpointing).lower()}"]
    recipe = Recipe.load("vae3d", [*sides, f'training.precision="{precision}"'])
    torch.manual_seed(0)
    game = Game(recipe.build(), recipe, fabric_of("cpu", precision=precision))
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for number in range(steps):
        wall, core = time.perf_counter(), time.process_time()
        game.play(Turn("autoencoder"), Batch(image, {}, (number,)), number, 0)
        game.average.update(number)
        taken = {"wall s": time.perf_counter() - wall, "core s": time.process_time() - core}
    return {"peak GiB": peak() / 2**30} | taken


def peak() -> int:
    """Peak resident bytes of this process; `ru_maxrss` would begin at the parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def free() -> int:
    """Bytes that a new process can have."""
    return 1024 * int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", type=int, help="a row, in this process")
    parser.add_argument("--steps", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(one(*ROWS[arguments.one][:3], arguments.steps)))
        return
    table = []
    for number, (shape, precision, checkpointing, promised) in enumerate(ROWS):
        row = {"shape": list(shape), "precision": precision, "checkpointing": checkpointing, "promised GiB": promised}
        if free() < (promised or 12) * 2**30 / 2:
            row["left out"] = f"{free() / 2**30:.1f} GiB free"
        else:
            command = [sys.executable, __file__, "--one", str(number), "--steps", str(arguments.steps)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            row |= json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": done.returncode}
        table.append(row)
        print(json.dumps(row), flush=True)
    plain, checkpointed = ({r["checkpointing"]: r for r in table[4:6]}.get(way, {}) for way in (False, True))
    result = {
        "what": "one optimiser step of vae3d at batch 1: losses, backward, Adam, average",
        "rows": table,
        "checkpointed over plain, core s, 64 x 256 x 256 bf16": checkpointed["core s"] / plain["core s"]
        if "core s" in plain and "core s" in checkpointed
        else None,
        "steps": arguments.steps,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
