"""Two threads that share the cores of a CPU: each computes half of a batch, without the other.

PyTorch has all its threads compute one operation at a time, and wait for each other after it. A
network has hundreds of operations. Where each thread has images of its own, it waits once a call.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

import torch
from torch import Tensor


def may_share() -> bool:
    """Whether the threads of PyTorch can be shared out to two, none left over."""
    return torch.get_num_threads() % 2 == 0


class TwoThreads:
    """The two threads; they start with the first work. A `with` block, which ends them.

    Each has half of the threads that PyTorch computes with in the thread that starts them.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def both(self, first: Callable[[], Tensor], second: Callable[[], Tensor]) -> list[Tensor]:
        """The results of two pieces of work without gradients, done at the same time.

        Work that fails ends this too, once the other piece is done.
        """
        if self._pool is None:
            self._pool = _started()
        # which mode a thread computes in, only that thread knows
        mode = torch.inference_mode if torch.is_inference_mode_enabled() else torch.no_grad

        def without_gradients(work: Callable[[], Tensor]) -> Tensor:
            with mode():
                return work()

        done: list[Future[Tensor]] = [
            self._pool.submit(without_gradients, work) for work in (first, second)
        ]
        wait(done)
        return [made.result() for made in done]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _started() -> ThreadPoolExecutor:
    """A pool of two threads that are there, and know with how many threads to compute."""
    total = torch.get_num_threads()

    def take_half() -> None:
        torch.set_num_threads(max(1, total // 2))
        torch.get_num_threads()  # the first question is answered for good: what was set last

    pool = ThreadPoolExecutor(2, "half of a batch", initializer=take_half)
    together = threading.Barrier(2)  # a pool starts no second thread while the first is idle
    wait([pool.submit(together.wait) for _ in range(2)])
    torch.set_num_threads(total)  # what was set counts for threads that others start later, too
    return pool
