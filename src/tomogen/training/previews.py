"""Previews: what the model makes of the same noise or conditions as it learns, step by step, and the film of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tomogen.batch import Batch, normal, seed_of
from tomogen.cases.folder import CaseFolder
from tomogen.formats.pictures import views
from tomogen.intensity import Window
from tomogen.storage import whole
from tomogen.training import looks
from tomogen.training.trainer import Game
from tomogen.volume import Volume, affine_of

if TYPE_CHECKING:
    from PIL.Image import Image

COUNT = {2: 16, 3: 4}
"""Images in a preview, at most, by their number of axes."""
ROWS = 3
"""Volumes made from something, each a row beside that and its truth."""
LEGIBLE = 128
"""Pixels along an image's longest side, at least."""
SEEN = Window(-1000, 1000)
"""HU of pictures where the run's window is wider: in that of the whole scale all but bone would be dark."""
MILLISECONDS = 200
"""Of each picture in the film."""
COMPARED = "real-and-made.png"
"""Beside the previews: of the last one what was given, made and real, side by side."""


class Shown(NamedTuple):
    """What a preview shows: images `(count, C, *shape)` on -1..1, made and real, and what the made ones start from."""

    made: Tensor
    real: Tensor
    given: Mapping[str, Tensor] = {}
    """By name: images like those, or pictures `(count, views, rows, columns)` of volumes."""
    remade: Tensor | None = None
    """What an autoencoder makes of the real ones."""


def shown(game: Game, cases: CaseFolder) -> Batch:
    """The images of previews: of a model that makes something of them held-out ones, or else the first of training."""
    synthesizer, recipe = game.synthesizer, game.recipe
    dims, held = len(synthesizer.shape), None
    most = ROWS if synthesizer.conditions and dims == 3 else COUNT[dims]
    if synthesizer.conditions or synthesizer.has_truth():
        held = looks.held_out(synthesizer, recipe, cases, most)
    return (held or looks.of_training(synthesizer, recipe, cases, min(most, recipe.training.batch))).first(most)


class Previews:
    """Fixed noise, and the first images of a batch with their conditions."""

    def __init__(self, game: Game, first: Batch) -> None:
        count = min(COUNT[len(game.synthesizer.shape)], len(first.image))
        seeds = tuple(seed_of(game.recipe.training.seed, "preview", number) for number in range(count))
        self.game = game
        self.noise = normal(seeds, "noise", game.synthesizer.noise_shape(1)[1:])
        condition = {name: value[:count] for name, value in first.condition.items()}
        self.first = Batch(first.image[:count].float().cpu(), condition, seeds)

    def images(self) -> Shown:
        """Images by the model as it is now, and the real ones, which never change. All processes take part."""
        condition = self.first.condition
        made = [
            self.game.generate(self.noise[rows], {name: value[rows] for name, value in condition.items()})
            for rows in self._portions()
        ]
        given = {name: value.float().cpu() for name, value in condition.items() if value.ndim > 2}
        return Shown(torch.cat(made), self.first.image, given, self._remade())

    def _remade(self) -> Tensor | None:
        """Of a model that makes images of noise and of images alike; others make all they can from conditions."""
        if self.first.condition or not self.game.synthesizer.has_truth():
            return None
        image, seeds = self.first.image, self.first.seeds
        made = [self.game.remake(Batch(image[rows], {}, seeds[rows])) for rows in self._portions()]
        return torch.cat([part for part in made if part is not None])

    def _portions(self) -> list[slice]:
        training = self.game.recipe.training
        size = training.micro_batch or training.batch
        return [slice(first, first + size) for first in range(0, len(self.noise), size)]

    def variety(self, images: Shown) -> float | None:
        """How much the images differ from one another, as a share of how much real ones do; None for one image."""
        real = _variety(images.real)
        return None if len(images.made) < 2 or real == 0 else _variety(images.made) / real


def write(images: Shown, window: Window, spacing: tuple[float, float, float], path: Path) -> None:
    """A PNG of what was made, of an autoencoder what was reconstructed, and beside it a sheet of columns.

    Grey by the run's window. Of what is made from something the columns are input, made, real; of an autoencoder real,
    reconstructed, and made of a standard normal, which is not yet the prior that is fitted when training ends. Else
    real, made.
    """
    made = picture(images.made, window, spacing)
    real = {"real": picture(images.real, window, spacing)}
    if images.remade is not None:
        remade = picture(images.remade, window, spacing)
        shown, columns = remade, {**real, "reconstructed": remade, "made of N(0, 1)": made}
    else:
        given = {
            name: picture(value, window, spacing) if value.ndim == images.made.ndim else _pictures(value, made.height)
            for name, value in images.given.items()
        }
        shown, columns = made, {**given, "made": made, **real} if given else {**real, "made": made}
    with whole(path) as partial:
        shown.save(partial, format="png")
    with whole(path.with_name(COMPARED)) as partial:
        _side_by_side(columns).save(partial, format="png")


def picture(images: Tensor, window: Window, spacing: tuple[float, float, float]) -> "Image":
    """2D images `(count, C, *shape)` in a grid, of each 3D one a row of three planes."""
    hu = window.to_hu(images[:, 0].numpy())
    window = SEEN if window.low <= SEEN.low and SEEN.high <= window.high else window
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
