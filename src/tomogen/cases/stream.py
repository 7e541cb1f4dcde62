"""A feed to an endless stream of Batches that can start at any image; a thread makes them in order, ahead of time."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from tomogen.batch import Batch
from tomogen.cases.feed import Feed

AHEAD = 3
"""Batches made before they are asked for."""


def stream(feed: Feed, *, batch: int, seed: int, start: int = 0, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
    """Batches of images and conditions `(batch, ...)` float32, without end.

    `batch` is the share of one rank: each round of all `ranks` takes `ranks * batch` images, of which rank r has
    rows `r * batch` to `(r + 1) * batch`, so that the ranks together see what one process with `ranks * batch`
    sees. `start` counts the images already taken by all ranks.

    Raises:
        DataInvalid: the feed has fewer images than one round takes.
    """
    feed.enough(batch * ranks)
    return _prefetched(feed, batch, seed, start + rank * batch, batch * ranks)


def _prefetched(feed: Feed, batch: int, seed: int, first: int, stride: int) -> Iterator[Batch]:
    import torch

    def make(first: int) -> Batch:
        samples = [feed.draw(seed, first + row) for row in range(batch)]
        image = torch.from_numpy(np.stack([sample.image for sample in samples]))
        names = samples[0].condition
        return Batch(
            image, {name: torch.from_numpy(np.stack([one.condition[name] for one in samples])) for name in names}
        )

    pending: deque[Future[Batch]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="cases")
    try:
        while True:
            while len(pending) <= AHEAD:
                pending.append(pool.submit(make, first))
                first += stride
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
