"""Noise on what a discriminator sees, less and less of it."""

import torch
from torch import Tensor, nn


class FadingNoise(nn.Module):
    """Adds `deviation` times standard normal noise to images, falling in a line to none after `moves` moves.

    Noise makes the real and the made images overlap where they lie apart, so that a discriminator cannot become
    certain and its slope still tells a generator the way (Arjovsky & Bottou 2017, section 3; Sonderby et al. 2017,
    section 4.3). The count of moves is a buffer: a resumed run goes on with the noise that it had.
    """

    def __init__(self, deviation: float, moves: int) -> None:
        super().__init__()
        self.deviation, self.moves = deviation, moves
        self.made: Tensor
        self.register_buffer("made", torch.zeros((), dtype=torch.int64))

    @property
    def level(self) -> Tensor:
        """The deviation of the noise as it is now, a scalar."""
        return self.deviation * (1 - self.made / self.moves).clamp(min=0)

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        """`image` with `noise` of its shape, standard normal, at the present level."""
        return image + self.level * noise

    def move(self) -> None:
        """Count a move."""
        self.made += 1
