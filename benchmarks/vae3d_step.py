"""One `vae3d` step (64 x 128 x 128, batch 1) against the same layer graph written plainly.

Plain is eager float32 as a first draft would have it: `Upsample` and `Conv3d`, torch's own layer norm and leaky ReLU,
a similarity of five maps under a dense window, Adam as it comes, memory as the system hands it out. Both start from the
same weights and must give the same loss before anything is timed. Steps are interleaved.

    python benchmarks/vae3d_step.py            # writes benchmarks/vae3d_step.json
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.batch import Batch
from tomogen.recipe import Recipe
from tomogen.synthesizer import Turn
from tomogen.training.allocator import keep_freed_memory
from tomogen.training.devices import fabric_of
from tomogen.training.trainer import Game

SHAPE = (64, 128, 128)
CHECKED = (32, 64, 64)
"""Where the two are compared: the weights are the same at any size."""
WIDTHS, FINE, LATENT = (64, 128, 256, 512), 16, 32


class PlainNorm(nn.Module):
    """The norm, by torch's own layer norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Each voxel's features to mean 0 and variance 1."""
        return F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias).movedim(-1, 1)


class PlainResidual(nn.Module):
    """Norm, leaky ReLU, convolution, twice, and what came in."""

    def __init__(self, c: int) -> None:
        super().__init__()
        layers = [PlainNorm(c), nn.LeakyReLU(0.2), nn.Conv3d(c, c, 3, padding=1)]
        layers += [PlainNorm(c), nn.LeakyReLU(0.2), nn.Conv3d(c, c, 3, padding=1)]
        self.branch = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x + self.branch(x)


def up(a: int, b: int) -> list[nn.Module]:
    """Features to twice their size."""
    return [PlainNorm(a), nn.LeakyReLU(0.2), nn.Upsample(scale_factor=2), nn.Conv3d(a, b, 3, padding=1)]


class PlainAutoencoder(nn.Module):
    """The networks of `vae3d`, parameter by parameter in the same order."""

    def __init__(self) -> None:
        super().__init__()
        encoder: list[nn.Module] = []
        for a, b in pairwise((1, *WIDTHS)):
            encoder += [nn.Conv3d(a, b, 4, 2, 1), PlainResidual(b)]
        encoder += [PlainNorm(WIDTHS[-1]), nn.LeakyReLU(0.2), nn.Conv3d(WIDTHS[-1], 2 * LATENT, 3, padding=1)]
        decoder: list[nn.Module] = [nn.Conv3d(LATENT, WIDTHS[-1], 3, padding=1), PlainResidual(WIDTHS[-1])]
        for a, b in pairwise(WIDTHS[::-1]):
            decoder += [*up(a, b), PlainResidual(b)]
        decoder += [*up(WIDTHS[0], FINE), nn.LeakyReLU(0.2), nn.Conv3d(FINE, 1, 3, padding=1)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)


def plain_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Wang et al. 2004 as it is mostly written, at every second window."""
    place = torch.arange(11.0) - 5
    line = (-((place / 1.5) ** 2) / 2).exp()
    line = line / line.sum()
    window = (line[:, None, None] * line[:, None] * line)[None, None]

    def mean(values: Tensor) -> Tensor:
        return F.conv3d(values, window, stride=2)

    x, y = (x + 1) / 2, (y + 1) / 2
    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y, both = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2, mean(x * y) - mu_x * mu_y
    top = (2 * mu_x * mu_y + 1e-4) * (2 * both + 9e-4)
    return (top / ((mu_x**2 + mu_y**2 + 1e-4) * (var_x + var_y + 9e-4))).mean()


class Plain:
    """The step as a first draft has it."""

    def __init__(self) -> None:
        self.networks = PlainAutoencoder()
        self.optimizer = torch.optim.Adam(self.networks.parameters(), lr=3e-4)

    def take(self, other: nn.Module) -> None:
        """The other way's weights."""
        for a, b in zip(self.networks.parameters(), other.parameters(), strict=True):
            a.data.copy_(b.data)

    def step(self, batch: Batch) -> float:
        """One move; its loss."""
        self.optimizer.zero_grad()
        mean, log_variance = self.networks.encoder(batch.image).chunk(2, 1)
        noise = batch.normal("code", *mean.shape[1:])
        image = self.networks.decoder(mean + (log_variance / 2).exp() * noise)
        kl = (0.5 * (mean**2 + log_variance.exp() - log_variance - 1)).flatten(2).mean(2).clamp(min=0.02)
        kl = kl.sum() * mean[0, 0].numel() / batch.image.numel()
        loss = (image - batch.image).abs().mean() + 0.02 * kl + 0.2 * (1 - plain_ssim(image, batch.image))
        loss.backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()


class Fast:
    """The step as the house trains it."""

    def __init__(self, shape: tuple[int, ...] = SHAPE, precision: str = "bf16") -> None:
        recipe = Recipe.load("vae3d", ["model.kl_steps=0", f"model.shape={list(shape)}"])
        recipe = replace(recipe, training=replace(recipe.training, average=None))  # the plain way keeps none
        self.model = recipe.build()
        self.game = Game(self.model, recipe, fabric_of("cpu", precision=precision))

    def step(self, batch: Batch) -> float:
        """One move; its loss."""
        return sum(self.game.play(Turn("autoencoder"), batch, 0, 0).values()).item()


def batch(shape: tuple[int, ...] = SHAPE) -> Batch:
    """A random image; both ways draw the same noise by its seed."""
    coarse = torch.rand(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch(F.interpolate(coarse, shape, mode="trilinear"), {}, (0,))


def check() -> dict[str, float]:
    """Relative difference of the losses from equal weights: of two steps in float32, of the first in bfloat16."""
    found = {}
    for name, precision, limit, steps in (("float32", "fp32", 1e-3, 2), ("bfloat16", "bf16", 1e-2, 1)):
        torch.manual_seed(0)
        fast, plain = Fast(CHECKED, precision), Plain()
        plain.take(fast.model.autoencoder)
        ours, theirs = ([way.step(batch(CHECKED)) for _ in range(steps)] for way in (fast, plain))
        found[name] = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
        assert found[name] < limit, (name, ours, theirs)
    return found


def timed(step: Callable[[Batch], object], data: Batch) -> tuple[float, float]:
    """Wall and process CPU seconds."""
    wall, core = time.perf_counter(), time.process_time()
    step(data)
    return time.perf_counter() - wall, time.process_time() - core


def one(way: str, steps: int) -> None:
    """Time `steps` steps of one way in this process, one for every line of stdin, and say the peak memory."""
    if way == "fast":
        keep_freed_memory()
    torch.manual_seed(0)
    player: Plain | Fast = Plain() if way == "plain" else Fast()
    data = batch()
    timed(player.step, data)
    print("ready", flush=True)
    for _ in range(steps):
        sys.stdin.readline()
        wall, core = timed(player.step, data)
        print(json.dumps([wall, core, peak()]), flush=True)


def peak() -> int:
    """Peak resident bytes of this process; `ru_maxrss` would begin at the parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", choices=["plain", "fast"])
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one, arguments.repeats)
        return
    equal = check()
    # One process per way, so that each has its own allocator and its own peak; they take turns, never at once.
    ways = {
        way: subprocess.Popen(
            [sys.executable, __file__, "--one", way, "--repeats", str(arguments.repeats)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for way in ("plain", "fast")
    }  # fmt: skip
    rows: dict[str, list[list[float]]] = {way: [] for way in ways}
    for process in ways.values():
        while (line := process.stdout.readline()) and line.strip() != "ready":
            pass
    for _ in range(arguments.repeats):
        for way, process in ways.items():
            process.stdin.write("\n")
            process.stdin.flush()
            rows[way].append(json.loads(process.stdout.readline()))
    medians = {way: [statistics.median(column) for column in zip(*found, strict=True)] for way, found in rows.items()}
    ratios = [plain[1] / fast[1] for plain, fast in zip(rows["plain"], rows["fast"], strict=True)]
    result = {
        "what": "vae3d, 64 x 128 x 128, batch 1, one step; plain eager float32 / as trained (bfloat16)",
        "largest relative difference of the losses": equal,
        "ratio of process CPU time": statistics.median(ratios),
        "ratio of each pair": ratios,
        "ratio of wall time": medians["plain"][0] / medians["fast"][0],
        "plain": dict(zip(("wall s", "core s", "peak bytes"), medians["plain"], strict=True)),
        "fast": dict(zip(("wall s", "core s", "peak bytes"), medians["fast"], strict=True)),
        "repeats": arguments.repeats,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "amx": torch.cpu._is_amx_tile_supported(),
        "torch": torch.__version__,
    }
    text = json.dumps(result, indent=2)
    Path(__file__).with_suffix(".json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
