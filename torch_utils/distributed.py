"""Processes: torchrun's environment when it is there, a world of one when it is not.

Collectives have a time limit, after which the run is lost. Work that takes some processes longer
than others is therefore followed by `World.meet`, which waits without one.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from torch_utils import leaving
from torch_utils.attempts import fresh_name
from torch_utils.errors import Failure, UserError

COLLECTIVE_LIMIT = timedelta(minutes=30)
_FIRST_POLL, _LAST_POLL = 0.005, 0.5  # seconds between looks at the board while waiting
_DYING = 10.0  # seconds that a killed process may take to be gone
# what gloo and NCCL say when a peer has gone
_LOST = ("connection closed", "connection reset", "broken pipe", "socket", "remote process exited")


class Board:
    """A place for notes between processes: the key-value store behind the process group.

    Args:
        store: the store, or None in a world of one.

    Attributes:
        is_lost: the store no longer answers: whoever held it, launcher or first process, is gone.
    """

    def __init__(self, store: Any = None) -> None:
        self.is_lost = False
        self._store = store
        self._own: set[str] = set()
        self._num_names = 0

    def fresh(self, kind: str) -> str:
        """A name not used before; the n-th call gives the same in every process."""
        self._num_names += 1
        return f"{kind}-{self._num_names}"

    def post(self, note: str) -> None:
        """Leave a note; posting it again changes nothing."""
        self._own.add(note)
        self._ask(lambda store: store.set(note, "1"), None)

    def has(self, note: str) -> bool:
        """Whether any process is known to have left the note, without waiting."""
        return note in self._own or bool(self._ask(lambda store: store.check([note]), False))

    def count(self, name: str, num: int = 0) -> int:
        """Add to a counter that all share, and return its new value."""
        return int(self._ask(lambda store: store.add(name, num), 0))

    def _ask(self, question: Callable[[Any], Any], otherwise: Any) -> Any:
        if self._store is None or self.is_lost:
            return otherwise
        try:
            return question(self._store)
        except RuntimeError:
            self.is_lost = True
            return otherwise


_MEETING = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets


@dataclass(frozen=True)
class World:
    """This process's place.

    Attributes:
        rank: index of this process.
        size: number of processes.
        device: where this process computes.
        is_group: whether torchrun started it, even as the only one, and collectives run.
        board: notes between processes.
        launcher: process number of what started this one; None in a world of one.
    """

    rank: int
    size: int
    device: torch.device
    is_group: bool = False
    board: Board = field(default_factory=Board)
    launcher: int | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    @property
    def is_orphan(self) -> bool:
        """Whether the launcher has died, so that nobody will end or restart this process."""
        return self.launcher is not None and os.getppid() != self.launcher

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

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process. All processes must ask."""
        if not self.is_group:
            return list(flags)
        # on the CPU, so that asking never waits for a GPU's queue
        return [bool(total) for total in self.sum(torch.tensor(flags, dtype=torch.int32)).tolist()]

    def meet(self) -> None:
        """Wait until every process is here, however long the work of the others takes.

        If the launcher was killed, the board is gone, and this returns without waiting.

        Raises:
            Failure: another process has failed or cannot be reached.
        """
        name, pause = self.board.fresh("meeting"), _FIRST_POLL
        if not self.is_group:
            return
        self.board.count(name, 1)
        while self.board.count(name) < self.size:
            if self.board.is_lost:
                if self._becomes_orphan():
                    return  # the other processes still run: the next collective waits for them
                raise Failure("lost contact with the other processes of this run")
            if self.board.has(_FAILED):
                raise Failure("another process of this run has failed")
            time.sleep(pause)
            pause = min(2 * pause, _LAST_POLL)

    def _becomes_orphan(self) -> bool:
        """Whether the store was lost because the launcher dies: its files close before it ends."""
        end = time.monotonic() + _DYING
        while not self.is_orphan and time.monotonic() < end:
            time.sleep(_FIRST_POLL)
        return self.is_orphan

    def share(self, value: str | None) -> str:
        """Give the main process's text to all."""
        box = [value]
        if self.is_group:
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        assert box[0] is not None
        return box[0]


_FAILED = "failed"  # the note of a process that ends by an exception


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that `auto`, `cpu`, `cuda`, or one GPU such as `cuda:1`, means for this process.

    Raises:
        UserError: no such name, or CUDA was asked for and is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device(name)
    kind, colon, index = name.partition(":")
    if kind != "cuda" or (colon and not index.isdecimal()):
        raise UserError(f"device is {name!r}: give auto, cpu, cuda, or one GPU such as cuda:1")
    if not torch.cuda.is_available():
        raise UserError("device cuda was asked for, but this PyTorch sees no CUDA device: use cpu")
    num = torch.cuda.device_count()
    if index and int(index) >= num:
        raise UserError(f"device is {name!r}, but there are {num} GPUs, counted from cuda:0")
    if not index and local_rank >= num:
        raise UserError(
            f"process {local_rank} of this machine has no GPU: there are {num}; start at most that "
            "many processes"
        )
    return torch.device("cuda", int(index or local_rank))


def set_numerics() -> None:
    """Let float32 mean float32: TF32 would keep 10 of its 23 bits; bf16 is the fast way."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def is_launched() -> bool:
    """Whether torchrun started this process, as the environment says.

    Job systems set WORLD_SIZE for purposes of their own: 1 means nothing.

    Raises:
        UserError: several processes are announced without the variables that they need to meet, or
            a variable is not a number.
    """
    missing = [name for name in _MEETING if not os.environ.get(name)]
    # Kubernetes sets MASTER_PORT to a URL if there is a service named master
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", *(() if missing else ("MASTER_PORT",))):
        if not os.environ.get(name, "0").strip().isdecimal():
            raise UserError(f"{name} is {os.environ[name]!r}, which is not a number: unset it")
    size = os.environ.get("WORLD_SIZE", "1")
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
        Failure: the other processes cannot be reached.
    """
    is_group = is_launched()
    device = choose_device(device_name, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    set_numerics()
    if not is_group:
        yield World(0, 1, device)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, size = next(rendezvous("env://", timeout=COLLECTIVE_LIMIT))
        start = fresh_name(store, rank, size, COLLECTIVE_LIMIT)
        group_store = PrefixStore(f"{start}/group", store)
        dist.init_process_group(
            backend, store=group_store, rank=rank, world_size=size, timeout=COLLECTIVE_LIMIT
        )
    except RuntimeError as error:
        raise Failure(_lost_line(error)) from None
    leaving.has_joined_group = True
    board = Board(PrefixStore(f"{start}/board", store))
    try:
        yield World(rank, size, device, is_group=True, board=board, launcher=os.getppid())
    except BaseException as error:
        board.post(_FAILED)  # to those who wait for this process
        if isinstance(error, RuntimeError) and _is_lost(error):
            raise Failure(_lost_line(error)) from None
        raise
    # not after a failure: leaving the group in good order would then wait for collectives that the
    # others never join; they notice when this process ends
    dist.destroy_process_group()


def _lost_line(error: BaseException) -> str:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return f"lost contact with the other processes of this run: {first[:200]}"


def _is_lost(error: RuntimeError) -> bool:
    text = str(error).lower()
    is_of_group = isinstance(error, dist.DistError) or "gloo" in text or "nccl" in text
    return is_of_group and any(words in text for words in _LOST)
