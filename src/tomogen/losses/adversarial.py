"""The game of Goodfellow et al. 2014: a discriminator says how sure it is that an image is real.

Scores are logits `(B,)`: the discriminator's D is their sigmoid. Every loss is a mean over the images, in float32.
"""

import math

from torch import Tensor
from torch.nn import functional as F


def real_loss(scores: Tensor, smoothing: float = 0.0) -> Tensor:
    """What a discriminator minimises on real images: the cross-entropy of D with the label 1 - `smoothing`.

    One-sided label smoothing (Salimans 2016, section 3.4) has a discriminator stop short of certainty. The label's
    own entropy, the least that the cross-entropy can be, is taken off: it moves no gradient, and 0 stays the sign
    of a discriminator that cannot do better. Without smoothing it is the published `-log D`.
    """
    scores = scores.float()
    return ((1 - smoothing) * F.softplus(-scores) + smoothing * F.softplus(scores)).mean() - _entropy(smoothing)


def fake_loss(scores: Tensor) -> Tensor:
    """What a discriminator minimises on made images: `-log(1 - D)` (Goodfellow 2014, eq. 1). Never smoothed."""
    return F.softplus(scores.float()).mean()


def generator_loss(scores: Tensor) -> Tensor:
    """What a generator minimises: `-log D` of its images, the form that does not saturate (2014, section 3)."""
    return F.softplus(-scores.float()).mean()


def _entropy(label: float) -> float:
    return -sum(part * math.log(part) for part in (label, 1 - label) if part > 0)
