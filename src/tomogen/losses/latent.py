"""What a variational autoencoder pays for its code.

A code is a grid of `C` channels, `(B, C, *grid)`. Given an image each of its numbers has a Gaussian of its own, with a
mean and a log-variance; its prior is the standard normal (Kingma & Welling 2014).
"""

from torch import Tensor


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL from the standard normal in nats of each number, in float32 (Kingma & Welling 2014, appendix B)."""
    mean, log_variance = mean.float(), log_variance.float()
    # expm1(l) - l is e^l - 1 - l, with its digits near l = 0, where a dead number lies.
    return (mean.square() + log_variance.expm1() - log_variance) / 2


def kl_loss(mean: Tensor, log_variance: Tensor, free_bits: float = 0.0) -> Tensor:
    """KL in nats of a whole code, the mean over the images; a channel pays for no less than its free bits.

    Free bits (Kingma et al. 2016, appendix C.8): channel c costs max(`free_bits`, KL_c), KL_c the mean in nats over
    its numbers, so that none is shut while the decoder has yet to learn its use. There KL_c is a mean over a batch
    too; here it is that of each image, so that micro-batches and processes come to the same.
    """
    channels = divergence(mean, log_variance).flatten(2)  # (B, C, numbers)
    return channels.mean(2).clamp(min=free_bits).sum(1).mean() * channels.shape[2]
