"""A mean that training keeps of some number, the same on all processes."""

import torch
from torch import Tensor, distributed, nn


class RunningMean(nn.Module):
    """`value <- value + weight * (batch's mean - value)`, once a turn, over all its micro-batches and processes.

    The weight is `decay`, and 1 / n in the n-th turn while that is more, so that a short run does not average the
    nothing that it began with. It is a buffer: a resumed run goes on with it.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.value: Tensor
        self.turns: Tensor
        self.register_buffer("value", torch.zeros(()))
        self.register_buffer("turns", torch.zeros((), dtype=torch.int64))
        self._seen: list[Tensor] = []

    def see(self, numbers: Tensor) -> None:
        """Take numbers `(n,)` of this turn in; `value` stays as it is until `settle`."""
        self._seen.append(numbers.detach().float())

    @torch.no_grad()
    def settle(self) -> None:
        """End the turn: move `value` towards the mean of all that was seen. All processes take part."""
        seen = torch.cat(self._seen)
        self._seen.clear()
        total = torch.stack([seen.sum(), seen.new_tensor(float(len(seen)))])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(total)
        self.turns += 1
        self.value.lerp_(total[0] / total[1], (1 / self.turns).clamp(min=self.decay))
