"""What torchrun does on one machine, with forks instead of interpreters: see tests/preloaded.py.

The processes get its variables and sessions of their own, and meet in a store of the launcher. If
one fails the others get SIGTERM, and a signal to the launcher goes on to all. What is not here:
restarts, and the report of what failed. Tests of the launcher itself start the real one.
"""

import contextlib
import os
import signal
import socket
import time
import uuid
from datetime import timedelta
from types import FrameType

_LOOKS_EVERY = 0.02  # seconds
_PATIENCE = 30.0  # seconds from a signal to SIGKILL
_MEETING = timedelta(minutes=5)
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def variables(rank: int, num: int, port: int, name: str) -> dict[str, str]:
    """What torchrun adds to the environment of a process.

    Args:
        rank: of the process.
        num: of processes.
        port: where their store listens.
        name: of the run.
    """
    size, first = str(num), str(rank)
    return {
        **{"RANK": first, "LOCAL_RANK": first, "ROLE_RANK": first, "GROUP_RANK": "0"},
        **{"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "ROLE_WORLD_SIZE": size},
        **{"GROUP_WORLD_SIZE": "1", "ROLE_NAME": "default"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        **{"TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0"},
        **{"TORCHELASTIC_RUN_ID": name, "TORCHELASTIC_USE_AGENT_STORE": "True"},
        "TORCHELASTIC_SIGNALS_TO_HANDLE": ",".join(number.name for number in _SIGNALS),
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
    }


def launch(num: int) -> None:
    """Fork so many processes. Returns in each of them; this one waits for them and ends."""
    from torch.distributed import TCPStore  # what tests import does not need PyTorch

    listening, name = socket.create_server(("127.0.0.1", 0)), str(uuid.uuid4())
    port = listening.getsockname()[1]
    asked, ranks = list[int](), set[int]()

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    for rank in range(num):
        process = os.fork()
        if process == 0:
            listening.close()
            os.setsid()
            for number, handler in before.items():
                signal.signal(number, handler)
            os.environ.update(variables(rank, num, port, name))
            return
        ranks.add(process)
    # a thread, and so after the forks
    store = TCPStore(
        *("127.0.0.1", port, None, True, _MEETING),
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )
    code = _attend(ranks, asked)
    del store
    os._exit(code)


def _attend(ranks: set[int], asked: list[int]) -> int:
    """Wait for the processes, or until a signal is noted; the launcher's exit code."""
    while ranks:
        process, status = os.waitpid(-1, os.WNOHANG)
        ranks.discard(process)
        if asked or status:
            _end(ranks, asked[0] if asked else signal.SIGTERM)
            return 1
        if not process:
            time.sleep(_LOOKS_EVERY)
    return 0


def _end(ranks: set[int], number: int) -> None:
    """Send a signal to the processes that are left, and kill what is still there much later."""
    end = time.monotonic() + _PATIENCE
    for process in ranks:
        os.killpg(process, number)
    while ranks and time.monotonic() < end:
        process, _ = os.waitpid(-1, os.WNOHANG)
        ranks.discard(process)
        if not process:
            time.sleep(_LOOKS_EVERY)
    for process in ranks:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
