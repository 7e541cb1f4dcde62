"""Runs that were never trained: recipes shrunk to nothing, their weights as training leaves them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from tomogen.recipe import Recipe
from tomogen.run import Run

TINY = {
    "stylegan2": [
        "model.shape=[16,16]", "model.doublings=2", "model.width=4", "model.widest=8", "model.latent=8",
        "model.mapping=2",
    ],
    "stylegan2_3d": [
        "model.shape=[8,16,8]", "model.doublings=1", "model.width=4", "model.widest=8", "model.latent=8",
        "model.mapping=2",
    ],
    "vae3d_light": ["model.shape=[8,8,8]", "model.doublings=1", "model.width=4", "model.latent=2"],
    "wgan2d": ["model.shape=[16,32]", "model.width=4", "model.widest=8", "model.latent=6"],
}  # fmt: skip
SPACING = (5.0, 1.5, 1.25)


def drawn(path: Path, name: str, classes: Sequence[str] = ()) -> Path:
    """A run of recipe `name`, perhaps with classes, in which noise and biases tell."""
    recipe = Recipe.load(name, [*TINY[name], *([f"model.classes={len(classes)}"] if classes else [])])
    facts = {"spacing": SPACING, "body_mask": False}
    Run.create(path, recipe, {**facts, **({"labels": list(classes)} if classes else {})})
    torch.manual_seed(0)
    model = recipe.build()
    for key, parameter in model.named_parameters():
        if key.endswith("strength"):
            parameter.data += 0.3
        elif key.endswith("bias"):
            parameter.data += 0.2 * torch.randn_like(parameter)
    save_file(model.state_dict(), path / "weights.safetensors")
    return path
