"""Processes: torchrun's environment when it is there, a world of one when it is not."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from torch_utils import leaving
from torch_utils.errors import UserError

_MEETING = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets


@dataclass(frozen=True)
class World:
    """This process's place.

    Attributes:
        rank: index of this process.
        size: number of processes.
        device: where this process computes.
        is_group: whether torchrun started it, be it alone, and collectives run.
    """

    rank: int
    size: int
    device: torch.device
    is_group: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the processes, in place; every process gets the result."""
        if self.is_group:
            dist.all_reduce(tensor)
        return tensor

    def max(self, tensor: torch.Tensor) -> torch.Tensor:
        """Largest value over the processes, elementwise, in place; every process gets it."""
        if self.is_group:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor

    def range_of(self, num: int) -> tuple[int, int]:
        """This process's share of `num` things in order: (first, stop)."""
        return num * self.rank // self.size, num * (self.rank + 1) // self.size

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process. All processes must ask."""
        if not self.is_group:
            return flag
        # on the CPU, so that asking never waits for a GPU's queue
        return bool(self.sum(torch.tensor(int(flag))))

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.is_group:
            dist.barrier()

    def share(self, value: str | None) -> str:
        """Give the main process's text to all."""
        box = [value]
        if self.is_group:
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        assert box[0] is not None
        return box[0]


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means for this process.

    Raises:
        UserError: CUDA was asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cuda":
        return torch.device(name)
    if not torch.cuda.is_available():
        raise UserError("device cuda was asked for, but this PyTorch sees no CUDA device: use cpu")
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"process {local_rank} of this machine has no GPU: there are "
            f"{torch.cuda.device_count()}; start at most that many processes"
        )
    return torch.device("cuda", local_rank)


def is_launched() -> bool:
    """Whether torchrun started this process, as the environment says.

    Job systems set WORLD_SIZE for purposes of their own: 1 means nothing.

    Raises:
        UserError: several processes are announced without what they need to meet, or a number is
            none.
    """
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        if not os.environ.get(name, "0").strip().isdecimal():
            raise UserError(f"{name} is {os.environ[name]!r}, which is no number: unset it")
    size = os.environ.get("WORLD_SIZE", "1")
    missing = [name for name in _MEETING if not os.environ.get(name)]
    if not missing:
        return True
    if int(size) == 1:
        return False
    raise UserError(
        f"WORLD_SIZE is {size}, but there is no {', '.join(missing)}: start with torchrun, or "
        "unset WORLD_SIZE for one process"
    )


@contextlib.contextmanager
def world(device_name: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started; without torchrun, be a world of one.

    NCCL carries CUDA tensors and gloo the rest. The group is left when the block ends.

    Args:
        device_name: auto, cpu or cuda.

    Raises:
        UserError: the device is not there, or the variables of torchrun are incomplete.
    """
    is_group = is_launched()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = choose_device(device_name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # float32 means float32: TF32 would keep 10 of its 23 bits; bf16 is the fast way
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    if not is_group:
        yield World(0, 1, device)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=30))
    leaving.needs_short_way = True
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device, is_group=True)
    finally:
        dist.destroy_process_group()
