"""What an encoder says of a code: a Gaussian for each of its numbers."""

from typing import NamedTuple

from torch import Tensor


class Posterior(NamedTuple):
    """The Gaussian of each number of a code given an image, both `(B, C, *grid)` float32 (Kingma & Welling 2014)."""

    mean: Tensor
    log_variance: Tensor

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each number."""
        return (self.log_variance / 2).exp()

    def at(self, noise: Tensor, alpha: float = 1.0) -> Tensor:
        """The code `mean + alpha * deviation * noise`: a draw for standard normal `noise`, the mean for `alpha` 0."""
        return self.mean + alpha * self.deviation * noise if alpha else self.mean
