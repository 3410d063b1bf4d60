"""`GroupNorm` as one operation a direction on a GPU, in eager mode; see `networks.fused`.

What PyTorch does in about ten kernels, with copies in float32 for half precision, two do: they keep
x, two numbers a group and, for dropout, a byte an element for the backward pass.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from networks.fused import Fusion, is_condition, is_plain, operation, relative_errors
from networks.layers import has_tangent
from networks.norms import GroupNorm, composed, native

MAX_WIDTH = 256  # channels of a group: the kernels' tiles have all of them


def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    from networks import norm_launches

    return norm_launches.forward(*arguments)


def _backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    from networks import norm_launches

    return norm_launches.backward(*arguments)


def empty_results(
    x: Tensor, weight: Tensor, bias: Tensor, condition: Tensor | None, kept: Tensor | None,
    groups: int, eps: float, silu: bool, factor: float, dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What `norm_launches.forward` fills: the result and the statistics, for its arguments."""
    statistics = x.new_empty(2, len(x), groups, dtype=torch.float32)
    return torch.empty_like(x, dtype=dtype), statistics


def empty_gradients(
    gradient: Tensor, through: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor,
    condition: Tensor | None, kept: Tensor | None, statistics: Tensor, silu: bool, factor: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """What `norm_launches.backward` fills: three gradients, for its arguments."""
    by_image = x.new_empty(2, *x.shape[:2], dtype=torch.float32)
    if condition is None:
        return torch.empty_like(x), by_image, x.new_empty(0)
    dtype = condition.dtype if len(condition) == len(x) else torch.float32
    dcondition = condition.new_empty(len(x), condition.shape[1], 1, 1, dtype=dtype)
    return torch.empty_like(x), by_image, dcondition


_group_norm = operation(
    "fused_group_norm(Tensor x, Tensor weight, Tensor bias, Tensor? condition, Tensor? kept,"
    " int groups, float eps, bool silu, float factor, ScalarType dtype) -> (Tensor, Tensor)",
    _forward,
    empty_results,
)
_group_norm_backward = operation(
    "fused_group_norm_backward(Tensor gradient, Tensor? through, Tensor x, Tensor weight,"
    " Tensor bias, Tensor? condition, Tensor? kept, Tensor statistics, bool silu, float factor)"
    " -> (Tensor, Tensor, Tensor)",
    _backward,
    empty_gradients,
)


class Options(NamedTuple):
    """The numbers of a norm.

    Attributes:
        groups: how many, of at most `MAX_WIDTH` channels.
        eps: added to the variance.
        silu: whether SiLU follows.
        factor: on what dropout keeps.
        dtype: of the result, x's or float32.
    """

    groups: int
    eps: float
    silu: bool
    factor: float
    dtype: torch.dtype


def may_compute(x: Tensor) -> bool:
    """Whether the kernels can read x and are trusted on its device."""
    return is_plain(x) and FUSION.may_compute(x)


def attempt(
    norm: GroupNorm,
    x: Tensor,
    condition: Tensor | None,
    *,
    silu: bool,
    dropout: float,
    widens: bool,
) -> tuple[Tensor, Tensor] | None:
    """What `GroupNorm.with_input` returns, by the kernels; None where PyTorch must compute it.

    Args:
        norm: the layer.
        x: its input, for which `may_compute` holds.
        condition: what is added before, or scale and shift after; their widths tell.
        silu, dropout, widens: as there.
    """
    width = x.shape[1] // norm.num_groups
    fits = (
        is_condition(condition, x)
        and width <= MAX_WIDTH
        and width * x.shape[2] * x.shape[3] < 2**31
        and norm.weight.dtype == torch.float32
        and not has_tangent(norm.weight)
        and not has_tangent(norm.bias)
        and dropout < 1
    )
    if not fits:
        return None
    dtype = torch.float32 if widens else x.dtype
    options = Options(norm.num_groups, norm.eps, silu, 1 / (1 - dropout), dtype)

    kept = None
    if dropout > 0:
        kept = torch.empty_like(x, dtype=torch.uint8).bernoulli_(1 - dropout)
    return FUSION.attempt(x, fused, x, norm.weight, norm.bias, condition, kept, options)


def fused(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    condition: Tensor | None,
    kept: Tensor | None,
    options: Options,
) -> tuple[Tensor, Tensor]:
    """The norm by the kernels, and x itself; differentiable any number of times.

    Args:
        x: features [N, C, H, W], contiguous.
        weight, bias: [C], float32.
        condition: [N, C, 1, 1] or [1, C, 1, 1] is added to x before, [N, 2C, 1, 1] or
            [1, 2C, 1, 1] is scale and shift after; contiguous along its channels.
        kept: of x's shape, uint8: 0 where dropout drops, 1 elsewhere; None without dropout.
        options: the rest.
    """
    found: tuple[Tensor, Tensor] = _Fused.apply(x, weight, bias, condition, kept, options)
    return found


def formula(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    condition: Tensor | None,
    kept: Tensor | None,
    options: Options,
) -> Tensor:
    """The norm that `fused` computes, in PyTorch's operations."""
    is_added = condition is not None and condition.shape[1] == x.shape[1]
    added, scale_shift = (condition, None) if is_added else (None, condition)

    def normalise(h: Tensor) -> Tensor:
        return native(h, options.groups, weight, bias, options.eps)

    h = composed(normalise, x.to(options.dtype), added, scale_shift, options.silu)
    return h if kept is None else h * (kept.to(h.dtype) * options.factor)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *tensors, options = arguments
        result, statistics = _group_norm(*tensors, *options)
        ctx.save_for_backward(*tensors, statistics)
        ctx.options = options
        ctx.set_materialize_grads(False)
        return result, tensors[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, through: Tensor | None) -> Any:
        if gradient is None:
            return through, None, None, None, None, None
        # once: an activation checkpoint unpacks them a single time
        tensors, options = ctx.saved_tensors, ctx.options
        # gradients that have gradients themselves: those of the formula have
        if torch.is_grad_enabled():
            return _formula_backward(ctx, tensors, gradient, through)
        try:
            dx, by_image, dcondition = _group_norm_backward(
                gradient.contiguous(),
                None if through is None else through.contiguous(),
                *tensors,
                options.silu,
                options.factor,
            )
        except Exception as error:
            FUSION.failed(tensors[0], error)
            return _formula_backward(ctx, tensors, gradient, through)
        dweight = dbias = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            dweight, dbias = by_image.sum(dim=1)
        condition = tensors[3]
        if condition is None:
            return dx, dweight, dbias, None, None, None
        if len(condition) < len(dcondition):
            dcondition = dcondition.sum(dim=0, keepdim=True).to(condition.dtype)
        return dx, dweight, dbias, dcondition, None, None


def _formula_backward(
    ctx: Any, tensors: Sequence[Tensor], gradient: Tensor, through: Tensor | None
) -> Any:
    """Gradients by `formula`, differentiable themselves if gradients are recorded."""
    inputs, is_needed = tensors[:4], ctx.needs_input_grad[:4]
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x, weight, bias, condition, kept = tensors[:5]
        result = formula(x, weight, bias, condition, kept, ctx.options)
        wanted = [tensor for tensor, needed in zip(inputs, is_needed, strict=True) if needed]
        found = iter(torch.autograd.grad(result, wanted, gradient, create_graph=create_graph))
    gradients = [next(found) if needed else None for needed in is_needed]
    if gradients[0] is not None and through is not None:
        gradients[0] = gradients[0] + through
    return *gradients, None, None


class _Case(NamedTuple):
    """A norm that is tried; sizes are odd where they can be."""

    num: int
    channels: int
    groups: int
    height: int
    width: int
    condition: tuple[int, int] | None = None  # rows, channels
    silu: bool = True
    drops: bool = False
    widens: bool = False


CASES = (
    _Case(2, 12, 4, 5, 7),
    _Case(2, 66, 2, 24, 25, condition=(2, 66), drops=True),  # too large to be computed at once
    _Case(3, 10, 2, 3, 5, condition=(1, 20), drops=True),
    _Case(2, 8, 2, 1, 3, silu=False, widens=True),
)


def case_errors(case: Any, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Relative errors of the kernels' result and gradients in one case, against float32."""
    source = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float32, device="cpu").to(device)

    shape = case.num, case.channels, case.height, case.width
    rows, columns = case.condition or (0, 0)
    inputs = [
        (drawn(*shape) + 1).to(dtype),  # a mean that is not zero
        drawn(case.channels),
        drawn(case.channels),
        *([drawn(rows, columns, 1, 1).to(dtype)] if case.condition else []),
    ]
    kept = (drawn(*shape) > -1).to(torch.uint8) if case.drops else None
    to = torch.float32 if case.widens else dtype
    options = Options(case.groups, 1e-5, case.silu, 1.2 if case.drops else 1.0, to)
    gradients = [drawn(*shape).to(to), drawn(*shape).to(dtype)]

    def gradients_and_result(function: Any, inputs: list[Tensor], to: torch.dtype) -> list[Tensor]:
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        four = inputs if case.condition else [*inputs, None]
        outputs = function(*four, kept, options._replace(dtype=to))
        outputs = outputs if isinstance(outputs, tuple) else (outputs, inputs[0] + 0)
        given = [g.to(o.dtype) for g, o in zip(gradients, outputs, strict=True)]
        return [outputs[0].detach(), *torch.autograd.grad(outputs, inputs, given)]

    return relative_errors(
        gradients_and_result(fused, inputs, to),
        gradients_and_result(formula, [tensor.float() for tensor in inputs], torch.float32),
        (
            "result",
            "gradient of x",
            "gradient of the weight",
            "gradient of the bias",
            "gradient of the condition",
        ),
    )


def _trial(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    worst: dict[str, Tensor] = {}
    for case in (*CASES, *CASES):  # a second launch takes another way
        for name, error in case_errors(case, device, dtype).items():
            worst[name] = torch.maximum(worst.get(name, error), error)
    return worst


FUSION = Fusion("group norms", _trial)
