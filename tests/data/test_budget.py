"""Pixels in flight: large pictures wait for each other, small ones do not, and nobody for ever."""

import threading
import time

import pytest

from data.budget import IN_FLIGHT, reserve
from data.parallel import ordered_map


class Gauge:
    """How many items are between asking for pixels and being used up."""

    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def hold(self, pixels: int) -> int:
        reserve(pixels)
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        return pixels

    def drop(self) -> None:
        with self.lock:
            self.now -= 1


def most_at_once(sizes: list[int]) -> int:
    gauge = Gauge()
    found = []
    for pixels in ordered_map(gauge.hold, sizes, num_threads=4):
        found.append(pixels)
        gauge.drop()
    assert found == sizes
    return gauge.most


@pytest.mark.parametrize(
    ("pixels", "most"), [(2 * IN_FLIGHT, 1), (IN_FLIGHT, 2), (IN_FLIGHT // 2, 3)]
)
def test_large_items_are_few_at_a_time(pixels: int, most: int) -> None:
    assert 1 <= most_at_once([pixels] * 12) <= most


def test_small_items_are_many_at_a_time() -> None:
    assert most_at_once([100] * 40) >= 3


def test_any_mixture_comes_to_its_end_in_order() -> None:
    sizes = [2 * IN_FLIGHT, 1, IN_FLIGHT, IN_FLIGHT // 3, 7, 2 * IN_FLIGHT, IN_FLIGHT // 2] * 5
    assert most_at_once(sizes) >= 1


def test_an_error_ends_those_that_wait() -> None:
    def work(number: int) -> int:
        reserve(2 * IN_FLIGHT)
        if number == 1:
            raise ValueError("one")
        return number

    results = ordered_map(work, range(20), num_threads=4)
    assert next(results) == 0
    with pytest.raises(ValueError, match="one"):
        next(results)


def test_outside_of_a_map_nobody_waits() -> None:
    reserve(100 * IN_FLIGHT)
