"""Weights that others trained, as runs: the generator and discriminator of X2CT-GAN's released code.

These are pickles, the one kind of file that is not opened elsewhere in the house: torch reads them here with an
unpickler that makes tensors and containers and nothing else.
"""

import json
import pickle
import platform
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tomogen._version import __version__
from tomogen.cases.preparation import ORIENTATION
from tomogen.errors import InputMissing, RecipeMismatch, UsageFault
from tomogen.formats import near
from tomogen.recipe import Recipe
from tomogen.run import Run, occupied, sha256
from tomogen.storage import opened, whole

LARGEST = 1 << 30
"""Bytes of a file of weights; the published ones have a quarter of it."""
RELEASED = "give the .pth of the released code, such as 90_net_G.pth"
CUT = "cut off: the file ends before its weights do"
EXTENT = 320.0
"""mm along each side of the published volumes, whatever their voxels."""

_RULES = (
    (r"encoder\.first\.", "encoder_layer.1."),
    (r"encoder\.stages\.(\d+)\.halve\.", r"encoder_layer\1.2."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.squeeze\.", r"encoder_layer\1.3.conv_block.\2.conv1."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.grow\.", r"encoder_layer\1.3.conv_block.\2.conv2."),
    (r"encoder\.stages\.(\d+)\.compress\.", r"encoder_layer\1.6."),
    (r"base\.", "base_link.0."),
    (r"links\.(\d+)\.squeeze\.", r"linker_layer\1.0.compress_block.0."),
    (r"links\.(\d+)\.spread\.", r"linker_layer\1.0.conv_block.0."),
)
"""Parts of a view whose names do not depend on the number of views."""
_JUDGES = {"volume.blocks.0.conv": 0, "volume.blocks.1.conv": 2, "volume.blocks.2.conv": 5, "volume.blocks.3.conv": 8,
           "volume.score.conv": 11}  # fmt: skip
_UNUSED = re.compile(
    r"(view[12]Model\.decoder_layer(-1)?\.0\.(weight|bias)|.*\.(running_mean|running_var|num_batches_tracked))"
)
"""Entries without effect: the views' own outputs, and running means that the published evaluation passes over."""


def adopt(
    weights: str | Path, out: str | Path, discriminator: str | Path | None = None, *, overwrite: bool = False
) -> Run:
    """A run folder at `out` with the weights of X2CT-GAN's released code, biplanar or single view, of any size.

    `weights` is the generator's `.pth`; the discriminator's, where it is given, is kept beside it. The run generates;
    it holds no checkpoint, so `train --resume` does not go on from it. Nothing is changed but names: biases that have
    no effect and running means are left behind.

    Raises:
        InputMissing: a file is not there.
        RecipeMismatch: a file is larger than 1 GiB, no file of tensors, or has not the entries of that network:
            each one that is missing, unknown, of another shape or not finite is named.
        UsageFault: `out` holds something and `overwrite` is not given.
    """
    if occupied(Path(out)) and not overwrite:
        raise UsageFault("the output folder is not empty", at=out, fix="--overwrite, or another folder")
    entries = read(Path(weights))
    recipe = _recipe(entries, Path(weights), judged=discriminator is not None)
    synthesizer = recipe.build()
    fill(
        synthesizer.get_submodule("generator"),
        entries,
        generator_names(recipe.config.halvings, len(recipe.config.views)),
        Path(weights),
    )
    digests = {"generator": sha256(Path(weights))}
    if discriminator is not None:
        fill(
            synthesizer.get_submodule("discriminator"),
            read(Path(discriminator)),
            discriminator_names(),
            Path(discriminator),
        )
        digests["discriminator"] = sha256(Path(discriminator))
    side = recipe.config.shape[0]
    data = {
        "spacing": [EXTENT / side] * 3, "orientation": ORIENTATION, "shape": [side] * 3,
        "cases": {"train": 0, "val": 0, "test": 0}, "patients": 0, "digest": digests["generator"], "adopted": digests,
    }  # fmt: skip
    run = Run.create(out, recipe, data, overwrite=overwrite)
    versions = {"tomogen": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    run.write("environment.json", json.dumps({"schema": 1, "versions": versions, "adopted": digests}, indent=1) + "\n")
    with whole(run.path / "weights.safetensors") as partial:
        save_file({name: tensor.contiguous() for name, tensor in synthesizer.state_dict().items()}, partial)
        partial.chmod((run.path / "data.json").stat().st_mode & 0o777)  # safetensors writes for the owner alone
    return run


def read(path: Path) -> dict[str, Tensor]:
    """The tensors in a file that torch saved, by name.

    Raises:
        InputMissing: it is not there, or cannot be read.
        RecipeMismatch: too large, damaged, not finite, or no tensors; a program in it is named, and never run.
    """
    if not path.is_file():
        raise InputMissing(f"no such file of weights{near(path)}", at=path)
    if path.stat().st_size > LARGEST:
        raise RecipeMismatch(
            f"{path.stat().st_size:,} bytes; weights of X2CT-GAN have at most {LARGEST:,}", at=path, fix=RELEASED
        )
    with opened(path) as file:
        start = file.read(2)
    if not start:
        raise RecipeMismatch("no bytes", at=path, fix=RELEASED)
    if start == b"PK" and not zipfile.is_zipfile(path):
        raise RecipeMismatch(CUT, at=path, fix="download or copy it again")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OSError,
    ) as error:
        raise _unread(error, path) from None
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items()
    ):
        raise RecipeMismatch("it holds something else than tensors by name", at=path, fix=RELEASED)
    broken = [name for name, tensor in found.items() if not tensor.isfinite().all()]
    if broken:
        raise RecipeMismatch(
            f"NaN or infinity in {_few(broken)}", at=path, fix="copy it anew, or take the weights of another epoch"
        )
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def _unread(error: Exception, path: Path) -> RecipeMismatch:
    """Why torch does not read a file, in our words: its own advise to open what could run as a program."""
    if program := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return RecipeMismatch(
            f"it holds a program ({program[1]}), which is never run", at=path, fix=f"{RELEASED}: tensors alone"
        )
    if isinstance(error, EOFError) or "EOF" in str(error):
        return RecipeMismatch(CUT, at=path, fix="download or copy it again")
    return RecipeMismatch("no weights that torch saved", at=path, fix=RELEASED)


def generator_names(halvings: int, views: int) -> "Names":
    """Our names of a generator's parameters to the published ones."""
    return Names(halvings, views)


def discriminator_names() -> "Names":
    """Our names of a discriminator's parameters to the published ones."""
    return Names(0, 0)


class Names:
    """From our names to the published ones, of a generator with so many views; of the discriminator with none."""

    def __init__(self, halvings: int, views: int) -> None:
        self.halvings, self.views = halvings, views

    def __getitem__(self, ours: str) -> str:
        """The published name of our parameter."""
        if not self.views:
            part, _, kind = ours.rpartition(".")
            return f"model.{_JUDGES[part]}.{kind}"
        if found := re.fullmatch(r"heads\.0\.(\w+)", ours):
            return f"decoder_layer.0.{found[1]}"
        if found := re.fullmatch(r"views\.(\d)\.(.*)", ours):
            prefix = f"view{int(found[1]) + 1}Model." if self.views == 2 else ""
            return prefix + self._of_view(found[2])
        return self._decoder(ours.removeprefix("fusion."), after=6)

    def _of_view(self, ours: str) -> str:
        for pattern, published in _RULES:
            if re.match(pattern, ours):
                return re.sub("^" + pattern, published, ours)
        return self._decoder(ours, after=6 if self.views == 2 else 9, apart=self.views == 2)

    def _decoder(self, ours: str, *, after: int, apart: bool = False) -> str:
        """A layer of a decoder: our level 0 is the published -1. `apart`: the first convolution has its own name."""
        part, number, *rest = ours.split(".")
        level = int(number)
        if part == "up":
            place = 0 if level == self.halvings - 1 else after
            return f"decoder_layer{level}.{place}.block.block.0.weight"
        if part == "compress":
            return f"decoder_{'compress_' * apart}layer{level - 1}.0.weight"
        block = int(rest[0]) if len(rest) == 2 else 0
        return f"decoder_layer{level - 1}.{3 * block + (0 if apart else 3)}.weight"


def fill(network: nn.Module, entries: Mapping[str, Tensor], names: Names, path: Path) -> None:
    """Set the parameters of a network to published entries.

    Raises:
        RecipeMismatch: entries are missing, unknown or of another shape; the first of each kind are named.
    """
    parameters = {names[name]: parameter for name, parameter in network.named_parameters()}
    idle = {name.removesuffix("weight") + "bias" for name in parameters if name.endswith("weight")}
    wrong = [
        ("missing", [name for name in parameters if name not in entries]),
        ("unknown", [name for name in entries if not (name in parameters or name in idle or _UNUSED.fullmatch(name))]),
        ("of another shape", list(_misshapen(parameters, entries))),
    ]
    if any(found for _, found in wrong):
        told = "; ".join(f"{what}: {_few(found)}" for what, found in wrong if found)
        raise RecipeMismatch(
            f"these are not the weights of X2CT-GAN's {type(network).__name__.lower()}: {told}",
            at=path,
            fix="give the .pth of the released code; generator and discriminator are files of their own",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(entries[name])


def _misshapen(parameters: Mapping[str, Tensor], entries: Mapping[str, Tensor]) -> Iterator[str]:
    for name, parameter in parameters.items():
        if name in entries and entries[name].shape != parameter.shape:
            yield f"{name} {list(entries[name].shape)}, expected {list(parameter.shape)}"


def _recipe(entries: Mapping[str, Tensor], path: Path, *, judged: bool) -> Recipe:
    """The recipe of the network that these entries are of, by their names and the size of the 3D seed."""
    name = "x2ct" if any(entry.startswith("view2Model.") for entry in entries) else "x2ct_single"
    config = Recipe.load(name).config
    base = entries.get("view1Model.base_link.0.weight" if len(config.views) == 2 else "base_link.0.weight")
    seed = round((len(base) / config.widths[-1]) ** (1 / 3)) if base is not None and base.ndim else 0
    if base is None or seed < 2 or len(base) != config.widths[-1] * seed**3 or seed > 16:
        raise RecipeMismatch(
            "these are not the weights of X2CT-GAN's generator: no layer base_link.0 of its size",
            at=path,
            fix="give the .pth of the released code's generator, such as 90_net_G.pth",
        )
    side = seed * 2**config.halvings
    return Recipe.load(name, [f"model.shape=[{side}, {side}, {side}]", f"model.adversary={str(judged).lower()}"])


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
