"""What every model is to the trainer and to the tools that use it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from tomogen.batch import Batch


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
    conditions: ClassVar[Sequence[str]] = ()
    """Names of the images that generation starts from; empty for a model that starts from noise."""
    shape: tuple[int, ...]
    """Voxels per axis of an image, slow axis first: two for a 2D model, three for a 3D one."""

    @abstractmethod
    def turns(self, step: int) -> Iterator[Turn]:
        """The moves of training step `step` (from 0), in order."""

    @abstractmethod
    def forward(self, turn: Turn, batch: Batch) -> dict[str, Tensor]:
        """Named scalar loss terms of one turn, already weighted."""

    def after(self, turn: Turn) -> None:
        """What a player's weights must obey once it has moved, such as clipping."""

    @abstractmethod
    def noise_shape(self, count: int) -> tuple[int, ...]:
        """Shape of the standard normal noise for `count` images; `(count, 0)` if none is used."""

    @abstractmethod
    def generate(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Images `(B, C, *shape)` on -1..1."""
