"""A lazy ordered map over threads.

Pillow releases the interpreter lock while it decodes, resizes and encodes, so that threads are
enough for images.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from data.budget import Budget
from torch_utils.threads import num_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


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
        num_threads: None for one a core, at most 8.
    """
    num_threads = num_threads or min(8, num_cores())
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
