"""A step of `stylegan2` (64 x 64, batch 16) against the same networks written plainly.

Plain is eager float32 as a first draft would have it: a convolution with a weight for each image, in groups; filters
with torch's own gradients; the images of the discriminator's turn made anew, with a graph that is then thrown away; a
discriminator that collects gradients in the generator's turn; Adam as it comes; memory as the system hands it out.
Both start from the same weights and must have the same losses before anything is timed.

A step is a turn of each player, a quarter of a turn on path lengths and a sixteenth of one on slopes; each kind of turn
is timed by itself, both ways in turns, each way in a process of its own.

    python benchmarks/stylegan2_step.py            # writes benchmarks/stylegan2_step.json
"""

import argparse
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
from tomogen.layers.equalised import GAIN
from tomogen.layers.style import StyledConv, StyledImage
from tomogen.models.stylegan2 import Halving, Model
from tomogen.recipe import Recipe
from tomogen.synthesizer import Turn
from tomogen.training.allocator import keep_freed_memory
from tomogen.training.devices import fabric_of
from tomogen.training.trainer import Game

BATCH = 16
TURNS = {"generator": 1.0, "discriminator": 1.0, "path": 1 / 4, "slope": 1 / 16}
"""Kinds of turns, and how many of each a step has."""


def filtered(x: Tensor, padding: int, stride: int = 1, gain: float = 1.0) -> Tensor:
    """[1, 3, 3, 1] along both axes, by a depthwise convolution."""
    taps = torch.tensor([1.0, 3, 3, 1]) / 8
    return F.conv2d(x, (gain * taps[:, None] * taps).repeat(x.shape[1], 1, 1, 1), None, stride, padding, 1, x.shape[1])


class PlainConv(StyledConv):
    """A weight for each image, modulated and demodulated; all images as one, their convolutions as groups."""

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """As of the class above."""
        count, inside, height, width = x.shape
        weight = self.weight * self.style(w).view(count, 1, inside, 1, 1) * self.scale
        weight = weight * torch.rsqrt(weight.square().sum([2, 3, 4], keepdim=True) + 1e-8)
        x = x.reshape(1, count * inside, height, width)
        if self.up:
            x = F.conv_transpose2d(x, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=count)
        else:
            x = F.conv2d(x, weight.flatten(0, 1), padding=1, groups=count)
        x = x.view(count, -1, *x.shape[2:])
        if self.up:
            x = filtered(x, 1, gain=4)
        return F.leaky_relu(x + noise * self.strength + self.bias.view(-1, 1, 1), 0.2) * GAIN


class PlainImage(StyledImage):
    """A weight for each image, in groups."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """As of the class above."""
        count, inside, height, width = x.shape
        weight = (self.style(w) * self.weight * self.scale).view(count, inside, 1, 1)
        return F.conv2d(x.reshape(1, -1, height, width), weight, groups=count).view(count, 1, height, width) + self.bias


class PlainHalving(Halving):
    """With torch's own gradients of the filters."""

    def forward(self, x: Tensor) -> Tensor:
        """As of the class above."""
        main = filtered(self.act(self.conv(x)), 2)
        return self.skip(filtered(x, 1, 2)) + self.act(self.down(main))


class PlainModel(Model):
    """The game, with nothing handed on from turn to turn."""

    def handed(self, batch: Batch) -> Tensor:
        """Images made anew."""
        return self.generator(*self._drawn(batch, "image")).detach()


PLAIN = {StyledConv: PlainConv, StyledImage: PlainImage, Halving: PlainHalving}


class Plain:
    """The turns as a first draft has them."""

    def __init__(self) -> None:
        self.model = PlainModel(Recipe.load("stylegan2").config)
        for module in self.model.modules():
            module.__class__ = PLAIN.get(type(module), type(module))
            if hasattr(module, "act"):
                module.act = nn.LeakyReLU(0.2)
        recipe = Recipe.load("stylegan2")
        self.optimizers = {}
        for player in self.model.players:
            given = recipe.optimizer_of(player)
            parameters = self.model.get_submodule(player).parameters()
            self.optimizers[player] = torch.optim.Adam(parameters, given.lr, given.betas, given.eps)

    def play(self, turn: Turn, batch: Batch) -> float:
        """A turn; its loss."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        loss = torch.stack(list(self.model(turn, batch).values())).sum()
        loss.backward()
        self.optimizers[turn.player].step()
        self.model.after(turn)
        return loss.item()


class Fast:
    """The turns as the house trains them."""

    def __init__(self, precision: str = "bf16") -> None:
        recipe = Recipe.load("stylegan2", [f"training.batch={BATCH}"])
        recipe = replace(recipe, training=replace(recipe.training, average=None))  # the plain way keeps none
        self.model = recipe.build()
        self.game = Game(self.model, recipe, fabric_of("cpu", precision=precision))

    def play(self, turn: Turn, batch: Batch) -> float:
        """A turn; its loss."""
        return sum(self.game.play(turn, batch, 0, 0).values()).item()


def batch(count: int = BATCH) -> Batch:
    """Random images; both ways draw the same noise by their seeds."""
    draw = torch.Generator().manual_seed(1)
    return Batch(torch.rand(count, 1, 64, 64, generator=draw) * 2 - 1, {}, tuple(range(count)))


def turns() -> dict[str, Turn]:
    """The four kinds, as the first step has them."""
    found = list(Model(Recipe.load("stylegan2").config).turns(0))
    return {turn.player if turn.kind == "play" else turn.kind: turn for turn in found}


def check() -> dict[str, float]:
    """Largest relative differences of the losses of a step from equal weights, in float32 and bfloat16."""
    found = {}
    for name, precision, limit in (("float32", "fp32", 2e-3), ("bfloat16", "bf16", 5e-2)):
        torch.manual_seed(0)
        fast, plain = Fast(precision), Plain()
        born = {key: tensor.clone() for key, tensor in fast.model.state_dict().items()}
        pairs, kinds = [], turns()
        for turn in kinds.values():  # each from the first weights: one way hands images on, the other makes new ones
            for player in (fast, plain):
                player.model.load_state_dict(born)
            if turn.player == "discriminator":
                fast.model(kinds["generator"], batch(4))  # hands images on
            pairs.append((fast.play(turn, batch(4)), plain.play(turn, batch(4))))
        found[name] = max(abs(a - b) / max(abs(b), 0.1) for a, b in pairs)
        assert found[name] < limit, (name, pairs)
    return found


def one(way: str) -> None:
    """Time a turn of each kind of one way in this process, for every line of stdin; say seconds and peak memory."""
    if way == "fast":
        keep_freed_memory()
    torch.manual_seed(0)
    player: Plain | Fast = Plain() if way == "plain" else Fast()
    data, kinds = batch(), turns()
    player.play(kinds["generator"], data)
    print("ready", flush=True)
    for _ in sys.stdin:
        spent = {}
        for kind, turn in kinds.items():
            core = time.process_time()
            player.play(turn, data)
            spent[kind] = time.process_time() - core
        print(json.dumps([spent, peak()]), flush=True)


def peak() -> int:
    """Peak resident bytes of this process; `ru_maxrss` would begin at the parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def step_of(spent: dict[str, float]) -> float:
    """Core seconds of a step, in the mean."""
    return sum(share * spent[kind] for kind, share in TURNS.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=["plain", "fast"])
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one)
        return
    equal = check()
    ways = {
        way: subprocess.Popen(
            [sys.executable, __file__, "--one", way], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for way in ("plain", "fast")
    }
    rows: dict[str, list[tuple[dict[str, float], int]]] = {way: [] for way in ways}
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
    for process in ways.values():
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    ratios = [step_of(plain[0]) / step_of(fast[0]) for plain, fast in zip(rows["plain"], rows["fast"], strict=True)]
    result = {
        "what": "stylegan2, 64 x 64, batch 16, a step in the mean; plain eager float32 / as trained (bfloat16)",
        "largest relative difference of the losses": equal,
        "ratio of process CPU time": statistics.median(ratios),
        "ratios": ratios,
        **{
            way: {
                "core s of a step": statistics.median(step_of(spent) for spent, _ in found),
                **{f"core s of {kind}": statistics.median(spent[kind] for spent, _ in found) for kind in TURNS},
                "peak bytes": max(most for _, most in found),
            }
            for way, found in rows.items()
        },
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
