"""FeatureNetwork: what turns images into rows that set distances compare."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class FeatureNetwork(Protocol):
    """A named network with known weights."""

    @property
    def name(self) -> str:
        """What a definition calls it."""

    @property
    def sha256(self) -> str:
        """Of its weights, 64 hexadecimal digits."""

    @property
    def dims(self) -> int:
        """2: it sees slices; 3: volumes."""

    @property
    def width(self) -> int:
        """Features of a row."""

    @property
    def range(self) -> tuple[float, float] | None:
        """HU that it clips to; None where only `preprocessing` tells what becomes of them."""

    @property
    def preprocessing(self) -> str:
        """What it does to HU first, the range itself not said again."""

    def __call__(self, images: "NDArray[Any]") -> NDArray[np.float64]:
        """Rows `(n, width)` of images in HU: `(n, height, width)` slices or `(n, depth, height, width)` volumes."""
