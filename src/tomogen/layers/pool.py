"""A pool of images made earlier, from which a discriminator is shown some (Shrivastava et al. 2017, section 2.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn


class Pool(nn.Module):
    """Keeps `size` images `shape`, channels first, and hands out old ones for new ones half of the time.

    The first `size` images pass through and are kept. Of those after, each passes through or, as often, is kept in
    the place of a random one, which is handed out instead: a discriminator is reminded of what a generator made some
    time ago, so that the two do not circle (Zhu et al. 2017, section 4).

    What is kept are buffers, so a resumed run goes on with the same images. Over several processes the pool is one:
    all of them keep the images of all, in the order of the ranks.
    """

    def __init__(self, size: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.size = size
        self.images: Tensor
        self.register_buffer("images", torch.zeros(size, *shape))
        self.filled: Tensor
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        """For images `(B, *shape)` as many, new and old, without gradient; `draws (B, 2)` are uniform on 0..1."""
        rank, ranks = (distributed.get_rank(), distributed.get_world_size()) if _several() else (0, 1)
        everyone, drawn = (_gathered(share, ranks) for share in (images.detach(), draws))
        handed = [self._exchanged(image, draw) for image, draw in zip(everyone, drawn, strict=True)]
        return torch.stack(handed[rank * len(images) : (rank + 1) * len(images)])

    def _exchanged(self, image: Tensor, draw: Tensor) -> Tensor:
        # Without a branch: asking a GPU whether the pool is full would halt it.
        full = self.filled >= self.size
        place = torch.where(full, (draw[1] * self.size).long(), self.filled)[None]
        old = self.images[place][0]
        swapped = full & (draw[0] < 0.5)
        self.images[place] = torch.where(full & ~swapped, old, image.to(old.dtype))
        self.filled.add_(~full)
        return torch.where(swapped, old, image)


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _gathered(share: Tensor, ranks: int) -> Tensor:
    if ranks == 1:
        return share
    parts = [torch.empty_like(share, memory_format=torch.contiguous_format) for _ in range(ranks)]
    distributed.all_gather(parts, share.contiguous())
    return torch.cat(parts)
