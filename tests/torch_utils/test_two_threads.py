"""Two threads that compute at the same time, each with half of PyTorch's threads."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from torch_utils.two_threads import TwoThreads, may_share


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    """PyTorch computes with four threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_both_pieces_run_at_the_same_time_in_order() -> None:
    meeting = threading.Barrier(2, timeout=30)

    def work(value: float) -> Tensor:
        meeting.wait()  # passed only if the other one runs too
        return torch.tensor(value)

    with TwoThreads() as threads:
        for _ in range(3):
            assert threads.both(lambda: work(1.0), lambda: work(2.0)) == [1.0, 2.0]


def test_each_has_half_of_the_threads_and_others_keep_theirs() -> None:
    def number() -> Tensor:
        return torch.tensor(torch.get_num_threads())

    found = list[int]()
    with TwoThreads() as threads:
        assert threads.both(number, number) == [2, 2]
        assert torch.get_num_threads() == 4
        later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        later.start()
        later.join()
    assert found == [4]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_they_compute_without_gradients_in_the_callers_mode(mode: type) -> None:
    weight = torch.ones(2, requires_grad=True)
    with TwoThreads() as threads, mode():
        for made in threads.both(lambda: 2 * weight, lambda: 3 * weight):
            assert not made.requires_grad
            assert made.is_inference() == (mode is torch.inference_mode)


def test_an_error_of_one_comes_when_the_other_is_done() -> None:
    failed, done = threading.Event(), threading.Event()

    def fails() -> Tensor:
        failed.set()
        raise ValueError("no")

    def works() -> Tensor:
        assert failed.wait(30)
        time.sleep(0.2)  # the error is known long before
        done.set()
        return torch.ones(1)

    with TwoThreads() as threads:
        with pytest.raises(ValueError, match="no"):
            threads.both(fails, works)
        assert done.is_set()
        assert threads.both(works, works) == [1, 1]


def test_the_block_ends_the_threads_and_none_start_without_work() -> None:
    before = threading.active_count()
    with TwoThreads() as threads:
        assert threading.active_count() == before
        threads.both(lambda: torch.ones(1), lambda: torch.ones(1))
        assert threading.active_count() == before + 2
    assert threading.active_count() == before


@pytest.mark.parametrize(("num", "expected"), [(1, False), (2, True), (3, False), (6, True)])
def test_only_even_numbers_of_threads_are_shared(num: int, expected: bool) -> None:
    torch.set_num_threads(num)
    assert may_share() == expected
