"""Memory for time: what a part of a network computed is forgotten, and computed again for its gradient (Chen 2016)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def run(part: Callable[..., Tensor], *inputs: Tensor, forgetting: bool) -> Tensor:
    """`part(*inputs)`; `forgetting` keeps only the inputs until the backward pass. The same numbers either way.

    `part` draws nothing at random.
    """
    if not (forgetting and torch.is_grad_enabled()):
        return part(*inputs)
    result: Tensor = checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
    return result
