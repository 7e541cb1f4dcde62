"""Where codes lie: a Gaussian fitted to the codes of scans once an autoencoder is trained."""

import math

import torch
from torch import Tensor, nn

from tomogen.layers.posterior import Posterior


class CodePrior(nn.Module):
    """Standard normal noise to codes: the standard normal until `fit`, then a Gaussian of the codes seen.

    A code drawn from the standard normal seldom lies where codes of scans do, and what is decoded from there is blur:
    the aggregate posterior is not the prior it was pulled to (Hoffman & Johnson 2016; Ghosh et al. 2020 fit one after
    training). The Gaussian has a mean and a deviation for each number and a covariance of `rank` factors:

        code = mean + sum_k factor_k * eta_k + deviation * epsilon

    the factors the leading principal components of the codes' means, the deviations what they leave, with the
    posteriors' own variance added, so that each number has the variance of the aggregate posterior
    (Tipping & Bishop 1999, with a deviation for each number). From n scans follow at most n - 1 factors; the rest
    are 0.
    """

    def __init__(self, shape: tuple[int, ...], rank: int) -> None:
        super().__init__()
        self.shape, self.rank = shape, rank
        self.mean: Tensor
        self.deviation: Tensor
        self.factors: Tensor
        self.scans: Tensor
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("deviation", torch.ones(shape))
        self.register_buffer("factors", torch.zeros(rank, *shape))
        self.register_buffer("scans", torch.zeros((), dtype=torch.int64))

    @property
    def noise(self) -> int:
        """Numbers of noise for one code."""
        return math.prod(self.shape) + self.rank

    @property
    def fitted(self) -> bool:
        """Whether it was fitted."""
        return bool(self.scans)

    def forward(self, noise: Tensor) -> Tensor:
        """Codes `(B, *shape)` for standard normal `noise (B, numbers + rank)`."""
        numbers = math.prod(self.shape)
        epsilon, eta = noise[:, :numbers].float(), noise[:, numbers:].float()
        shared = (eta @ self.factors.flatten(1)).view(-1, *self.shape)
        code: Tensor = self.mean + shared + self.deviation * epsilon.view(-1, *self.shape)
        return code

    @torch.no_grad()
    def fit(self, codes: Posterior) -> None:
        """Fit to the posteriors of at least two scans, `(n, *shape)`.

        Raises:
            ValueError: fewer scans, or codes of another shape.
        """
        mean = codes.mean.double()
        if len(mean) < 2 or tuple(mean.shape[1:]) != self.shape:
            raise ValueError(f"codes of at least two scans, each {self.shape}, are needed, not {tuple(mean.shape)}")
        centre = mean.mean(0)
        spread = (mean - centre).flatten(1) / math.sqrt(len(mean) - 1)  # (n, numbers)
        # Of the n x n matrix of inner products: n is small, the numbers many.
        _, vectors = torch.linalg.eigh(spread @ spread.T)  # the largest last
        leading = min(self.rank, len(mean) - 1)
        factors = (spread.T @ vectors[:, -leading:]).T.flip(0) if leading else spread[:0]  # (leading, numbers)
        left = (spread.square().sum(0) - factors.square().sum(0)).clamp(min=0)
        own = codes.log_variance.double().exp().mean(0).flatten()
        self.mean.copy_(centre)
        self.deviation.copy_((left + own).sqrt().view(self.shape))
        self.factors.zero_()
        self.factors[:leading].copy_(factors.view(leading, *self.shape))
        self.scans.fill_(len(mean))
