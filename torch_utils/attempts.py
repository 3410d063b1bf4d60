"""A name that the processes of one start agree on, in a store that may have seen earlier starts.

torchrun restarts all processes when one has failed, and keeps the store in which they meet. What
those before them have left there, addresses and notes of failure, must not be read again. Neither
the number of the restart nor the port tells starts apart on all machines.
"""

import time
import uuid
from datetime import timedelta
from typing import Any

_POLL = 0.01  # seconds between looks of the first process


def fresh_name(store: Any, rank: int, size: int, timeout: timedelta) -> str:
    """A name never used in the store before; all processes of this start get the same.

    The first process chooses it. Each of the others asks under a number of its own, so that an
    answer to a process of an earlier start is none to this one.

    Args:
        store: of torch.distributed, shared by the processes.
        rank: index of this process.
        size: number of processes.
        timeout: how long to wait for the others.

    Raises:
        RuntimeError: the others did not come, or the store is gone.
    """
    if rank:
        number = uuid.uuid4().hex
        store.set(f"asking/{rank}", number)
        store.wait([f"answer/{number}"], timeout)
        name = str(store.get(f"answer/{number}").decode())
        store.set(f"{name}/heard/{rank}", "1")
        return name

    name, answered = uuid.uuid4().hex, dict[int, bytes]()
    waiting, end = set(range(1, size)), time.monotonic() + timeout.total_seconds()
    while waiting:
        for other in sorted(waiting):
            if store.check([f"{name}/heard/{other}"]):
                waiting.remove(other)
            elif store.check([f"asking/{other}"]):
                number = store.get(f"asking/{other}")
                if answered.get(other) != number:
                    store.set(f"answer/{number.decode()}", name)
                    answered[other] = number
        if waiting and time.monotonic() > end:
            raise RuntimeError(f"process {min(waiting)} did not come within {timeout}")
        time.sleep(_POLL if waiting else 0)
    return name
