"""Launches of Triton's kernels that take the host less time than those by Triton.

Triton looks at every argument of a launch to find the variant of a kernel that was compiled for
such arguments: 13 microseconds, longer than many kernels run. Here a launch that was made before,
with the same numbers and dtypes, goes to the variant that Triton found then. It needs triton.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

_ALIGNMENT = 16  # bytes: Triton has other variants for tensors that begin elsewhere
_MOST = 4096  # launches that are remembered


class Launcher:
    """A kernel and the launches that were made of it.

    Attributes:
        is_direct: whether launches are repeated; else each is Triton's. A version of Triton that
            calls its variants in another way ends it, at the first launch that fails.
        num_repeated: launches that were.
    """

    def __init__(self, kernel: Any) -> None:
        """Start without launches.

        Args:
            kernel: made by `triton.jit`.
        """
        self.is_direct = True
        self.num_repeated = 0
        self._kernel = kernel
        self._variants: dict[tuple[Any, ...], Callable[..., object]] = {}

    def __call__(
        self,
        grid: tuple[int, int, int],
        tensors: tuple[Tensor, ...],
        numbers: tuple[float, ...],
        constants: tuple[int, ...],
        num_warps: int,
    ) -> None:
        """Launch the kernel on the device of the first tensor, in its current stream.

        Args:
            grid: how many programs.
            tensors, numbers, constants: the kernel's arguments, in this order. A number must be of
                the same type in every launch, since 2 and 2.0 are one key.
            num_warps: of a program.
        """
        first, address = tensors[0], 0
        for tensor in tensors:
            address |= tensor.data_ptr()
        is_aligned = address % _ALIGNMENT == 0
        dtypes = tuple([tensor.dtype for tensor in tensors])
        key = grid, numbers, constants, num_warps, dtypes, first.get_device()
        variant = self._variants.get(key) if is_aligned else None
        with _device_of(first):
            if variant is not None:
                try:
                    variant(*tensors, *numbers, *constants)
                except Exception:
                    self.is_direct = False
                    self._variants.clear()
                else:
                    self.num_repeated += 1
                    return
            launch = self._kernel[grid]
            compiled = launch(*tensors, *numbers, *constants, num_warps=num_warps)
        if is_aligned and self.is_direct and compiled is not None:  # the interpreter has none
            if len(self._variants) >= _MOST:
                self._variants.clear()
            self._variants[key] = compiled[grid]


def row_stride(condition: Tensor | None) -> int:
    """Numbers from a row of a condition to the next; 0 repeats the only one."""
    return condition.stride(0) if condition is not None and len(condition) > 1 else 0


def _device_of(x: Tensor) -> AbstractContextManager[object]:
    """Where kernels are launched: x's device; the interpreter of triton computes on the CPU."""
    if not x.is_cuda or x.get_device() == torch._C._cuda_getDevice():
        return nullcontext()
    return torch.cuda.device(x.device)
