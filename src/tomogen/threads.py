"""Threads: many small pieces of torch's work shared among as many threads as torch is set to use."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What the function gives for each item, in order; every call has one thread of torch's to itself.

    Threads of torch inside one small product wait for one another, on a busy machine forty times as long as the
    product takes. The setting is each thread's own, for the matrix library at least: hence the initializer.
    """
    import torch

    items = list(items)
    count = torch.get_num_threads()
    threads = min(count, len(items))
    torch.set_num_threads(1)
    try:
        if threads < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(count)
