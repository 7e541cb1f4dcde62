"""The least-squares game of Mao et al. 2017, with targets 1 and 0: scores are regressed, not put through a sigmoid.

Scores are of any shape, a map of patches say. Every loss is a mean over all of them, in float32.
"""

from torch import Tensor


def real_loss(scores: Tensor) -> Tensor:
    """What a discriminator minimises on real images (eq. 9, b = 1), without the paper's factor of a half."""
    return (scores.float() - 1).square().mean()


def fake_loss(scores: Tensor) -> Tensor:
    """What a discriminator minimises on made images (eq. 9, a = 0), without the paper's factor of a half."""
    return scores.float().square().mean()


def generator_loss(scores: Tensor) -> Tensor:
    """What a generator minimises of the scores of its images (eq. 9, c = 1), without the paper's factor of a half."""
    return (scores.float() - 1).square().mean()
