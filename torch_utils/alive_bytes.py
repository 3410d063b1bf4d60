"""Counting the bytes that tensors take, also those without values."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class AliveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors made within the context that are still in use.

    Attributes:
        now: bytes at present.
        peak: the most so far.
    """

    def __init__(self, *, as_on_gpu: bool = False) -> None:
        """Start from nothing.

        Args:
            as_on_gpu: count masks of dropout as on GPUs, one byte an element; CPUs have numbers.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._as_on_gpu = as_on_gpu
        self._known: dict[int, tuple[int, weakref.ref[Any]]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._known:
                    self._note(storage, storage.nbytes())
        if self._as_on_gpu and _makes_a_mask(func, result):
            self._note(result.untyped_storage(), result.numel())
        return result

    def _note(self, storage: torch.UntypedStorage, size: int) -> None:
        """Count a storage as so many bytes, until it is gone."""
        key = storage._cdata

        def forget(_: Any = None) -> None:
            known = self._known.pop(key, None)
            self.now -= 0 if known is None else known[0]

        forget()
        self._known[key] = size, weakref.ref(storage, forget)
        self.now += size
        self.peak = max(self.peak, self.now)


class MadeBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all results of operations within the context, views left out.

    Attributes:
        total: bytes so far, whether still in use or not.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        old = {leaf.untyped_storage()._cdata for leaf in given}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in old:
                self.total += leaf.nbytes
        return result


def _makes_a_mask(func: Any, result: Any) -> bool:
    """Whether an operation is the last one on the mask of a dropout on a CPU."""
    if func is torch.ops.aten.mul_.Tensor:  # of `networks.dropout`
        return result.dtype in (torch.int16, torch.int32)
    return bool(func is torch.ops.aten.bernoulli_.float)
