"""A weight that rises from nothing as training goes on."""

import torch
from torch import Tensor, nn


class Warmup(nn.Module):
    """A factor that rises in a line from 0 to 1 over `moves` moves; 1 from the start where `moves` is 0.

    The count of moves is a buffer: a resumed run goes on where it was.
    """

    def __init__(self, moves: int) -> None:
        super().__init__()
        self.moves = moves
        self.made: Tensor
        self.register_buffer("made", torch.zeros((), dtype=torch.int64))

    def forward(self) -> Tensor:
        """The factor as it is now, a scalar."""
        return (self.made / self.moves).clamp(max=1) if self.moves else torch.ones_like(self.made, dtype=torch.float32)

    def move(self) -> None:
        """Count a move."""
        self.made += 1
