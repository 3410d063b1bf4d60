"""True values on a pretended device: each operation is computed on the CPU as well.

A tensor on the device is host memory, so a CPU tensor can be laid over it. What PyTorch does for
the device stays as it is; afterwards the same operation runs on the CPU tensors, and its results
are written to where the device's results lie.
"""

import atexit
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from networks.dropout import dropout
from tests.pretend.attention import EFFICIENT_ATTENTION
from tests.pretend.fused import FUSED

_COMPUTING = ("aten", "driftless")  # namespaces of operations that compute values
# operations that make, move or look at tensors without computing values
_WITHOUT_VALUES = (
    "_local_scalar_dense",
    "_pin_memory",
    "alias",
    "detach",
    "is_pinned",
    "lift_fresh",
    "record_stream",
    "resize_",
    "set_",
)


def host(tensor: Tensor) -> Tensor | None:
    """A CPU tensor over the memory of a device tensor; None if it has no memory."""
    if tensor.numel() == 0:
        return torch.empty(0, dtype=tensor.dtype).as_strided(tensor.shape, tensor.stride())
    storage = tensor.untyped_storage()
    if tensor._is_zerotensor() or storage.nbytes() == 0:
        return None
    memory = torch._C._construct_storage_from_data_pointer(
        storage.data_ptr(), torch.device("cpu"), storage.nbytes()
    )
    over: Tensor = torch.empty(0, dtype=tensor.dtype)
    return over.set_(memory, tensor.storage_offset(), tensor.shape, tensor.stride())


class Computing(TorchDispatchMode):
    """The mode in which device tensors have values.

    Attributes:
        failed: operations that could not be computed on the CPU, and the error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failed: Counter[str] = Counter()
        self._generators: dict[int, torch.Generator] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = leaves((args, kwargs))
        # looked up first: the call moves the device's counter
        twins = {id(leaf): self._twin(leaf) for leaf in given if _is_device_generator(leaf)}
        made = func(*args, **kwargs)
        if not _has_values_to_fill(func, given, leaves(made)):
            return made

        def on_host(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and leaf.is_cuda:
                if leaf._is_zerotensor():
                    return torch._efficientzerotensor(leaf.shape, dtype=leaf.dtype)
                return host(leaf)
            if isinstance(leaf, torch.device) and leaf.type == "cuda":
                return torch.device("cpu")
            return twins.get(id(leaf), leaf)

        try:
            host_kwargs = {**_mapped(on_host, kwargs), **_unpinned(kwargs)}
            compute = _ON_HOST.get(func.__name__, func)
            true = compute(*_mapped(on_host, args), **host_kwargs)
        except Exception as error:  # told at the end: the program shall show what it does next
            self.failed[f"{func.__name__}: {type(error).__name__} {str(error)[:120]}"] += 1
            return made
        return _filled(made, true)

    def _twin(self, generator: torch.Generator) -> torch.Generator:
        """The CPU generator that draws for a device's; it starts anew when that one does."""
        key = generator._cdata
        if key not in self._generators or generator.get_offset() == 0:
            self._generators[key] = torch.Generator().manual_seed(generator.initial_seed())
        return self._generators[key]


def _native_dropout(x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """Dropout with the mask that a CPU draws."""
    mask = dropout(torch.ones_like(x), p, bool(train))
    return x * mask, mask != 0


_ON_HOST = {**EFFICIENT_ATTENTION, **FUSED, "native_dropout.default": _native_dropout}


def leaves(value: Any) -> list[Any]:
    """What operations are given or return, out of its tuples, lists and dicts."""
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves(item)]
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    return [value]


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The same structure with other leaves."""
    if isinstance(value, (tuple, list)):
        return type(value)([_mapped(function, item) for item in value])
    if isinstance(value, dict):
        return {key: _mapped(function, item) for key, item in value.items()}
    return function(value)


def _is_device_generator(leaf: Any) -> bool:
    return isinstance(leaf, torch.Generator) and leaf.device.type == "cuda"


def _is_on_device(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_cuda


def _unpinned(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"pin_memory": False} if kwargs.get("pin_memory") else {}


def _has_values_to_fill(func: Any, given: list[Any], made: list[Any]) -> bool:
    """Whether an operation has computed something on the device, or would have."""
    name, tensors = func.__name__, [leaf for leaf in made if isinstance(leaf, Tensor)]
    if not any(_is_on_device(leaf) for leaf in [*given, *tensors]):
        return False
    if func.namespace not in _COMPUTING or "empty" in name or name.startswith(_WITHOUT_VALUES):
        return False
    if name.startswith(("_to_copy", "copy_")) and not all(t.is_cuda for t in tensors):
        return False  # to the host: a real copy
    if func.is_view:  # a copy if it has to be, as reshape
        before = {leaf.untyped_storage()._cdata for leaf in given if isinstance(leaf, Tensor)}
        return any(t.untyped_storage()._cdata not in before for t in tensors)
    return True


def _filled(made: Any, true: Any) -> Any:
    """What the device made, with the values of what the CPU made."""
    pairs = [
        (ours, theirs)
        for ours, theirs in zip(leaves(made), leaves(true), strict=False)
        if isinstance(ours, Tensor) and ours.is_cuda and isinstance(theirs, Tensor)
    ]
    if any(ours.shape != theirs.shape for ours, theirs in pairs):  # shapes that depend on values
        device = pairs[0][0].device
        return _mapped(lambda leaf: _on_device(leaf, device), true)
    for ours, theirs in pairs:
        memory = host(ours)
        if memory is not None and ours.numel() and memory.data_ptr() != theirs.data_ptr():
            memory.copy_(theirs)
    return made


def _on_device(leaf: Any, device: torch.device) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    moved = torch.empty_like(leaf, device=device)
    memory = host(moved)
    if memory is not None:
        memory.copy_(leaf)
    return moved


def run(function: Callable[[], Any]) -> Any:
    """Call a function with true values.

    Raises:
        AssertionError: an operation could not be computed.
    """
    mode = Computing()
    with mode:
        result = function()
    assert not mode.failed, dict(mode.failed)
    return result


def begin() -> None:
    """Give true values for the rest of the process, and say at its end what had none."""
    mode = Computing()
    mode.__enter__()

    def tell() -> None:
        if mode.failed:
            print("not computed on the CPU:", dict(mode.failed), file=sys.stderr)

    atexit.register(tell)
