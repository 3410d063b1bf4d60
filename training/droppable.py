"""Work between two steps that all processes share, and that a stop drops at any network call."""

import contextlib
from collections.abc import Callable
from typing import TypeVar

from torch_utils.distributed import World

Found = TypeVar("Found")


class _Dropped(Exception):
    """A stop was asked for during the work."""


def unless_stopped(
    world: World, stop: Callable[[], bool], work: Callable[[Callable[[], None]], Found]
) -> Found | None:
    """Do this process's share of some work, unless any process is asked to stop meanwhile.

    All processes must call. They wait for each other at the end, however long the shares take.

    Args:
        world: the processes.
        stop: True once this process was asked to stop.
        work: the share, which must not communicate. It is given a function to call as often as
            possible, such as at every network call, which ends the work if it is to be dropped.

    Returns:
        What `work` returned; None in all processes if any of them dropped it.
    """
    note = world.board.fresh("dropped")  # what a process that drops it tells the others

    def heed() -> None:
        if stop():
            world.board.post(note)
        if world.board.has(note):
            raise _Dropped

    found = None
    with contextlib.suppress(_Dropped):
        found = work(heed)
    world.meet()
    return None if any(world.any(world.board.has(note))) else found
