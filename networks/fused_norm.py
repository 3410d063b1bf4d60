"""`GroupNorm` as one operation a direction on a GPU, in eager mode: fewer launches, fewer bytes.

The kernels are in `networks.norm_kernels`. What PyTorch does in about ten of them, with a copy in
float32 for half precision, they do in two, and keep x alone for the backward pass. Before they are
used for a dtype on a device they must agree there with PyTorch's operations, in values and
gradients. Where they do not, where triton or its compiler is missing, or anything fails, a line
says so and PyTorch's operations go on.
"""

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from networks.layers import full_precision, has_tangent
from networks.norms import composed, native
from torch_utils.no_memory import is_out_of_memory
from torch_utils.notes import warn

if TYPE_CHECKING:
    from networks.norms import GroupNorm

VARIABLE = "DRIFTLESS_FUSED_NORM"  # 0 in the environment switches the kernels off
MAX_WIDTH = 256  # channels of a group: the kernels' tiles have all of them

# dtype -> relative error of a result and of each gradient, against float32
_BOUNDS = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}
# images, channels, groups, height, width, condition (channels and rows), SiLU, wide result: with
# the ways to compute a group, at once and in blocks; all are odd where they can be
_CASES: tuple[tuple[int, int, int, int, int, tuple[int, int] | None, bool, bool], ...] = (
    (2, 12, 4, 5, 7, None, True, False),
    (2, 66, 2, 24, 25, (66, 2), True, False),
    (3, 10, 2, 3, 5, (20, 1), True, False),
    (2, 8, 2, 1, 3, None, False, True),
)

# operations of PyTorch, so that profilers and whatever else watches operations see them
_LIBRARY = torch.library.Library("driftless", "FRAGMENT")
_LIBRARY.define(
    "group_norm(Tensor x, Tensor weight, Tensor bias, Tensor? condition, int groups, float eps,"
    " bool silu, ScalarType dtype) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "group_norm_backward(Tensor gradient, Tensor x, Tensor weight, Tensor bias, Tensor? condition,"
    " Tensor mean, Tensor rstd, bool silu) -> (Tensor, Tensor, Tensor)"
)


def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    from networks import norm_kernels

    return norm_kernels.forward(*arguments)


def _backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    from networks import norm_kernels

    return norm_kernels.backward(*arguments)


_LIBRARY.impl("group_norm", _forward, "CUDA")
_LIBRARY.impl("group_norm_backward", _backward, "CUDA")

# device and dtype -> whether the kernels agreed there and have not failed since
_verdicts: dict[tuple[torch.device, torch.dtype], bool] = {}


def attempt(
    norm: "GroupNorm", x: Tensor, condition: Tensor | None, *, silu: bool, widens: bool
) -> Tensor | None:
    """What `GroupNorm.forward` returns, by the kernels; None where PyTorch must compute it.

    Args:
        norm: the layer.
        x: its input, on a GPU.
        condition: what is added before, or scale and shift after; their widths tell.
        silu, widens: as there.
    """
    if not _fits(norm, x, condition) or not is_trusted(x.device, x.dtype):
        return None
    dtype = torch.float32 if widens else x.dtype
    try:
        return fused(x, norm.weight, norm.bias, condition, norm.num_groups, norm.eps, silu, dtype)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        _give_up(x.device, x.dtype, _in_a_line(error))
        return None


def _fits(norm: "GroupNorm", x: Tensor, condition: Tensor | None) -> bool:
    """Whether the kernels can compute this, and nobody wants what they have not."""
    width = x.shape[1] // norm.num_groups
    return (
        type(x) is Tensor  # not a tensor without values, say
        and x.dtype in _BOUNDS
        and x.ndim == 4
        and x.numel() > 0
        and x.is_contiguous()
        and width <= MAX_WIDTH
        and width * x.shape[2] * x.shape[3] < 2**31
        and norm.weight.dtype == torch.float32
        and (condition is None or (condition.dtype == x.dtype and condition.stride(1) == 1))
        # no forward-mode derivatives, vmap, or gradients of torch.func
        and not torch._C._are_functorch_transforms_active()
        and not any(t is not None and has_tangent(t) for t in (x, norm.weight, condition))
    )


def fused(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    condition: Tensor | None,
    groups: int,
    eps: float,
    silu: bool,
    dtype: torch.dtype,
) -> Tensor:
    """The norm by the kernels, differentiable any number of times.

    Args:
        x: features [N, C, H, W], contiguous.
        weight, bias: [C], float32.
        condition: [N, C, 1, 1] or [1, C, 1, 1] is added to x before, [N, 2C, 1, 1] or
            [1, 2C, 1, 1] is scale and shift after; contiguous along its channels.
        groups: number of groups, of at most `MAX_WIDTH` channels.
        eps: added to the variance.
        silu: whether SiLU follows.
        dtype: of the result, x's or float32.
    """
    result: Tensor = _Fused.apply(x, weight, bias, condition, groups, eps, silu, dtype)
    return result


def formula(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    condition: Tensor | None,
    groups: int,
    eps: float,
    silu: bool,
    dtype: torch.dtype,
) -> Tensor:
    """What `fused` computes, in PyTorch's operations."""
    is_added = condition is not None and condition.shape[1] == x.shape[1]
    added, scale_shift = (condition, None) if is_added else (None, condition)

    def normalise(h: Tensor) -> Tensor:
        return native(h, groups, weight, bias, eps)

    return composed(normalise, x.to(dtype), added, scale_shift, silu)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        result, mean, rstd = torch.ops.driftless.group_norm(*arguments)
        ctx.save_for_backward(*arguments[:4], mean, rstd)
        ctx.options = arguments[4:]
        return result  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, condition, mean, rstd = ctx.saved_tensors
        silu = ctx.options[2]
        # gradients that have gradients themselves: the formula's have
        if torch.is_grad_enabled():
            return _formula_backward(ctx, gradient)
        try:
            dx, by_image, dcondition = torch.ops.driftless.group_norm_backward(
                gradient.contiguous(), x, weight, bias, condition, mean, rstd, silu
            )
        except Exception as error:
            if is_out_of_memory(error):
                raise
            _give_up(x.device, x.dtype, _in_a_line(error))
            return _formula_backward(ctx, gradient)
        dweight = dbias = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            dweight, dbias = by_image.sum(dim=1)
        if condition is None:
            dcondition = None
        elif len(condition) < len(dcondition):
            dcondition = dcondition.sum(dim=0, keepdim=True).to(condition.dtype)
        return dx, dweight, dbias, dcondition, *(None for _ in ctx.options)


def _formula_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients by `formula`, differentiable themselves if gradients are recorded."""
    inputs = ctx.saved_tensors[:4]
    is_needed = ctx.needs_input_grad[:4]
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        result = formula(*inputs, *ctx.options)
        wanted = [tensor for tensor, needed in zip(inputs, is_needed, strict=True) if needed]
        found = iter(torch.autograd.grad(result, wanted, gradient, create_graph=create_graph))
    gradients = [next(found) if needed else None for needed in is_needed]
    return *gradients, *(None for _ in ctx.options)


def is_trusted(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels may compute; the first question for a device and dtype tries them."""
    verdict = _verdicts.get((device, dtype))
    if verdict is not None:
        return verdict
    if os.environ.get(VARIABLE) == "0":
        _verdicts[device, dtype] = False
    elif torch.cuda.is_current_stream_capturing():
        return False  # what is captured gives no values to compare: to be asked again
    else:
        _verdicts[device, dtype] = True
        reason = _disagreement(device, dtype)
        if reason is not None:
            _give_up(device, dtype, reason)
    return _verdicts[device, dtype]


def _give_up(device: torch.device, dtype: torch.dtype, reason: str) -> None:
    _verdicts[device, dtype] = False
    name = str(dtype).removeprefix("torch.")
    warn(f"group norms in {name} on {device} take PyTorch's kernels, not the fused ones: {reason}")


def _in_a_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _disagreement(device: torch.device, dtype: torch.dtype) -> str | None:
    """In what the kernels differ from the formula on small inputs; None if in nothing."""
    generator = torch.Generator().manual_seed(0)
    try:
        # apart from what the caller is in the middle of: an activation checkpoint, say
        with saved_tensors_hooks(_same, _same), torch.inference_mode(False), torch.enable_grad():
            errors = torch.stack([_errors(case, device, dtype, generator) for case in _CASES])
            worst = errors.amax(dim=0).tolist()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return _in_a_line(error)
    for name, value in zip(_COMPARED, worst, strict=True):
        if not value <= _BOUNDS[dtype]:  # also if it is no number
            return f"their {name} differs by {value:.1g}"
    return None


_COMPARED = ("result", "gradient of x", "gradient of the weight", "gradient of the bias",
             "gradient of the condition")  # fmt: skip


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _errors(case: Any, device: torch.device, dtype: torch.dtype, source: torch.Generator) -> Tensor:
    """Relative errors of one case, in the order of `_COMPARED`."""
    num, channels, groups, height, width, condition, silu, widens = case
    shapes = [(num, channels, height, width), (channels,), (channels,)]
    shapes += [(condition[1], condition[0], 1, 1)] if condition else []
    drawn = [torch.randn(shape, generator=source).to(device) for shape in shapes]
    halves = [drawn[0] + 1, *drawn[3:]]  # a mean that is not zero
    inputs = [t.to(dtype) for t in halves]
    inputs[1:1] = drawn[1:3]
    to = torch.float32 if widens else dtype
    gradient = torch.randn(shapes[0], generator=source).to(device, to)
    with full_precision(drawn[0]):
        ours = _results(fused, inputs, (groups, 1e-5, silu, to), gradient)
        wide = [t.float() for t in inputs]
        theirs = _results(formula, wide, (groups, 1e-5, silu, torch.float32), gradient.float())
        errors = [(a.float() - b).norm() / b.norm() for a, b in zip(ours, theirs, strict=True)]
    return torch.stack(errors + [errors[0]] * (len(_COMPARED) - len(errors)))


def _results(function: Any, inputs: list[Tensor], options: Any, gradient: Tensor) -> list[Tensor]:
    """A result and the gradients of the inputs."""
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    result = function(*(inputs if len(inputs) == 4 else [*inputs, None]), *options)
    return [result.detach(), *torch.autograd.grad(result, inputs, gradient)]
