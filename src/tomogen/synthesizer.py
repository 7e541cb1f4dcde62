"""What every model is to the trainer and to the tools that use it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from torch import Tensor, nn

from tomogen.batch import Batch
from tomogen.cases.feed import Feed
from tomogen.cases.folder import CaseFolder
from tomogen.cases.scans import Scans
from tomogen.intensity import Window

if TYPE_CHECKING:
    from tomogen.recipe import Data


class Turn(NamedTuple):
    """One move of the game: `player` follows the gradient of the loss terms of `forward(turn, batch)`."""

    player: str
    """Submodule whose parameters move."""
    kind: str = "play"
    """What the player does: models with lazy regularisers name those turns here."""
    fresh: bool = True
    """Whether the turn takes a new batch; otherwise it plays the batch of the turn before, seeds included."""


class Synthesizer(nn.Module, ABC):
    """A generative model as a game of players.

    Each player is a submodule with an optimizer of its own. A training step plays `turns(step)` in order: the
    loss terms of `forward(turn, batch)` are added up and only the turn's player follows their gradient. A model
    that is no game has one player. A model touches no optimizer, device, scaler or rank.

    So that one process and many, one batch and several micro-batches give the same losses and gradients:

    - Every loss term is a mean over the images of the batch.
    - What is drawn for an image is drawn by `batch.normal(name, *shape)` and `batch.uniform(name, *shape)`, each
      draw of a turn under a name of its own. A turn that is not `fresh` meets the same seeds: under the same name
      it gets the same numbers, under another name new ones.
    - Norms that pool over the batch (batch norm) break this promise; a model that keeps one says so.
    """

    players: ClassVar[Sequence[str]]
    """Names of the submodules that are trained."""
    averaged: ClassVar[Sequence[str]] = ()
    """Players of which a moving average is kept; generation uses it."""
    private: ClassVar[Sequence[str]] = ()
    """Submodules that hold images made of patients': checkpoints keep them, published weights do not."""
    conditions: ClassVar[Sequence[str]] = ()
    """Names of what generation starts from, each on -1..1; empty for a model that starts from noise alone."""
    shape: tuple[int, ...]
    """Voxels per axis of an image, slow axis first: two for a 2D model, three for a 3D one."""

    def __init__(self) -> None:
        super().__init__()
        self._handed: dict[tuple[int, ...], Tensor] = {}

    def feed(self, folder: CaseFolder, data: "Data", split: str = "train") -> Feed:
        """Where the images of a split come from, with all that this model is conditioned on, as `[data]` says.

        Raises:
            DataInvalid: the cases lack something, or are smaller than `shape`.
        """
        return Scans(folder, self.shape, Window(*data.window), split=split, shift=data.shift)

    def condition_shape(self, name: str) -> tuple[int, ...]:
        """Shape of one of `conditions`, without the axis of the batch."""
        return 1, *self.shape

    @abstractmethod
    def turns(self, step: int) -> Iterator[Turn]:
        """The moves of training step `step` (from 0), in order."""

    @abstractmethod
    def forward(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        """Named scalar loss terms of one turn, already weighted."""

    def hand_on(self, batch: Batch, image: Tensor) -> None:
        """Keep what a turn made of `batch` for the next turn of the step, which plays the same batch."""
        self._handed[batch.seeds] = image.detach()

    def handed(self, batch: Batch) -> Tensor:
        """What the turn before made of `batch`, without its gradient; it is given once."""
        return self._handed.pop(batch.seeds)

    def after(self, turn: Turn) -> None:
        """What a player's weights must obey once it has moved, such as clipping."""

    def told(self) -> dict[str, float]:
        """What the log is to know of the state of training beyond its losses, by name: facts, told at each preview.

        On several processes they are the first's.
        """
        return {}

    def remade(self, batch: Batch) -> Tensor | None:
        """What the model makes of a batch whose truth is `batch.image`, `(B, C, *shape)` on -1..1, nothing drawn.

        Validation measures how far the two are apart. None for a model without a truth, from noise or of unpaired
        images.
        """
        return None

    @classmethod
    def has_truth(cls) -> bool:
        """Whether `remade` is the model's own: what it makes can be compared with what it should have made."""
        return cls.remade is not Synthesizer.remade

    def finish(self, images: Iterator[Tensor]) -> None:
        """Fit what is fitted once training is over, in evaluation mode, on the weights that are published.

        `images` are those of training, each once, at most some hundreds, in batches `(B, C, *shape)` on -1..1; they
        are made as they are asked for. Buffers alone may change. Whatever is fitted is published; training itself
        goes on, if it goes on, as if nothing had been.
        """

    @abstractmethod
    def noise_shape(self, count: int) -> tuple[int, ...]:
        """Shape of the standard normal noise for `count` images; `(count, 0)` if none is used."""

    @abstractmethod
    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Images `(B, C, *shape)` on -1..1."""
