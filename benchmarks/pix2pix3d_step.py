"""One `pix2pix3d` step (a turn of each player), at 128^3 and 16 x 512 x 512, against the same graph in plain torch.

Plain is eager float32 as a first draft would have it: `Upsample` and `Conv3d`, `InstanceNorm3d`, a discriminator that
collects gradients in the generator's turn and looks at real and made one after the other, Adam as it comes. Both start
from the same weights and must give the same losses (on small patches) before anything is timed. Each runs in a process
of its own, one after the other; both keep freed memory, as without that the plain slab spends most of its time on
page faults.

    python benchmarks/pix2pix3d_step.py                     # cube and slab; writes benchmarks/pix2pix3d_step.json
    python benchmarks/pix2pix3d_step.py --only cube --repeats 3
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.batch import Batch
from tomogen.models.pix2pix3d import Config
from tomogen.recipe import Recipe
from tomogen.training.allocator import keep_freed_memory
from tomogen.training.devices import fabric_of
from tomogen.training.trainer import Game

RECIPES = {"cube": "pix2pix3d_cube", "slab": "pix2pix3d"}
SMALL = {"cube": [32, 32, 32], "slab": [16, 64, 64]}
ADAM = {"lr": 2e-4, "betas": (0.5, 0.999)}


class PlainUp(nn.Module):
    """Nearest doubling and a convolution."""

    def __init__(self, inside: int, outside: int, deep: bool) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=(2.0 if deep else 1.0, 2.0, 2.0))
        self.conv = nn.Conv3d(inside, outside, (3 if deep else 1, 3, 3), padding=(1 if deep else 0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Twice the size."""
        return self.conv(self.up(x))


class PlainGenerator(nn.Module):
    """The U-Net of `pix2pix3d`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths, depths, count = config.widths, config.depths, len(config.windows)
        deep = [a != b for a, b in itertools.pairwise(depths)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (a, b) in enumerate(zip([count, *widths], widths, strict=False)):
            z = 2 if deep[level] else 1
            self.down.append(nn.Conv3d(a, b, (z, 4, 4), (z, 2, 2), (0, 1, 1)))
        self.norms = [level > 0 and config.voxels(level + 1) >= 4 for level in range(config.levels)]
        for level in range(config.levels - 1, 0, -1):
            inside = widths[level] * (1 if level == config.levels - 1 else 2)
            self.up.append(PlainUp(inside, widths[level - 1], deep[level]))
        self.image = PlainUp(2 * widths[0], count, deep[0])
        self.norm = [nn.InstanceNorm3d(width) for width in widths]

    def forward(self, x: Tensor) -> Tensor:
        """Windows of the other scan."""
        found = []
        for level, down in enumerate(self.down):
            x = F.leaky_relu(down(x), 0.2)
            x = self.norm[level](x) if self.norms[level] else x
            found.append(x)
        x = F.relu(found.pop())
        for level, up in zip(range(len(self.up) - 1, -1, -1), self.up, strict=True):
            x = F.relu(torch.cat([self.norm[level](F.relu(up(x))), found.pop()], 1))
        return torch.tanh(self.image(x))


class PlainDiscriminator(nn.Module):
    """The discriminator of `pix2pix3d`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = [2 * len(config.windows), *[config.judge_width * 2**level for level in range(4)]]
        self.convs = nn.ModuleList(nn.Conv3d(a, b, (2, 4, 4), 2, (0, 1, 1)) for a, b in itertools.pairwise(widths[:4]))
        self.convs.append(nn.Conv3d(widths[3], widths[4], (1, 4, 4), padding=(0, 1, 1)))
        self.convs.append(nn.Conv3d(widths[4], 1, (1, 4, 4), padding=(0, 1, 1)))
        self.norm = [nn.Identity(), *[nn.InstanceNorm3d(width) for width in widths[2:]]]

    def forward(self, made: Tensor, given: Tensor) -> Tensor:
        """Scores."""
        x = torch.cat([made, given], 1)
        for conv, norm in zip(self.convs, self.norm, strict=False):
            x = norm(F.leaky_relu(conv(x), 0.2))
        return self.convs[-1](x)


class Plain:
    """The step as a first draft has it."""

    def __init__(self, recipe: Recipe) -> None:
        self.config = recipe.config
        self.generator, self.discriminator = PlainGenerator(self.config), PlainDiscriminator(self.config)
        self.optimizers = [torch.optim.Adam(net.parameters(), **ADAM) for net in (self.generator, self.discriminator)]

    def take(self, other: "Fast") -> None:
        """The other way's weights."""
        for mine, theirs in (
            (self.generator, other.model.generator),
            (self.discriminator, other.model.discriminator),
        ):
            for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
                a.data.copy_(b.data)

    def windows(self, image: Tensor) -> Tensor:
        """The image through each window."""
        low, high = self.config.span
        hu = (image + 1) / 2 * (high - low) + low
        return torch.cat([((hu - a) / (b - a) * 2 - 1).clamp(-1, 1) for a, b in self.config.windows], 1)

    def step(self, batch: Batch) -> list[float]:
        """A turn of each; the loss terms."""
        given, true = self.windows(batch.condition["source"]), self.windows(batch.image)
        made = self.generator(given)
        scores = self.discriminator(made, given)
        terms = [100 * F.l1_loss(made, true), F.binary_cross_entropy_with_logits(scores, torch.ones_like(scores))]
        self.optimizers[0].zero_grad()
        sum(terms).backward()
        self.optimizers[0].step()
        real, fake = self.discriminator(true, given), self.discriminator(made.detach(), given)
        terms.append(F.binary_cross_entropy_with_logits(real, torch.ones_like(real)) / 2)
        terms.append(F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake)) / 2)
        self.optimizers[1].zero_grad()
        (terms[2] + terms[3]).backward()
        self.optimizers[1].step()
        return [term.item() for term in terms]


class Fast:
    """The step as the house trains it."""

    def __init__(self, recipe: Recipe, precision: str = "bf16") -> None:
        self.model = recipe.build()
        self.game = Game(self.model, recipe, fabric_of("cpu", precision=precision))

    def step(self, batch: Batch) -> list[float]:
        """A turn of each; the loss terms."""
        found: list[float] = []
        for index, turn in enumerate(self.model.turns(0)):
            found += [term.item() for term in self.game.play(turn, batch, 0, index).values()]
        return found


def recipe_of(kind: str, shape: list[int] | None = None) -> Recipe:
    """The recipe, with certain labels and no average of weights: the plain way has none."""
    changes = ["model.label_smoothing=0.0", *([f"model.shape={shape}", "model.levels=5"] if shape else [])]
    recipe = Recipe.load(RECIPES[kind], changes)
    return replace(recipe, training=replace(recipe.training, average=None))


def batch(shape: tuple[int, ...]) -> Batch:
    """A random pair."""
    draw = torch.Generator().manual_seed(1)
    source, target = (torch.rand(1, 1, *shape, generator=draw) * 2 - 1 for _ in range(2))
    return Batch(target, {"source": source}, (0,))


def check(kind: str) -> dict[str, float]:
    """Largest relative difference of a loss term in a step from equal weights, in float32 and bfloat16."""
    found = {}
    for name, precision, limit in (("float32", "fp32", 1e-3), ("bfloat16", "bf16", 3e-2)):
        torch.manual_seed(0)
        recipe = recipe_of(kind, SMALL[kind])
        fast, plain = Fast(recipe, precision), Plain(recipe)
        plain.take(fast)
        data = batch(recipe.config.shape)
        pairs = list(zip(fast.step(data), plain.step(data), strict=True))
        found[name] = max(abs(a - b) / abs(b) for a, b in pairs)
        assert found[name] < limit, (name, pairs)
    return found


def one(kind: str, way: str, repeats: int) -> None:
    """Time steps of one way in this process; a plain slab, which takes minutes, without a first one to warm up."""
    keep_freed_memory()
    torch.manual_seed(0)
    recipe = recipe_of(kind)
    player: Plain | Fast = Plain(recipe) if way == "plain" else Fast(recipe)
    data = batch(recipe.config.shape)
    if way == "fast":
        player.step(data)
    rows = []
    for _ in range(repeats):
        wall, core = time.perf_counter(), time.process_time()
        player.step(data)
        rows.append([time.perf_counter() - wall, time.process_time() - core])
    wall, core = (statistics.median(column) for column in zip(*rows, strict=True))
    print(json.dumps({"wall s": wall, "core s": core, "peak bytes": peak(), "steps": repeats}))


def peak() -> int:
    """Peak resident bytes of this process; `ru_maxrss` would begin at the parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def measured(kind: str, repeats: int) -> dict[str, object]:
    """Both ways and their ratio."""
    equal = check(kind)
    ways = {}
    for way in ("fast", "plain"):
        steps = 1 if way == "plain" else repeats
        command = [sys.executable, __file__, "--one", kind, way, "--repeats", str(steps)]
        ways[way] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {
        "what": f"{RECIPES[kind]}, batch 1, a turn of each; plain eager float32 / as trained (bfloat16)",
        "largest relative difference of the losses": equal,
        "ratio of process CPU time": ways["plain"]["core s"] / ways["fast"]["core s"],
        "ratio of wall time": ways["plain"]["wall s"] / ways["fast"]["wall s"],
        **ways,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", choices=list(RECIPES))
    parser.add_argument("--one", nargs=2)
    arguments = parser.parse_args()
    if arguments.one:
        one(*arguments.one, arguments.repeats)
        return
    path = Path(__file__).with_suffix(".json")
    known = json.loads(path.read_text()) if path.is_file() else {}
    for kind in [arguments.only] if arguments.only else list(RECIPES):
        known[kind] = measured(kind, arguments.repeats)
    known["machine"] = {
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "amx": torch.cpu._is_amx_tile_supported(),
        "torch": torch.__version__,
    }
    text = json.dumps(known, indent=2)
    path.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
