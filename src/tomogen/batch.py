"""What a model sees: images on -1..1, what they are conditioned on, and the seeds of what is drawn for them."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """`image (B, C, *space)` on -1..1; `condition` by name, each `(B, ...)`, empty if there is none.

    `seeds` holds one number per image. What a model draws for an image depends on that number and on the draw's
    name alone, so it is the same however the images are dealt to processes and micro-batches. Without seeds the
    draws come from torch's global generator.
    """

    image: Tensor
    condition: dict[str, Tensor]
    seeds: tuple[int, ...] = ()

    def normal(self, name: str, *shape: int) -> Tensor:
        """Standard normal numbers `(B, *shape)`, float32, on the images' device."""
        if not self.seeds:
            return torch.randn(len(self.image), *shape, device=self.image.device)
        return normal(self.seeds, name, shape).to(self.image.device, non_blocking=True)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Numbers from 0 to 1 `(B, *shape)`, float32, on the images' device."""
        if not self.seeds:
            return torch.rand(len(self.image), *shape, device=self.image.device)
        rows = [torch.rand(shape, generator=_generator(seed, name)) for seed in self.seeds]
        return torch.stack(rows).to(self.image.device, non_blocking=True)


def normal(seeds: Sequence[int], name: str, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers `(len(seeds), *shape)`, float32, on the CPU: each row from its own seed."""
    return torch.stack([torch.randn(tuple(shape), generator=_generator(seed, name)) for seed in seeds])


def seed_of(*parts: int | str) -> int:
    """A seed of 63 bits made of numbers and words: the same in every process, unlike for unlike parts."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _generator(seed: int, name: str) -> torch.Generator:
    # On the CPU always: a GPU's generator would draw other numbers, and the rows are short.
    return torch.Generator().manual_seed(seed_of(seed, name))
