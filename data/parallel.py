"""A lazy ordered map over threads.

Pillow releases the interpreter lock while it decodes, resizes and encodes, so that threads are
enough for images.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from data.budget import Budget
from torch_utils.threads import num_cores

Item = TypeVar("Item")
Result = TypeVar("Result")
_RUN_SECONDS = 0.004
_LONGEST_RUN = 32  # items


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], num_threads: int | None = None
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, computed a little ahead by threads.

    The first exception, in the order of the items, is raised and ends the work. The large pictures
    that threads and waiting results hold are bounded, see `data.budget`.

    Args:
        function: safe to be called by several threads at once; a result counts until the next one
            is asked for.
        items: what to call it with.
        num_threads: None for one a core, at most 8. One is the caller's own: each result is
            computed when it is asked for.
    """
    num_threads = num_threads or min(8, num_cores())
    if num_threads == 1:  # another one would wait for the caller half of the time
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    pool, budget, first = ThreadPoolExecutor(num_threads), Budget(), 0

    def work(number: int, item: Item) -> Result:
        budget.work_on(number)
        return function(item)

    try:
        for number, item in enumerate(items):
            pending.append(pool.submit(work, number, item))
            if len(pending) >= 2 * num_threads:
                yield pending.popleft().result()
                budget.used_up(first)
                first += 1
        while pending:
            yield pending.popleft().result()
            budget.used_up(first)
            first += 1
    finally:
        budget.end()
        pool.shutdown(cancel_futures=True)


@dataclass
class _Done(Generic[Item, Result]):
    """What came of a run: results of its first items, and what ended it early."""

    results: list[Result] = field(default_factory=list)
    error: Exception | None = None
    rest: Sequence[Item] = ()
    seconds: float = 0.0


def in_runs(
    function: Callable[[Item], Result], items: Sequence[Item], num_threads: int | None = None
) -> Iterator[Result]:
    """As `ordered_map`, for items of which each may take very little time.

    To hand an item to a thread takes longer than to decode a small image. So a thread gets several
    at once, as many as take about `_RUN_SECONDS` by what earlier ones took.
    """
    length = 1

    def runs() -> Iterator[Sequence[Item]]:
        first = 0
        while first < len(items):
            run = items[first : first + length]
            first += len(run)
            yield run

    def work(run: Sequence[Item]) -> _Done[Item, Result]:
        done, start = _Done[Item, Result](), time.perf_counter()
        for number, item in enumerate(run):
            try:
                done.results.append(function(item))
            except Exception as error:  # of this item, so it counts only after those before it
                done.error = error
                break
            done.seconds = time.perf_counter() - start
            if done.seconds > 4 * _RUN_SECONDS:  # these are slower, and may be much larger
                done.rest = run[number + 1 :]
                break
        return done

    for done in ordered_map(work, runs(), num_threads):
        yield from done.results
        if done.error is not None:
            raise done.error
        for item in done.rest:
            yield function(item)
        each = done.seconds / len(done.results)
        length = max(1, min(_LONGEST_RUN, int(_RUN_SECONDS / max(each, 1e-9))))
