"""Counting the floating-point operations of whatever runs, also on tensors without values.

Convolutions and matrix products only, with PyTorch's own formulas; a multiplication with an
addition counts as two. `torch.utils.flop_counter.FlopCounterMode` gives the same sum, module by
module, in more time, and does not know the attention of CPUs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode

from torch_utils.numbers import three_digits

UNITS = {"PFLOPs": 10**15, "TFLOPs": 10**12, "GFLOPs": 10**9, "MFLOPs": 10**6, "kFLOPs": 10**3}


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    shapes = query.shape, key.shape, value.shape
    return int(flop_counter.sdpa_flop_count(*shapes))  # type: ignore[no-untyped-call]


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    shapes = gradient.shape, query.shape, key.shape, value.shape
    return int(flop_counter.sdpa_backward_flop_count(*shapes))  # type: ignore[no-untyped-call]


_OF_CPU: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class Flops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is computed within the context, backward passes included.

    Attributes:
        total: so far.
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
        named = dict(kwargs or {})
        result = func(*args, **named)
        formula = _OF_CPU.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **named)
        elif func._overloadpacket in flop_counter.flop_registry:
            known = flop_counter.flop_registry[func._overloadpacket]
            self.total += int(known(*args, **named, out_val=result))
        return result


def flops_text(num: float) -> str:
    """A number of operations for people: 42.4 GFLOPs."""
    unit = next((name for name, size in UNITS.items() if num >= size), "kFLOPs")
    return f"{three_digits(num / UNITS[unit])} {unit}"
