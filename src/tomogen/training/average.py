"""Moving averages of the weights of players: smoother than the weights themselves, and what generation uses."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from tomogen.synthesizer import Synthesizer


class Average:
    """`average <- decay * average + (1 - decay) * weights` after every step, for the players in `averaged`.

    Early on the decay is (1 + step) / (10 + step) where that is less, so that a short run does not average the
    weights it was born with. Buffers of floating point are averaged like weights, others (counts) copied.
    """

    def __init__(self, synthesizer: Synthesizer, decay: float) -> None:
        self.synthesizer = synthesizer
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in self._live().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step number `step` (from 0)."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, live in self._live().items():
            average = self.tensors[name]
            if live.is_floating_point():
                average.lerp_(live.detach(), weight)
            else:
                average.copy_(live)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The averages in the place of the weights for the time of the block; the weights return bit by bit."""
        live = self._live()
        kept = {name: tensor.detach().clone() for name, tensor in live.items()}
        _copy(live, self.tensors)
        try:
            yield
        finally:
            _copy(live, kept)

    def _live(self) -> dict[str, Tensor]:
        prefixes = tuple(f"{player}." for player in self.synthesizer.averaged)
        named = self.synthesizer.state_dict(keep_vars=True).items()
        return {name: tensor for name, tensor in named if name.startswith(prefixes)}


@torch.no_grad()
def _copy(into: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in into.items():
        tensor.detach().copy_(values[name])
