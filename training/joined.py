"""Tensors that lie one after the other in one memory, so that one operation is enough for all.

On a CPU an operation on a list of tensors is a call for each of them, and most tensors of a
network are so small that the call costs more than its work.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNMENT = 16  # elements: 64 bytes of float32, as of tensors with a memory of their own


def can_join(tensor: Tensor) -> bool:
    """Whether it is a dense float32 tensor on a CPU, in one of the layouts of weights."""
    layouts = torch.contiguous_format, torch.channels_last
    is_dense = any(tensor.is_contiguous(memory_format=layout) for layout in layouts)
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and is_dense


class Joined:
    """Copies of some tensors in one memory.

    Attributes:
        parts: the copies, with the shapes and layouts of the tensors.
        whole: all of them as a vector, with zeros between.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """
        Args:
            tensors: for each of which `can_join` is true.
        """
        self._starts, end = [], 0
        for tensor in tensors:
            self._starts.append(end)
            end += -(-tensor.numel() // _ALIGNMENT) * _ALIGNMENT
        self.whole = torch.zeros(end, dtype=torch.float32, device="cpu")
        self.parts = [
            self.whole.as_strided(tensor.shape, tensor.stride(), start).copy_(tensor.detach())
            for start, tensor in zip(self._starts, tensors, strict=True)
        ]
        self._pointers = [part.data_ptr() for part in self.parts]

    def first(self, num: int) -> Tensor:
        """The first parts as a vector, with zeros between."""
        return self.whole[: self._starts[num] if num < len(self._starts) else None]

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the memory of some tensors is that of the parts."""
        return [tensor.data_ptr() for tensor in tensors] == self._pointers
