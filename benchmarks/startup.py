"""How long `tomogen --help` takes, beside `import torch`: whole processes, interleaved, medians.

    python benchmarks/startup.py [--rounds 11]

Claim: at most 0.2 s where `import torch` takes 1.8. JSON beside this file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "tomogen --help": [sys.executable, "-m", "tomogen", "--help"],
    "tomogen train --help": [sys.executable, "-m", "tomogen", "train", "--help"],
    "import tomogen": [sys.executable, "-c", "import tomogen"],
    "import torch": [sys.executable, "-c", "import torch"],
    "python -c pass": [sys.executable, "-c", "pass"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():  # warm the disk's cache
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            taken[name].append(time.perf_counter() - start)
    seconds = {name: round(statistics.median(times), 3) for name, times in taken.items()}
    ratio = round(seconds["import torch"] / seconds["tomogen --help"], 1)
    result = {"rounds": rounds, "median_seconds": seconds, "torch_over_help": ratio}
    print(json.dumps(result, indent=1))
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
