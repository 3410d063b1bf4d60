"""How many threads PyTorch computes with on a CPU, and how long they spin when they wait.

OpenMP and PyTorch read both from the environment when PyTorch is loaded. So this imports no
torch, and comes first in a program. What the user has set stays.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

# GNU OpenMP's own 300,000 turns take milliseconds. Beside a busy process the partner that is waited
# for has no core meanwhile, and every parallel loop costs that much (benchmarks/bench_neighbour.py)
SPINS = 1000
_SPINNING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def num_cores(process: int = 0) -> int:
    """Cores that a process may use.

    Args:
        process: its number; 0 for this one.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(process))
    return os.cpu_count() or 1


def set_defaults() -> None:
    """Set for this process, and those that it starts, what the user has not set.

    A process that has loaded PyTorch is left alone: it would not notice.
    """
    if "torch" not in sys.modules:
        os.environ.update(spinning(os.environ) | thread_share(os.environ, os.getppid()))


def spinning(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable that makes idle threads sleep soon; none if the user chose how they wait."""
    chosen = any(name in environment for name in _SPINNING)
    return {} if chosen else {"GOMP_SPINCOUNT": str(SPINS)}


def thread_share(environment: Mapping[str, str], launcher: int) -> dict[str, str]:
    """The variable that gives each process of torchrun its share of the machine's cores.

    torchrun allows several processes one thread each, unless the user has set OMP_NUM_THREADS. The
    environment that torchrun itself was started with tells who it was; /proc shows it on Linux.

    Args:
        environment: of a process.
        launcher: number of the process that started it.

    Returns:
        No variable if torchrun did not start the process, or did not choose the number.
    """
    processes = environment.get("LOCAL_WORLD_SIZE", "")
    if "TORCHELASTIC_RUN_ID" not in environment or not processes.isdecimal():
        return {}
    given = _started_with(launcher)
    if given is None or environment.get("OMP_NUM_THREADS") != "1" or given & set(_THREADS):
        return {}
    # a process that torchrun has bound to some cores takes no more of them
    share = min(num_cores(), num_cores(launcher) // max(1, int(processes)))
    return {"OMP_NUM_THREADS": str(max(1, share))}


def _started_with(process: int) -> set[str] | None:
    """Names of the variables that a process was started with; None if they cannot be read."""
    try:
        content = Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return None
    return {entry.partition("=")[0] for entry in os.fsdecode(content).split("\0")}
