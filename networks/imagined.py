"""Tensors without values in the place of a GPU's, to count what its kernels of ours would take.

A forecast runs a step on fake tensors, which claim to lie on the CPU. Within `imagined` they go
through the operations of `networks.fused_norm` and `networks.fused_sum` all the same.
"""

import contextlib
from collections.abc import Iterator

from torch import Tensor

_depth = 0


@contextlib.contextmanager
def imagined(is_wanted: bool = True) -> Iterator[None]:
    """A context in which fake tensors go through fused operations; nothing changes if unwanted."""
    global _depth
    _depth += is_wanted
    try:
        yield
    finally:
        _depth -= is_wanted


def is_imagined(x: Tensor) -> bool:
    """Whether x has no values, and stands for a tensor of a GPU."""
    if not _depth:
        return False
    from torch._subclasses.fake_tensor import FakeTensor  # only here: it takes long to load

    return isinstance(x, FakeTensor)
