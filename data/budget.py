"""A bound on the pixels that the threads of one map hold, from decoding until a result is taken.

A thread asks before it takes the memory. The one whose result is wanted next never waits, so no two
threads can wait for each other; all others share what is left.
"""

import threading

IN_FLIGHT = 2**26  # pixels, beyond those of the item that is wanted next
_SMALL = 2**16  # pixels that are not counted, as locks take time

_thread = threading.local()  # its `work`: the budget and the number of the item that it works on


class Abandoned(Exception):
    """The map has ended while a thread waited."""


class Budget:
    """The pixels of one map, by the number of the item that they belong to."""

    def __init__(self, capacity: int = IN_FLIGHT) -> None:
        self._capacity = capacity
        self._held: dict[int, int] = {}
        self._next = 0
        self._is_over = False
        self._changed = threading.Condition()

    def work_on(self, number: int) -> None:
        """Let this thread ask for the item of this number from now on."""
        _thread.work = self, number

    def take(self, number: int, pixels: int) -> None:
        """Hold so many pixels for an item, or keep what it holds if that is more.

        Raises:
            Abandoned: the map ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._may_take(number, pixels))
            if self._is_over:
                raise Abandoned
            self._held[number] = max(pixels, self._held.get(number, 0))

    def _may_take(self, number: int, pixels: int) -> bool:
        others = sum(self._held.values()) - self._held.get(number, 0)
        return self._is_over or number <= self._next or others + pixels <= self._capacity

    def used_up(self, number: int) -> None:
        """Note that an item's result is not needed any more, and the following one is next."""
        with self._changed:
            self._held.pop(number, None)
            self._next = number + 1
            self._changed.notify_all()

    def end(self) -> None:
        """Note that no more results are wanted."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


def reserve(pixels: int) -> None:
    """Wait until this thread may hold so many pixels. Outside of a map's threads, do not wait.

    An item counts with the most that it asked for at once; what it held before is assumed freed.
    """
    work = getattr(_thread, "work", None)
    if work is not None and pixels > _SMALL:
        budget, number = work
        budget.take(number, pixels)
