"""What a discriminator minimises when every score has a label of its own, as smoothing by drawn labels needs.

A score of an image that is surely real has the label 1, surely made 0. Means over all scores, in float32.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def drawn_labels(share: Tensor, smoothing: float) -> Tensor:
    """Labels of the real: 1 less up to `smoothing`, by `share` on 0..1 that is drawn anew for every look.

    One-sided (Salimans 2016, section 3.4): those of the made stay 0.
    """
    return 1 - smoothing * share


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the scores' sigmoid with the labels, less the labels' own entropy: 0 cannot be bettered."""
    labels = labels.float().expand_as(scores)
    entropy = -torch.xlogy(labels, labels) - torch.xlogy(1 - labels, 1 - labels)
    return F.binary_cross_entropy_with_logits(scores.float(), labels) - entropy.mean()


def least_squares(scores: Tensor, labels: Tensor) -> Tensor:
    """Squared distance of the scores from the labels (Mao 2017, equation 9, without its factor of a half)."""
    return (scores.float() - labels.float()).square().mean()
