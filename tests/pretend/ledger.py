"""What each operation of a program costs on the device: launches, and bytes read and written.

Launches are the runtime's. Bytes are those of kernels that read each input once and write each
output once, whatever caches do. Those of matrix products, convolutions and attention are left out:
such kernels are bound by arithmetic. The bias of a convolution is counted, since PyTorch adds it to
the output in a kernel of its own and sums its gradient in another.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.pretend.computing import leaves
from tests.pretend.events import counts, line_of_ours

_PRODUCTS = ("convolution", "mm.", "addmm.", "bmm.", "baddbmm.", "_scaled_dot_product")
_NO_KERNEL = (
    "empty",
    "new_empty",
    "detach",
    "alias",
    "set_",
    "resize_",
    "record_stream",
    "_unsafe_view",
)
_ONLY_WRITE = ("fill_.", "zero_.", "copy_.", "normal_.", "uniform_.", "bernoulli_.", "random_.")


@dataclass
class Cost:
    """Calls of an operation, their launches (kernels and library calls) and their bytes."""

    calls: int = 0
    launches: int = 0
    bytes: int = 0

    def add(self, other: "Cost") -> None:
        """Add what others cost."""
        self.calls += other.calls
        self.launches += other.launches
        self.bytes += other.bytes


class Ledger(TorchDispatchMode):
    """The mode that writes down what operations on device tensors cost.

    Attributes:
        costs: (operation, line of ours or step of the backward pass) -> cost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.costs: defaultdict[tuple[str, str], Cost] = defaultdict(Cost)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        before = _launches()
        made = func(*args, **(kwargs or {}))
        launches = _launches() - before
        size = bytes_moved(func, args, kwargs or {}, made)
        if launches or size:
            self.costs[func.__name__, _place()].add(Cost(1, launches, size))
        return made

    def total(self) -> Cost:
        """All operations together."""
        return _sums({key: "" for key in self.costs}, self.costs).get("", Cost())

    def by_operation(self) -> dict[str, Cost]:
        """Costs by operation, those of most launches first."""
        return _sums({key: key[0] for key in self.costs}, self.costs)

    def by_place(self) -> dict[str, Cost]:
        """Costs by operation and place, those of most launches first."""
        return _sums({key: f"{key[0]}  {key[1]}" for key in self.costs}, self.costs)


def _sums(names: dict[tuple[str, str], str], costs: dict[tuple[str, str], Cost]) -> dict[str, Cost]:
    sums: defaultdict[str, Cost] = defaultdict(Cost)
    for key, cost in costs.items():
        sums[names[key]].add(cost)
    return dict(sorted(sums.items(), key=lambda item: astuple(item[1])[1:], reverse=True))


def _launches() -> int:
    found = counts()
    return found["launch"] + found["library"]


def _place() -> str:
    """The line of ours that runs, or the node of the graph that autograd is at."""
    node = torch._C._current_autograd_node()
    return line_of_ours() if node is None else f"backward of {node.name()}"


def bytes_moved(func: Any, args: Sequence[Any], kwargs: dict[str, Any], made: Any) -> int:
    """Bytes that an operation reads and writes, as this module counts."""
    name: str = func.__name__
    if func.is_view or name.startswith(_NO_KERNEL):
        return 0
    outputs = [leaf for leaf in leaves(made) if isinstance(leaf, Tensor)]
    if name.startswith("convolution_backward"):
        bias = outputs[2:]
        return _size(args[0]) if bias else 0
    if name.startswith("convolution"):
        return 2 * _size(outputs[0]) if args[2] is not None else 0
    if name.startswith(_PRODUCTS):
        return 0
    read, written = 0, {id(tensor): tensor for tensor in outputs}
    for index, argument in enumerate(func._schema.arguments):
        value = args[index] if index < len(args) else kwargs.get(argument.name)
        tensors = [leaf for leaf in leaves(value) if isinstance(leaf, Tensor)]
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        if is_written:
            written |= {id(tensor): tensor for tensor in tensors}
        if not is_written or not (argument.is_out or name.startswith(_ONLY_WRITE)):
            read += sum(map(_size, tensors))
    return read + sum(map(_size, written.values()))


def _size(tensor: Tensor) -> int:
    """Bytes of what a tensor refers to on the device: a number that is repeated is read once."""
    if not tensor.is_cuda:
        return 0
    sizes = [n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return torch.Size(sizes).numel() * tensor.element_size()
