"""Processes that are started again agree on a name of their own, whatever the store remembers."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from torch_utils.attempts import fresh_name

SECONDS = timedelta(seconds=30)


def names(store: dist.HashStore, ranks: list[int], size: int) -> list[str]:
    """What processes of one start agree on, in the order in which they come."""
    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(lambda rank: fresh_name(store, rank, size, SECONDS), ranks))


def test_all_get_one_name_and_those_of_another_start_get_another() -> None:
    store = dist.HashStore()
    starts = [
        names(store, [0, 1, 2], 3),
        names(store, [2, 1, 0], 3),
        names(store, [1, 0], 2),  # fewer machines are left
        names(store, [0, 1, 2, 3], 4),
        names(store, [0], 1),
    ]
    assert [len(set(found)) for found in starts] == [1] * 5
    assert len({found[0] for found in starts}) == 5


def test_what_a_start_that_failed_has_left_is_not_taken_for_this_one() -> None:
    """One process had asked and was killed; another had been answered."""
    store = dist.HashStore()
    store.set("asking/1", "of a process that is gone")
    store.set("asking/2", "and of another")
    store.set("answer/and of another", "old")
    found = names(store, [0, 1, 2], 3)
    assert len(set(found)) == 1
    assert found[0] != "old"


def test_who_does_not_come_is_named() -> None:
    store, limit = dist.HashStore(), timedelta(seconds=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fresh_name, store, 0, 3, limit)
        assert fresh_name(store, 1, 3, SECONDS)
        with pytest.raises(RuntimeError, match="process 2 did not come"):
            first.result()
