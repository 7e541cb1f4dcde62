"""What a stream draws from: image number n of a split, and what it is conditioned on."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Sample(NamedTuple):
    """One image as a model sees it, and its conditions by name; arrays without the axis of the batch."""

    image: NDArray[np.float32]
    """`(C, *shape)` on -1..1."""
    condition: dict[str, NDArray[np.float32]]


class Feed(Protocol):
    """Where images come from; a model names its own in `Synthesizer.feed`.

    Image number n is a function of (seed, n) alone, so that a resumed run, or one on other ranks, sees the same.
    """

    @property
    def beside(self) -> str:
        """Digest of what images and conditions are drawn from beside the cases; empty if there is nothing."""

    def enough(self, needed: int) -> None:
        """Raise unless `needed` images can be drawn of which none is like another.

        Raises:
            DataInvalid: they cannot.
        """

    def draw(self, seed: int, number: int) -> Sample:
        """Image `number` of the stream of `seed`."""
