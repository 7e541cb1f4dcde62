"""Previews: what the model makes of the same noise or conditions as it learns, step by step, and the film of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tomogen.batch import Batch, normal, seed_of
from tomogen.formats.pictures import views
from tomogen.intensity import Window
from tomogen.storage import whole
from tomogen.training.trainer import Game
from tomogen.volume import Volume, affine_of

if TYPE_CHECKING:
    from PIL.Image import Image

COUNT = {2: 16, 3: 4}
"""Images in a preview, at most, by their number of axes."""
LEGIBLE = 128
"""Pixels along an image's longest side, at least."""
MILLISECONDS = 200
"""Of each picture in the film."""
COMPARED = "real-and-made.png"
"""Beside the previews: what was given, real images and the last preview's, side by side."""


class Shown(NamedTuple):
    """What a preview shows: images `(count, C, *shape)` on -1..1, made and real, and what the made ones start from."""

    made: Tensor
    real: Tensor
    given: Mapping[str, Tensor] = {}
    """By name: images like those, or pictures `(count, views, rows, columns)` of volumes."""


class Previews:
    """Fixed noise, fixed conditions, and the real images that belong to them."""

    def __init__(self, game: Game, first: Batch) -> None:
        """Of the first images of a batch: the first in training, or held-out ones where there are conditions."""
        count = min(COUNT[len(game.synthesizer.shape)], len(first.image))
        seeds = [seed_of(game.recipe.training.seed, "preview", number) for number in range(count)]
        self.game = game
        self.noise = normal(seeds, "noise", game.synthesizer.noise_shape(1)[1:])
        self.condition = {name: value[:count] for name, value in first.condition.items()}
        self.real = first.image[:count].float().cpu()

    def images(self) -> Shown:
        """Images by the model as it is now, and the real ones, which never change. All processes take part."""
        training = self.game.recipe.training
        size = training.micro_batch or training.batch
        parts = [
            self.game.generate(
                self.noise[first : first + size],
                {name: value[first : first + size] for name, value in self.condition.items()},
            )
            for first in range(0, len(self.noise), size)
        ]
        given = {name: value.float().cpu() for name, value in self.condition.items() if value.ndim > 2}
        return Shown(torch.cat(parts), self.real, given)

    def variety(self, images: Shown) -> float | None:
        """How much the images differ from one another, as a share of how much real ones do; None for one image."""
        real = _variety(images.real)
        return None if len(images.made) < 2 or real == 0 else _variety(images.made) / real


def write(images: Shown, window: Window, spacing: tuple[float, float, float], path: Path) -> None:
    """A PNG of what was made, and beside it one of what was given, the real and the made; grey by the run's window."""
    made = picture(images.made, window, spacing)
    with whole(path) as partial:
        made.save(partial, format="png")
    given = {
        name: picture(value, window, spacing) if value.ndim == images.made.ndim else _pictures(value, made.height)
        for name, value in images.given.items()
    }
    both = _side_by_side({**given, "real": picture(images.real, window, spacing), "made": made})
    with whole(path.with_name(COMPARED)) as partial:
        both.save(partial, format="png")


def picture(images: Tensor, window: Window, spacing: tuple[float, float, float]) -> "Image":
    """2D images `(count, C, *shape)` in a grid, of each 3D one a row of three planes."""
    hu = window.to_hu(images[:, 0].numpy())
    size = max(LEGIBLE, *hu.shape[1:])
    if hu.ndim == 3:
        return views.grid(hu, window, tile=size)
    volumes = [Volume(volume, affine_of(spacing)) for volume in hu]
    return views.stacked([views.three_planes(volume, window, size=size) for volume in volumes])


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


def _pictures(views_of: Tensor, height: int) -> "Image":
    """Pictures `(count, views, rows, columns)` on -1..1: a row for each volume, as high together as its planes are."""
    from PIL import Image

    count, views_each, rows, columns = views_of.shape
    grey = ((views_of + 1) * 127.5).round().clamp(0, 255).byte().transpose(1, 2).reshape(count * rows, -1).numpy()
    down = height - height % count
    across = round(columns * views_each * down / (count * rows))
    return Image.fromarray(grey).resize((across, down), Image.Resampling.BICUBIC)


def _side_by_side(pictures: "dict[str, Image]") -> "Image":
    """Pictures beside one another, each under its name."""
    from PIL import Image, ImageDraw, ImageFont

    head, gap = 16, 8
    width = sum(shown.width + gap for shown in pictures.values()) - gap
    sheet = Image.new("L", (width, head + max(shown.height for shown in pictures.values())))
    left = 0
    for name, shown in pictures.items():
        ImageDraw.Draw(sheet).text((left + 3, 2), name, fill=200, font=ImageFont.load_default(size=10))
        sheet.paste(shown, (left, head))
        left += shown.width + gap
    return sheet


def _variety(images: Tensor) -> float:
    return float(images.std(dim=0, correction=0).mean())
