"""Residual sums as one operation a direction on a GPU, in eager mode; see `networks.fused`.

PyTorch takes two kernels forwards, the second to add a bias and scale, and two backwards.
"""

from typing import Any

import torch
from torch import Tensor

from networks.fused import Fusion, is_condition, is_plain, operation, relative_errors
from networks.sums import composed


def _forward(*arguments: Any) -> Tensor:
    from networks import sum_kernels

    return sum_kernels.forward(*arguments)


def _backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    from networks import sum_kernels

    return sum_kernels.backward(*arguments)


def empty_sum(branch: Tensor, x: Tensor, bias: Tensor, scale: float) -> Tensor:
    """What `sum_kernels.forward` fills, for its arguments."""
    return torch.empty_like(x)


def empty_gradients(gradient: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What `sum_kernels.backward` fills, for its arguments."""
    sums = gradient.new_empty(*gradient.shape[:2], 1, 1, dtype=dtype)
    return gradient.new_empty(gradient.shape), sums


_sum = operation(
    "fused_sum(Tensor branch, Tensor x, Tensor bias, float scale) -> Tensor",
    _forward,
    empty_sum,
)
_sum_backward = operation(
    "fused_sum_backward(Tensor gradient, float scale, ScalarType dtype) -> (Tensor, Tensor)",
    _backward,
    empty_gradients,
)


def attempt(branch: Tensor, x: Tensor, bias: Tensor, scale: float) -> Tensor | None:
    """bias + scale (branch + x) by the kernels; None where PyTorch must compute it.

    Args:
        branch, x: features [N, C, H, W].
        bias: [N, C, 1, 1] or [1, C, 1, 1].
        scale: a number.
    """
    fits = (
        is_plain(branch, x)
        and branch.shape == x.shape
        and branch.dtype == x.dtype
        and is_condition(bias, x)
        and FUSION.may_compute(x)
    )
    return FUSION.attempt(x, fused, branch, x, bias, scale) if fits else None


def fused(branch: Tensor, x: Tensor, bias: Tensor, scale: float) -> Tensor:
    """The sum by the kernels, differentiable any number of times."""
    result: Tensor = _Fused.apply(branch, x, bias, scale)
    return result


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, branch: Tensor, x: Tensor, bias: Tensor, scale: float) -> Tensor:
        ctx.scale, ctx.bias_shape, ctx.bias_dtype = scale, bias.shape, bias.dtype
        return _sum(branch, x, bias, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        is_own = ctx.bias_shape[0] == len(gradient)  # else what all images give is summed up
        dtype = ctx.bias_dtype if is_own else torch.float32
        scaled, sums = _scaled_and_summed(gradient, ctx.scale, dtype)
        dbias = sums if is_own else sums.sum(dim=0, keepdim=True).to(ctx.bias_dtype)
        return scaled, scaled, dbias, None


def _scaled_and_summed(gradient: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The gradient times scale, and its sums over pixels: a kernel's if it saves one."""
    if scale != 1 and not torch.is_grad_enabled():
        try:
            # a gradient of joined channels is a part of theirs, and may stay one
            whole = gradient if gradient[:1].is_contiguous() else gradient.contiguous()
            return _sum_backward(whole, scale, dtype)
        except Exception as error:
            FUSION.failed(gradient, error)
    scaled = gradient if scale == 1 else gradient * scale
    return scaled, gradient.sum(dim=(2, 3), keepdim=True, dtype=dtype)


def _trial(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Relative errors of a sum and its gradients; sizes are odd."""
    source = torch.Generator().manual_seed(0)
    shapes = [(3, 5, 7, 9), (3, 5, 7, 9), (3, 5, 1, 1), (3, 5, 7, 9)]
    *inputs, gradient = (
        torch.randn(s, generator=source, dtype=torch.float32, device="cpu").to(device, dtype)
        for s in shapes
    )

    def results(function: Any, inputs: list[Tensor], gradient: Tensor) -> list[Tensor]:
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        result = function(*inputs, 0.7)
        return [result.detach(), *torch.autograd.grad(result, inputs, gradient)]

    results(fused, inputs, gradient)  # a second launch takes another way
    return relative_errors(
        results(fused, inputs, gradient),
        results(composed, [tensor.float() for tensor in inputs], gradient.float()),
        ("result", "gradient of the branch", "gradient of x", "gradient of the bias"),
    )


FUSION = Fusion("residual sums", _trial)
