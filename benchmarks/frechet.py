"""Frechet distance of 2048 features at n = 50 against MONAI's FIDMetric in one run.

The claim: at least 50 times MONAI's speed, equal to 1e-6. With n <= d both covariances are singular, where the root of
a 2048 x 2048 matrix is itself off (here 2e-7 relative; 2e-4 absolute has been seen at d = 512). So both are held
against a value of 40 digits, from the singular values of A1 A2^T by mpmath, and against each other where both
covariances have full rank. Rounds are interleaved, medians given.

    python benchmarks/frechet.py            # writes benchmarks/frechet.json
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import monai
import mpmath
import numpy as np
import torch
from monai.metrics import FIDMetric
from numpy.typing import NDArray

from tomogen.evaluation.distances.frechet import frechet

FEATURES, ROWS = 2048, 50
CLAIM, EQUAL = 50.0, 1e-6

Rows = NDArray[np.float64]


def features(n: int, d: int, seed: int, common: float) -> Rows:
    """Positive rows as a network's: of unlike variances, and with a part that they share."""
    generator = np.random.default_rng(seed)
    scale = 1 + np.arange(d) % 8 / 8
    return np.abs(generator.standard_normal((n, d)) * scale + common * generator.standard_normal((n, 1)) + 0.5)


def with_monai(real: Rows, made: Rows) -> float:
    return float(FIDMetric()(torch.from_numpy(made), torch.from_numpy(real)))


def accurate(real: Rows, made: Rows) -> float:
    """The distance in 40 digits, of float64 rows."""
    with mpmath.workdps(40):
        means, roots = [], []
        for rows in (real, made):
            exact = mpmath.matrix(rows.tolist())
            mean = [mpmath.fsum(exact[i, j] for i in range(exact.rows)) / exact.rows for j in range(exact.cols)]
            means.append(mean)
            divisor = mpmath.sqrt(exact.rows - 1)
            roots.append([[(exact[i, j] - mean[j]) / divisor for j in range(exact.cols)] for i in range(exact.rows)])
        a, b = roots
        product = mpmath.matrix([[mpmath.fdot(x, y) for y in b] for x in a])
        spread = sum(mpmath.fdot(x, x) for x in a + b) - 2 * mpmath.fsum(mpmath.svd_r(product, compute_uv=False))
        return float(spread + mpmath.fsum((p - q) ** 2 for p, q in zip(*means, strict=True)))


def timed(function: Callable[[Rows, Rows], float], *rows: Rows) -> tuple[float, float]:
    began = time.perf_counter()
    value = function(*rows)
    return time.perf_counter() - began, value


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = features(ROWS, FEATURES, 0, 0.5), features(ROWS, FEATURES, 1, 0.25)
    full = features(1000, 128, 2, 0.5), features(1000, 128, 3, 0.25)
    ways: dict[str, Callable[[Rows, Rows], float]] = {"tomogen": frechet, "MONAI": with_monai}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    values: dict[str, float] = {}
    for way in ways.values():
        way(*full)  # what a first call sets up is nobody's cost
    for _ in range(options.rounds):
        for name, way in ways.items():
            taken, values[name] = timed(way, *rows)
            seconds[name].append(taken)
    truth = accurate(*rows)
    off = {name: abs(value / truth - 1) for name, value in values.items()}
    apart = abs(frechet(*full) / with_monai(*full) - 1)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    ratio = median["MONAI"] / median["tomogen"]
    report = {
        "claim": f"{FEATURES} features, n = {ROWS}: at least {CLAIM:g} times MONAI's FIDMetric, equal to {EQUAL:g}",
        "met": ratio >= CLAIM and off["tomogen"] <= EQUAL and apart <= EQUAL,
        "seconds": {name: round(value, 4) for name, value in median.items()},
        "ratio": round(ratio, 1),
        "value": {name: round(value, 9) for name, value in values.items()} | {"40 digits": round(truth, 9)},
        "relative_error_with_singular_covariances": {name: float(f"{value:.1e}") for name, value in off.items()},
        "relative_difference_with_full_rank": float(f"{apart:.1e}"),
        "rounds": options.rounds,
        "threads": options.threads,
        "machine": f"{platform.system()} {platform.machine()}, numpy {np.__version__}, MONAI {monai.__version__}",
    }
    text = json.dumps(report, indent=1)
    Path(__file__).with_suffix(".json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
