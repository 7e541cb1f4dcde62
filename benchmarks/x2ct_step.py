"""One `x2ct` step (generator, then discriminator) against the released layer graph written plainly, batch 1.

Plain is eager float32 as a first draft would have it: repeated maps at full size, torch's own norms, the views' own
outputs, a look at the real scan in the generator's turn, two calls of the discriminator in its own, Adam as it comes,
memory as the system hands it out. It has the released names, so both start from the same weights, and both must give
the same losses before anything is timed. Steps are interleaved; each way has a process of its own, for its memory.

    python benchmarks/x2ct_step.py              # writes benchmarks/x2ct_step.json: 128^3 and 64^3
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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomogen.adoption import discriminator_names, generator_names
from tomogen.batch import Batch
from tomogen.cases.xrays import shots
from tomogen.intensity import Window
from tomogen.phantoms.render import chest
from tomogen.recipe import Recipe
from tomogen.training.allocator import keep_freed_memory
from tomogen.training.devices import fabric_of
from tomogen.training.trainer import Game

DENSE = (6, 12, 24, 16, 6)
WIDTHS = (16, 16, 32, 64, 128, 256)
"""Of the decoder, from full size down."""
WAYS = ("plain", "fast", "checkpointed")
EXTENT = 320.0
"""mm along each side."""


class PlainDense(nn.Module):
    """A dense block."""

    def __init__(self, inside: int, layers: int) -> None:
        super().__init__()
        self.conv_block = nn.ModuleList()
        for number in range(layers):
            layer = nn.Module()
            layer.conv1 = nn.Conv2d(inside + 32 * number, 128, 1)
            layer.conv2 = nn.Conv2d(128, 32, 3, padding=1)
            self.conv_block.append(layer)

    def forward(self, x: Tensor) -> Tensor:
        """What came in and what each layer adds."""
        for layer in self.conv_block:
            new = layer.conv1(F.relu(F.instance_norm(x)))
            x = torch.cat([x, layer.conv2(F.relu(F.instance_norm(new)))], 1)
        return x


class PlainLink(nn.Module):
    """Connection B."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.compress_block = nn.Sequential(nn.Conv2d(inside, outside, 1), nn.InstanceNorm2d(outside), nn.ReLU())
        self.conv_block = nn.Sequential(
            nn.Conv3d(outside, outside, 3, padding=1), nn.InstanceNorm3d(outside), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features repeated along the depth."""
        x = self.compress_block(x)
        return self.conv_block(x.unsqueeze(2).repeat(1, 1, x.shape[-1], 1, 1))


def block(inside: int, outside: int) -> list[nn.Module]:
    return [nn.Conv3d(inside, outside, 3, padding=1), nn.InstanceNorm3d(outside), nn.ReLU()]


class PlainUp(nn.Module):
    """The released wrapper of a transposed convolution."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.block = nn.Module()
        self.block.block = nn.Sequential(
            nn.ConvTranspose3d(inside, outside, 3, 2, 1, 1), nn.InstanceNorm3d(outside), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Twice the size."""
        return self.block.block(x)


class PlainView(nn.Module):
    """One view's branch."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.encoder_layer = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(1, 64, 7), nn.InstanceNorm2d(64), nn.ReLU())
        maps = [64]
        for number, layers in enumerate(DENSE):
            a = maps[-1]
            whole = a + 32 * layers
            parts = [nn.InstanceNorm2d(a), nn.ReLU(), nn.Conv2d(a, a, 3, 2, 1), PlainDense(a, layers)]
            if number < 4:
                parts += [nn.InstanceNorm2d(whole), nn.ReLU(), nn.Conv2d(whole, whole // 2, 1)]
            else:
                parts += [nn.AdaptiveAvgPool2d(1)]
            self.add_module(f"encoder_layer{number}", nn.Sequential(*parts))
            maps.append(whole if number == 4 else whole // 2)
        self.seed = size // 32
        self.base_link = nn.Sequential(nn.Linear(maps[-1], 256 * self.seed**3), nn.Dropout(dropout), nn.ReLU())
        for level in range(5):
            self.add_module(f"linker_layer{level}", nn.Sequential(PlainLink(maps[level], WIDTHS[level])))
        self.add_module("decoder_layer4", nn.Sequential(PlainUp(256, 128)))
        for level in range(3, -1, -1):
            c, above = WIDTHS[level + 1], WIDTHS[level]
            self.add_module(f"decoder_compress_layer{level}", nn.Sequential(*block(2 * c, c)))
            self.add_module(f"decoder_layer{level}", nn.Sequential(*block(c, c), *block(c, c), PlainUp(c, above)))
        self.add_module("decoder_compress_layer-1", nn.Sequential(*block(32, 16)))
        self.add_module("decoder_layer-1", nn.Sequential(*block(16, 16)))
        self.decoder_layer = nn.Sequential(nn.Conv3d(16, 1, 7, padding=3), nn.ReLU())

    def part(self, name: str, *inputs: Tensor) -> Tensor:
        """A named part of what is given, concatenated."""
        return self.get_submodule(name)(torch.cat(inputs, 1) if len(inputs) > 1 else inputs[0])


class PlainGenerator(nn.Module):
    """The released biplanar generator."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.view1Model, self.view2Model = PlainView(size, dropout), PlainView(size, dropout)
        self.add_module("decoder_layer4", nn.Sequential(PlainUp(256, 128)))
        for level in range(3, -1, -1):
            c = WIDTHS[level + 1]
            self.add_module(
                f"decoder_layer{level}", nn.Sequential(*block(2 * c, c), *block(c, c), PlainUp(c, WIDTHS[level]))
            )
        self.add_module("decoder_layer-1", nn.Sequential(*block(32, 16), *block(16, 16)))
        self.decoder_layer = nn.Sequential(nn.Conv3d(16, 1, 7, padding=3), nn.ReLU())

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both views' volumes and the one of both."""
        views = [self.view1Model, self.view2Model]
        there, back = [(0, 1, 3, 2, 4), (0, 1, 4, 2, 3)], [(0, 1, 3, 2, 4), (0, 1, 3, 4, 2)]
        links, found = [], []
        for view, x in zip(views, pictures.split(1, 1), strict=True):
            x = view.encoder_layer(x)
            maps = [x]
            for number in range(5):
                x = view.part(f"encoder_layer{number}", x)
                maps.append(x)
            links.append([view.part(f"linker_layer{level}", maps[level]) for level in range(5)])
            found.append(view.base_link(x.flatten(1)).view(-1, 256, view.seed, view.seed, view.seed))
        main = None
        for level in range(4, -2, -1):
            if level < 4:
                found = [
                    view.part(f"decoder_compress_layer{level}", x, link[level + 1])
                    for view, x, link in zip(views, found, links, strict=True)
                ]
            average = (found[0].permute(back[0]) + found[1].permute(back[1])) / 2
            found = [
                view.part(f"decoder_layer{level}", average.permute(order))
                for view, order in zip(views, there, strict=True)
            ]
            joined = average if main is None else torch.cat([average, main], 1)
            main = self.get_submodule(f"decoder_layer{level}")(joined)
        sides = [view.decoder_layer(x).permute(o) for view, x, o in zip(views, found, back, strict=True)]
        return sides[0], sides[1], self.decoder_layer(main)


def plain_discriminator() -> nn.Module:
    """The released discriminator."""
    found = nn.Module()
    layers: list[nn.Module] = [nn.Conv3d(3, 64, 4, 2, 2), nn.LeakyReLU(0.2)]
    for a, b, stride in ((64, 128, 2), (128, 256, 2), (256, 512, 1)):
        layers += [nn.Conv3d(a, b, 4, stride, 2, bias=False), nn.InstanceNorm3d(b), nn.LeakyReLU(0.2)]
    found.model = nn.Sequential(*layers, nn.Conv3d(512, 1, 4, 1, 2))
    return found


class Plain:
    """The step as a first draft has it."""

    def __init__(self, size: int, dropout: float = 0.5) -> None:
        self.generator, self.discriminator = PlainGenerator(size, dropout), plain_discriminator()
        self.optimizers = [
            torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.99))
            for net in (self.generator, self.discriminator)
        ]

    def take(self, other: nn.Module) -> None:
        """The other way's weights, by the released names; what is computed in vain keeps its own."""
        for net, player, names in (
            (self.generator, "generator", generator_names(5, 2)),
            (self.discriminator, "discriminator", discriminator_names()),
        ):
            mine = dict(net.named_parameters())
            for name, parameter in other.get_submodule(player).named_parameters():
                mine[names[name]].data.copy_(parameter.data)

    def step(self, batch: Batch) -> dict[str, float]:
        """A generator turn and a discriminator turn; their losses."""
        pictures, real = (batch.condition["xrays"] + 1) / 2, (batch.image.flip(2) + 1) / 2
        n = real.shape[-1]
        given = torch.cat(
            [
                pictures[:, 0, None, :, None, :].expand(-1, -1, n, n, n),
                pictures[:, 1, None, :, :, None].expand(-1, -1, n, n, n),
            ],
            1,
        )
        judge = self.discriminator.model
        self.discriminator.requires_grad_(False)
        self.optimizers[0].zero_grad()
        fake = self.generator(pictures)[2]
        score = judge(torch.cat([given, fake], 1))
        judge(torch.cat([given, real], 1))  # as released, for a feature loss of weight 0
        losses = {
            "adversarial": 0.1 * ((score - 1) ** 2).mean(),
            "voxel": 10 * F.mse_loss(fake, real),
            "projection": 10 * sum(F.l1_loss(fake.abs().mean(a), real.abs().mean(a)) for a in (2, 3, 4)) / 3,
        }
        sum(losses.values()).backward()
        self.optimizers[0].step()
        self.discriminator.requires_grad_(True)
        self.optimizers[1].zero_grad()
        losses["real"] = 0.1 * ((judge(torch.cat([given, real], 1)) - 1) ** 2).mean()
        losses["fake"] = 0.1 * (judge(torch.cat([given, fake.detach()], 1)) ** 2).mean()
        (losses["real"] + losses["fake"]).backward()
        self.optimizers[1].step()
        return {name: loss.item() for name, loss in losses.items()}


class Fast:
    """The step as the house trains it."""

    def __init__(self, size: int, precision: str = "bf16", checkpointing: bool = False, dropout: float = 0.5) -> None:
        recipe = Recipe.load(
            "x2ct",
            [
                f"model.shape=[{size}, {size}, {size}]",
                f"model.checkpointing={str(checkpointing).lower()}",
                f"model.dropout={dropout}",
                "training.batch=1",
            ],
        )
        self.model = recipe.build()
        self.game = Game(self.model, recipe, fabric_of("cpu", precision=precision))

    def step(self, batch: Batch) -> dict[str, float]:
        """A generator turn and a discriminator turn; their losses."""
        losses: dict[str, Tensor] = {}
        for index, turn in enumerate(self.model.turns(0)):
            losses |= self.game.play(turn, batch, 0, index)
        return {name: loss.item() for name, loss in losses.items()}


def batch(size: int) -> Batch:
    """A phantom and its radiographs."""
    scan = chest(0, (size, size, size), (EXTENT / size,) * 3)
    hu = scan.hu.astype(np.int16)
    pictures = shots(hu, scan.spacing, views=("pa", "lateral"), geometry="chest", field="scan", size=size)
    image = Window(-1024, 1476).to_unit(hu.astype(np.float32))
    return Batch(torch.from_numpy(image)[None, None], {"xrays": torch.from_numpy(2 * pictures - 1)[None]}, (1,))


def made(way: str, size: int, dropout: float = 0.5) -> Plain | Fast:
    if way == "plain":
        return Plain(size, dropout)
    return Fast(size, checkpointing=way == "checkpointed", dropout=dropout)


def check(size: int) -> dict[str, float]:
    """Largest relative differences of the losses of a step from equal weights, in float32 and bfloat16."""
    found = {}
    data = batch(size)
    for name, precision, limit in (("float32", "fp32", 1e-3), ("bfloat16", "bf16", 3e-2)):
        torch.manual_seed(0)
        fast, plain = Fast(size, precision, dropout=0.0), Plain(size, 0.0)
        plain.take(fast.model)
        ours, theirs = fast.step(data), plain.step(data)
        found[name] = max(abs(ours[term] - loss) / abs(loss) for term, loss in theirs.items())
        assert found[name] < limit, (name, ours, theirs)
    return found


def psnr(size: int, steps: int) -> dict[str, float]:
    """PSNR in dB over the window's 2500 HU of one phantom, after so many steps on it, by precision."""
    found, data = {}, batch(size)
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        fast = Fast(size, precision)
        for _ in range(steps):
            fast.step(data)
        made = fast.game.generate(torch.zeros(1, 0), data.condition)
        found[precision] = 10 * float(torch.log10(4 / (made - data.image).square().mean()))
    return found


def timed(step: Callable[[Batch], object], data: Batch) -> tuple[float, float]:
    """Wall and process CPU seconds."""
    wall, core = time.perf_counter(), time.process_time()
    step(data)
    return time.perf_counter() - wall, time.process_time() - core


def one(way: str, size: int) -> None:
    """Time a step of one way in this process for every line of stdin, and say the peak memory."""
    if way != "plain":
        keep_freed_memory()
    torch.manual_seed(0)
    player = made(way, size)
    data = batch(size)
    timed(player.step, data)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps([*timed(player.step, data), peak()]), flush=True)


def peak() -> int:
    """Peak resident bytes of this process; `ru_maxrss` would begin at the parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def measured(size: int, repeats: int) -> dict[str, Any]:
    """Medians of interleaved steps of every way, each in its own process, which take turns."""
    ways = {}
    for way in WAYS:
        ways[way] = subprocess.Popen(
            [sys.executable, __file__, "--one", way, "--size", str(size)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        ways[way].stdout.readline()
    rows: dict[str, list[list[float]]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, process in ways.items():
            process.stdin.write("\n")
            process.stdin.flush()
            rows[way].append(json.loads(process.stdout.readline()))
    for process in ways.values():
        process.stdin.close()
        process.wait()
    medians = {way: [statistics.median(column) for column in zip(*found, strict=True)] for way, found in rows.items()}
    result: dict[str, Any] = {}
    for way in WAYS[1:]:
        wall, core, memory = (a / b for a, b in zip(medians["plain"], medians[way], strict=True))
        result[f"plain / {way}"] = {"process CPU time": core, "wall time": wall, "peak memory": memory}
    for way, found in medians.items():
        result[way] = dict(zip(("wall s", "core s", "peak bytes"), found, strict=True))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, help="of one process; or the only size")
    parser.add_argument("--psnr-steps", type=int, default=60)
    parser.add_argument("--one", choices=WAYS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one, arguments.size)
        return
    sizes = [arguments.size] if arguments.size else [64, 128]
    result: dict[str, Any] = {
        "what": "x2ct, batch 1, a generator and a discriminator turn; plain eager float32 / as trained (bfloat16)",
        "largest relative difference of the losses at 64^3": check(64),
        f"PSNR in dB of one phantom of 64^3 after {arguments.psnr_steps} steps": psnr(64, arguments.psnr_steps),
        **{f"{size}^3": measured(size, arguments.repeats) for size in sizes},
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
