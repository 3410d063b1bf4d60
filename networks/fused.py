"""Kernels of ours in place of PyTorch's operations: where they may compute, and whether they agree.

Before kernels are used for a dtype on a device they must agree there with PyTorch's operations, in
values and gradients. Where they do not, where triton or its compiler is missing, or anything
fails, a line says so and PyTorch's operations go on. Each process finds out for itself.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, library
from torch.autograd.graph import saved_tensors_hooks

from networks.imagined import is_imagined
from networks.layers import full_precision, has_tangent
from torch_utils.no_memory import is_out_of_memory
from torch_utils.notes import warn_here

T = TypeVar("T")

VARIABLE = "DRIFTLESS_FUSED"  # 0 in the environment switches all kernels off
# dtype -> relative error of a result and of each gradient, against float32
BOUNDS = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}

_LIBRARY: Any = library.Library("driftless", "FRAGMENT")  # type: ignore[no-untyped-call]

# device -> what `choose` said
_chosen: dict[torch.device, bool] = {}


def operation(
    schema: str, function: Callable[..., T], shapes: Callable[..., T]
) -> Callable[..., T]:
    """Make a function an operation of PyTorch on GPUs, torch.ops.driftless.NAME.

    Args:
        schema: name, arguments and results, as PyTorch writes them.
        function: computes it.
        shapes: makes what it returns, without values, for tensors without values.

    Returns:
        What calls it: through PyTorch where a mode watches operations, such as a counter of FLOPs,
        else at once, which takes the host less time.
    """
    _LIBRARY.define(schema)
    name = schema.partition("(")[0]
    _LIBRARY.impl(name, function, "CUDA")
    library.register_fake(f"driftless::{name}", shapes, lib=_LIBRARY)
    through_pytorch: Callable[..., T] = getattr(torch.ops.driftless, name).default

    def call(*arguments: Any) -> T:
        is_watched = torch._C._len_torch_dispatch_stack() > 0
        return through_pytorch(*arguments) if is_watched else function(*arguments)

    return call


class Fusion:
    """Some kernels, and what is known of them.

    Args:
        what: name for messages, in the plural.
        trial: device and dtype -> what is compared, and its relative error.
    """

    def __init__(
        self, what: str, trial: Callable[[torch.device, torch.dtype], dict[str, Tensor]]
    ) -> None:
        self._what, self._trial = what, trial
        self._verdicts: dict[tuple[torch.device, torch.dtype], bool] = {}

    def attempt(self, x: Tensor, compute: Callable[..., T], *arguments: Any) -> T | None:
        """What the kernels compute, which are trusted; None if they fail.

        Args:
            x: tensor on whose device and in whose dtype they fail then.
            compute: calls the kernels.
            arguments: of it.
        """
        try:
            return compute(*arguments)
        except Exception as error:
            self.failed(x, error)
            return None

    def may_compute(self, x: Tensor) -> bool:
        """Whether the kernels may compute on the device of x and in its dtype."""
        return is_imagined(x) or self.is_trusted(x.device, x.dtype)

    def is_trusted(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether the kernels may compute; the first question for a device and dtype tries them."""
        verdict = _chosen.get(device, self._verdicts.get((device, dtype)))
        if verdict is not None:
            return verdict
        if os.environ.get(VARIABLE) == "0":
            self._verdicts[device, dtype] = False
        elif device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return False  # what is captured gives no values to compare: to be asked again
        else:
            self._verdicts[device, dtype] = self._agrees(device, dtype)
        return self._verdicts[device, dtype]

    def failed(self, x: Tensor, error: Exception) -> None:
        """Do without the kernels from now on, unless memory ran out, which is no fault of theirs.

        Raises:
            Exception: the error that says so.
        """
        if is_out_of_memory(error):
            raise error
        lines = str(error).strip().splitlines()
        name = type(error).__name__
        self._give_up(x.device, x.dtype, f"{name}: {lines[0]}" if lines else name)

    def _agrees(self, device: torch.device, dtype: torch.dtype) -> bool:
        anything = torch.empty(0, dtype=dtype, device=device)
        try:
            # apart from what the caller is in the middle of: an activation checkpoint, say
            with (
                saved_tensors_hooks(_same, _same),
                torch.inference_mode(False),
                torch.enable_grad(),
                full_precision(anything),
            ):
                errors = self._trial(device, dtype)
                values = torch.stack(list(errors.values())).tolist()
        except Exception as error:
            self.failed(anything, error)
            return False
        for name, value in zip(errors, values, strict=True):
            if not value <= BOUNDS[dtype]:  # also if it is no number
                self._give_up(device, dtype, f"their {name} differs by {value:.1g}")
                return False
        return True

    def _give_up(self, device: torch.device, dtype: torch.dtype, reason: str) -> None:
        self._verdicts[device, dtype] = False
        name = str(dtype).removeprefix("torch.")
        warn_here(f"fused {self._what} in {name} are not used on {device}: {reason}")


def choose(device: torch.device, verdict: bool | None) -> None:
    """Say whether kernels compute on a device, untried; None to let them be tried again.

    For what compares the two ways, or counts the launches of either.
    """
    if verdict is None:
        _chosen.pop(device, None)
    else:
        _chosen[device] = verdict


def is_plain(*tensors: Tensor) -> bool:
    """Whether all are images that kernels can read, with nothing that only PyTorch can do.

    Images lie channel by channel in one piece. PyTorch alone has forward-mode derivatives, the
    transforms of torch.func, and tensors without values.
    """
    if torch._C._are_functorch_transforms_active():
        return False
    for x in tensors:
        is_there = (type(x) is Tensor and x.is_cuda) or is_imagined(x)
        is_image = is_there and x.ndim == 4 and x.numel() > 0
        if not is_image or x.dtype not in BOUNDS or not x.is_contiguous() or has_tangent(x):
            return False
    return True


def is_condition(condition: Tensor | None, x: Tensor) -> bool:
    """Whether a condition [N or 1, k, 1, 1] of images x, if there is one, can be read likewise."""
    return condition is None or (
        (type(condition) is Tensor or is_imagined(condition))
        and condition.dtype == x.dtype
        and condition.device == x.device
        and condition.shape[2:] == (1, 1)
        and condition.stride(1) == 1
        and not has_tangent(condition)
    )


def relative_errors(
    found: list[Tensor], expected: list[Tensor], names: tuple[str, ...]
) -> dict[str, Tensor]:
    """Root mean square error of each tensor in units of what is expected."""
    errors = [
        (a.float() - b.float()).norm() / b.float().norm()
        for a, b in zip(found, expected, strict=True)
    ]
    return dict(zip(names, errors, strict=False))


def _same(tensor: Tensor) -> Tensor:
    return tensor
