"""Work shared among threads."""

import threading
from collections.abc import Iterator

import pytest
import torch

from tomogen.threads import spread


@pytest.fixture(params=[1, 3], autouse=True)
def count(request: pytest.FixtureRequest) -> Iterator[int]:
    """As many threads as torch is set to use."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_items(count: int) -> None:
    assert spread(lambda item: item**2, iter(range(50))) == [item**2 for item in range(50)]
    assert spread(lambda item: item, []) == []


def test_as_many_pieces_run_at_once_as_torch_has_threads(count: int) -> None:
    together = threading.Barrier(count, timeout=20)
    assert sorted(spread(lambda _: together.wait(), range(count))) == list(range(count))


def test_each_piece_has_one_thread_of_torchs(count: int) -> None:
    assert spread(lambda _: torch.get_num_threads(), range(2 * count)) == [1] * 2 * count
    assert torch.get_num_threads() == count


def test_torchs_threads_return_after_an_error(count: int) -> None:
    with pytest.raises(ZeroDivisionError):
        spread(lambda item: 1 / item, [1, 0, 2])
    assert torch.get_num_threads() == count
