"""One `wgan3d` step (a critic turn and a generator turn, 64^3, batch 4) against the same layer graph written plainly.

Plain is eager float32 as a first draft would have it: `Upsample` and `Conv3d`, two calls of the critic, a generator
that keeps its graph in the critic's turn, a critic that collects gradients in the generator's, Adam as it comes,
memory as the system hands it out. Both start from the same weights and must give the same images, scores and losses
before anything is timed. Steps are interleaved; peak memory is taken in processes of their own.

    python benchmarks/wgan3d_step.py            # writes benchmarks/wgan3d_step.json
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
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.batch import Batch
from tomogen.recipe import Recipe
from tomogen.synthesizer import Synthesizer, Turn
from tomogen.training.allocator import keep_freed_memory
from tomogen.training.devices import fabric_of
from tomogen.training.trainer import Game

BATCH = 4
ADAM = {"lr": 2e-4, "betas": (0.5, 0.9)}


class PlainNorm(nn.Module):
    """The generator's norm, by torch's own layer norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Each voxel's features to mean 0 and variance 1."""
        return F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias).movedim(-1, 1)


def plain_generator() -> nn.Module:
    """The generator of `wgan3d`."""
    layers: list[nn.Module] = [nn.Linear(1000, 512 * 64), nn.Unflatten(1, (512, 4, 4, 4)), PlainNorm(512), nn.ReLU()]
    for a, b in ((512, 256), (256, 128), (128, 64)):
        layers += [nn.Upsample(scale_factor=2), nn.Conv3d(a, b, 3, padding=1, bias=False), PlainNorm(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Upsample(scale_factor=2), nn.Conv3d(64, 1, 3, padding=1, bias=False), nn.Tanh())


def plain_critic() -> nn.Module:
    """The critic of `wgan3d`."""
    layers: list[nn.Module] = []
    for a, b in ((1, 64), (64, 128), (128, 256), (256, 512)):
        layers += [nn.Conv3d(a, b, 4, 2, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 64, 1, bias=False))


class Plain:
    """The step as a first draft has it."""

    def __init__(self) -> None:
        self.generator, self.critic = plain_generator(), plain_critic()
        self.optimizers = [torch.optim.Adam(net.parameters(), **ADAM) for net in (self.critic, self.generator)]

    def take(self, other: Synthesizer) -> None:
        """The other way's weights."""
        for mine, theirs in ((self.generator, other.generator), (self.critic, other.critic)):
            for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
                a.data.copy_(b.data)

    def step(self, batch: Batch) -> tuple[float, float]:
        """A critic turn and a generator turn; their losses."""
        real, share = batch.image, batch.uniform("share")
        self.optimizers[0].zero_grad()
        fake = self.generator(batch.normal("noise critic", 1000)).detach()
        loss = self.critic(fake).mean() - self.critic(real).mean()
        between = (share.view(-1, 1, 1, 1, 1) * real + (1 - share.view(-1, 1, 1, 1, 1)) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        critic_loss = loss + 10 * ((slope.flatten(1).norm(2, 1) - 1) ** 2).mean()
        critic_loss.backward()
        self.optimizers[0].step()
        self.optimizers[1].zero_grad()
        generator_loss = -self.critic(self.generator(batch.normal("noise generator", 1000))).mean()
        generator_loss.backward()
        self.optimizers[1].step()
        return critic_loss.item(), generator_loss.item()


class Fast:
    """The step as the house trains it."""

    def __init__(self, precision: str = "bf16") -> None:
        recipe = Recipe.load("wgan3d")
        recipe = replace(recipe, training=replace(recipe.training, average=None))  # the plain way keeps none
        self.model = recipe.build()
        self.game = Game(self.model, recipe, fabric_of("cpu", precision=precision))

    def step(self, batch: Batch) -> tuple[float, float]:
        """A critic turn and a generator turn; their losses."""
        losses = [sum(self.game.play(Turn(player), batch).values()).item() for player in self.model.players]
        return losses[0], losses[1]


def batch() -> Batch:
    """Random images; both ways draw the same noise by their seeds."""
    draw = torch.Generator().manual_seed(1)
    return Batch(torch.rand(BATCH, 1, 64, 64, 64, generator=draw) * 2 - 1, {}, tuple(range(BATCH)))


def check() -> dict[str, float]:
    """Largest relative differences of the two losses after a step from equal weights, in float32 and bfloat16."""
    found = {}
    for name, precision, limit in (("float32", "fp32", 1e-3), ("bfloat16", "bf16", 3e-2)):
        torch.manual_seed(0)
        fast, plain = Fast(precision), Plain()
        plain.take(fast.model)
        ours, theirs = fast.step(batch()), plain.step(batch())
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
        assert process.stdout is not None
        process.stdout.readline()
    for _ in range(arguments.repeats):
        for way, process in ways.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            rows[way].append(json.loads(process.stdout.readline()))
    medians = {way: [statistics.median(column) for column in zip(*found, strict=True)] for way, found in rows.items()}
    result = {
        "what": "wgan3d, 64^3, batch 4, one critic and one generator turn; plain eager float32 / as trained (bfloat16)",
        "largest relative difference of the losses": equal,
        "ratio of process CPU time": medians["plain"][1] / medians["fast"][1],
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
