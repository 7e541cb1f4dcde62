"""A run folder to a synthesizer that is ready to generate."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tomogen.batch import seed_of
from tomogen.device import resolved
from tomogen.errors import RecipeMismatch
from tomogen.run import Run
from tomogen.storage import refuse_pickle
from tomogen.synthesizer import Synthesizer

RUNS = "give a run folder; its weights are in weights.safetensors"


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
        RecipeMismatch: the weights are damaged, not finite, a pickle, or another model's.
        DependencyMissing: the device is not there.
    """
    refuse_pickle(Path(run), fix=RUNS)
    opened = Run.open(run)
    path = opened.weights
    refuse_pickle(path, fix=RUNS)
    place = torch.device(resolved(device))
    synthesizer = opened.recipe.build()
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RecipeMismatch(
            f"the weights are damaged: {error}", at=path, fix="tomogen train --resume writes them anew"
        ) from error
    broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise RecipeMismatch(
            f"NaN or infinity in {len(broken)} of {len(weights)} weights, the first {min(broken)}",
            at=path,
            fix="train again, or copy the run anew if it was whole elsewhere",
        )
    for name in synthesizer.private:
        weights |= {f"{name}.{key}": tensor for key, tensor in synthesizer.get_submodule(name).state_dict().items()}
    try:
        synthesizer.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise RecipeMismatch(
            f"the weights are of another model than the run's recipe: {_first(error)}", at=path, fix="train again"
        ) from error
    synthesizer.to(place).eval().requires_grad_(False)
    return Loaded(synthesizer, opened, place)


def untrained(loaded: Loaded, seed: int) -> Loaded:
    """The same model as it is before any training, its weights drawn by `seed`: a floor for what training gives."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of("untrained", seed))
        synthesizer = loaded.run.recipe.build()
    synthesizer.to(loaded.device).eval().requires_grad_(False)
    return replace(loaded, synthesizer=synthesizer)


def _first(error: RuntimeError) -> str:
    """The first complaint of `load_state_dict`, on one line."""
    return str(error).splitlines()[-1].strip()
