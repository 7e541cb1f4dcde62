"""Previews: what the model makes of the same noise as it learns, step by step, and the film of it."""

from pathlib import Path

import torch
from torch import Tensor

from tomogen.batch import Batch, normal, seed_of
from tomogen.formats.pictures import views
from tomogen.intensity import Window
from tomogen.storage import whole
from tomogen.training.trainer import Game
from tomogen.volume import Volume, affine_of

COUNT = {2: 16, 3: 4}
"""Images in a preview, at most, by their number of axes."""
LEGIBLE = 128
"""Pixels along an image's longest side, at least."""
MILLISECONDS = 200
"""Of each picture in the film."""


class Previews:
    """Fixed noise, fixed conditions, and how much the real images of the first batch vary."""

    def __init__(self, game: Game, first: Batch) -> None:
        count = min(COUNT[len(game.synthesizer.shape)], len(first.image))
        seeds = [seed_of(game.recipe.training.seed, "preview", number) for number in range(count)]
        self.game = game
        self.noise = normal(seeds, "noise", game.synthesizer.noise_shape(1)[1:])
        self.condition = {name: value[:count] for name, value in first.condition.items()}
        self.real = _variety(first.image[:count].float())

    def images(self) -> Tensor:
        """Images `(count, C, *shape)` on -1..1 by the model as it is now. All processes take part."""
        size = self.game.recipe.training.micro_batch or len(self.noise)
        parts = [
            self.game.generate(
                self.noise[first : first + size],
                {name: value[first : first + size] for name, value in self.condition.items()},
            )
            for first in range(0, len(self.noise), size)
        ]
        return torch.cat(parts)

    def variety(self, images: Tensor) -> float | None:
        """How much the images differ from one another, as a share of how much real ones do; None for one image."""
        return None if len(images) < 2 or self.real == 0 else _variety(images) / self.real


def write(images: Tensor, window: Window, spacing: tuple[float, float, float], path: Path) -> None:
    """A PNG of images on -1..1: 2D ones in a grid; of each 3D one a row of three planes; grey by the run's window."""
    hu = window.to_hu(images[:, 0].numpy())
    size = max(LEGIBLE, *hu.shape[1:])
    if hu.ndim == 3:
        picture = views.grid(hu, window, tile=size)
    else:
        volumes = [Volume(volume, affine_of(spacing)) for volume in hu]
        picture = views.stacked([views.three_planes(volume, window, size=size) for volume in volumes])
    with whole(path) as partial:
        picture.save(partial, format="png")


def film(folder: Path, path: Path) -> bool:
    """A GIF of the previews in step order; whether there were any."""
    from PIL import Image

    frames = [Image.open(file) for file in sorted(folder.glob("step-*.png"))]
    if not frames:
        return False
    rest = frames[1:] + [frames[-1]] * 4
    with whole(path) as partial:
        frames[0].save(partial, format="gif", save_all=True, append_images=rest, duration=MILLISECONDS, loop=0)
    return True


def _variety(images: Tensor) -> float:
    return float(images.std(dim=0, correction=0).mean())
