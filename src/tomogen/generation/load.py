"""A run folder to a synthesizer that is ready to generate."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tomogen.device import resolved
from tomogen.errors import RecipeMismatch
from tomogen.run import Run
from tomogen.synthesizer import Synthesizer


@dataclass(frozen=True)
class Loaded:
    """A synthesizer with the weights meant for generation, in evaluation mode on its device, and its run."""

    synthesizer: Synthesizer
    run: Run
    device: torch.device


def load(run: str | Path, device: str = "auto") -> Loaded:
    """The synthesizer of a run.

    Raises:
        InputMissing: there is no run, or it has no weights yet.
        RecipeMismatch: the weights are damaged, a pickle, or another model's.
        DependencyMissing: the device is not there.
    """
    _refuse_pickle(Path(run))
    opened = Run.open(run)
    path = opened.weights
    _refuse_pickle(path)
    place = torch.device(resolved(device))
    synthesizer = opened.recipe.build()
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RecipeMismatch(
            f"the weights are damaged: {error}", at=path, fix="tomogen train --resume writes them anew"
        ) from error
    try:
        synthesizer.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise RecipeMismatch(
            f"the weights are of another model than the run's recipe: {_first(error)}", at=path, fix="train again"
        ) from error
    synthesizer.to(place).eval().requires_grad_(False)
    return Loaded(synthesizer, opened, place)


def _refuse_pickle(path: Path) -> None:
    """Weights in a pickle can run any code when they are opened: never opened here."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(9)
    # The length that opens a safetensors file begins with 0x80 in one of 32; its ninth byte is always a brace.
    pickled = start[:4] == b"PK\x03\x04" or start[:1] == b"\x80"
    if (pickled and start[8:] != b"{") or path.suffix in (".pt", ".pth", ".ckpt", ".pkl"):
        raise RecipeMismatch(
            "weights in a pickle are never loaded: opening one can run any code",
            at=path,
            fix="give a run folder; its weights are in weights.safetensors",
        )


def _first(error: RuntimeError) -> str:
    """The first complaint of `load_state_dict`, on one line."""
    return str(error).splitlines()[-1].strip()
