"""Run a script of ours with little memory: `python -m tests.limited MIB [--rank=R] train.py ...`.

The limit, on Linux, is what the process has mapped when PyTorch is loaded and so many MiB more;
with a rank, of that process of the job alone.
"""

import os
import resource
import runpy
import sys
from pathlib import Path

# all that is large is loaded before the limit
import torch
import torch._dynamo

import training.loop  # noqa: F401


def mapped() -> int:
    """Bytes of address space in use."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmSize:"))


def limit(mebibytes: int) -> None:
    """Let this process map so much more than it has."""
    torch.ones(1, requires_grad=True).sum().backward()  # starts autograd's threads
    most = mapped() + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    mebibytes, *sys.argv = sys.argv[1:]
    rank = None
    if sys.argv[0].startswith("--rank="):
        rank = sys.argv.pop(0).removeprefix("--rank=")
    if rank in (None, os.environ.get("RANK")):
        limit(int(mebibytes))
    runpy.run_path(sys.argv[0], run_name="__main__")
