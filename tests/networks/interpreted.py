"""The fused kernels against formulas, run by Triton's interpreter on the CPU.

`TRITON_INTERPRET=1 python -m tests.networks.interpreted` prints a line of JSON for each check,
[name, error or null]. The interpreter runs the very kernels, but it must be chosen before triton is
imported: hence a process of its own.
"""

import json
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from networks import fused_norm, fused_sum, norm_launches, sum_kernels, sums
from networks.fused import BOUNDS, Fusion
from networks.fused_norm import CASES, Options, case_errors, formula, fused
from networks.norms import GroupNorm
from tests.pretend.fused import FUSED

CPU = torch.device("cpu")
# tighter than what is asked of a device: float32's and half the last digit of the halves, which the
# interpreter cuts off instead of rounding
BOUNDS_HERE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
NORMS = {
    "as tried on a device": CASES,
    "one pixel": [CASES[0]._replace(height=1, width=1), CASES[2]._replace(height=1, width=1)],
    "one channel a group": [CASES[0]._replace(channels=5, groups=5)],
    "one group": [CASES[0]._replace(channels=7, groups=1)],
    "one image": [CASES[1]._replace(num=1, condition=(1, 66)), CASES[2]._replace(num=1)],
    "a row for all, added": [CASES[0]._replace(condition=(1, 12), drops=True)],
    "scale and shift of each image": [CASES[0]._replace(condition=(2, 24), silu=False)],
    "large groups": [
        CASES[0]._replace(channels=10, groups=2, height=60, width=57),
        CASES[2]._replace(num=1, channels=6, groups=1, height=61, width=59, condition=(1, 12)),
        CASES[3]._replace(num=1, channels=3, groups=1, height=70, width=67, condition=(1, 3)),
    ],
}


def norms_are_the_formula(dtype: torch.dtype, cases: Any) -> None:
    """Values and gradients in one dtype."""
    for case in cases:
        found = case_errors(case, CPU, dtype)
        for name, error in found.items():
            assert error <= BOUNDS_HERE[dtype], (case, name, float(error))


def sums_are_the_formula(dtype: torch.dtype) -> None:
    """Values and gradients in one dtype."""
    for name, error in fused_sum._trial(CPU, dtype).items():
        assert error <= BOUNDS_HERE[dtype], (name, float(error))


def a_bias_may_serve_all_images() -> None:
    """Its gradient is then summed over them, also where the sum is not scaled."""
    for scale in (0.7, 1.0):
        for dtype in BOUNDS:
            x, _, _, bias = (tensor.detach() for tensor in _inputs(3, 6, 4, 6))
            given = [x, x.flip(0), bias[:1]]
            halves = [tensor.to(dtype).requires_grad_() for tensor in given]
            wide = [tensor.detach().float().requires_grad_() for tensor in halves]
            found = _with_gradients(fused_sum.fused(*halves, scale), halves)
            expected = _with_gradients(sums.composed(*wide, scale), wide)
            for one, other in zip(found, expected, strict=True):
                bound = BOUNDS_HERE[dtype]
                torch.testing.assert_close(one.float(), other, rtol=bound, atol=10 * bound)


def _with_gradients(result: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    gradient = torch.linspace(-1, 1, result.numel()).reshape(result.shape).to(result.dtype)
    return [result.detach(), *torch.autograd.grad(result, inputs, gradient)]


def _inputs(num: int, channels: int, size: int, condition: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(1)
    shapes = [(num, channels, size, size + 1), (channels,), (channels,), (num, condition, 1, 1)]
    return [torch.randn(shape, generator=source).requires_grad_() for shape in shapes]


def a_large_mean_costs_no_digits() -> None:
    """Images far from zero, in tiles of the two kinds, against float64: float32 is 6e-5 there."""
    for size in (9, 72):
        x, weight, bias, _ = _inputs(2, 8, size, 1)
        x = (1000 + x).detach()
        options = Options(2, 1e-5, True, 1.0, torch.float32)
        result, _ = fused(x, weight, bias, None, None, options)
        wide = [tensor.double() for tensor in (x, weight, bias)]
        expected = formula(*wide, None, None, options._replace(dtype=torch.float64))
        torch.testing.assert_close(result, expected.float(), rtol=0, atol=5e-4)


def second_derivatives_are_those_of_the_formula() -> None:
    """Gradients of a gradient's norm, of norm and sum."""
    options = Options(2, 1e-5, True, 1.25, torch.float32)
    for condition in (6, 12):
        inputs = _inputs(2, 6, 4, condition)
        kept = torch.randint(0, 2, inputs[0].shape, dtype=torch.uint8)

        def norm(*inputs: Tensor, kept: Tensor = kept) -> Tensor:
            result, x = fused(*inputs, kept, options)
            return result.sin() * x

        def plain_norm(*inputs: Tensor, kept: Tensor = kept) -> Tensor:
            return formula(*inputs, kept, options).sin() * inputs[0]

        _compare_second(norm, plain_norm, inputs)
    x, _, _, bias = _inputs(2, 6, 4, 6)
    branch = x.detach().flip(0).requires_grad_()
    _compare_second(
        lambda *given: fused_sum.fused(*given, 0.7).sin(),
        lambda *given: sums.composed(*given, 0.7).sin(),
        [branch, x, bias],
    )


def _compare_second(ours: Any, theirs: Any, inputs: list[Tensor]) -> None:
    def second(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(function(*inputs).square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), inputs)

    for found, expected in zip(second(ours), second(theirs), strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * scale)


def only_what_is_asked_for_has_a_gradient() -> None:
    """With frozen weights, with x alone, and where only x itself is used."""
    x, weight, bias, condition = _inputs(2, 6, 4, 6)
    options = Options(2, 1e-5, True, 1.0, torch.float32)
    result, same = fused(x, weight.detach(), bias.detach(), condition.detach(), None, options)
    (found,) = torch.autograd.grad((result + same).sum(), x)
    expected = formula(x, weight, bias, condition, None, options) + x
    torch.testing.assert_close(found, torch.autograd.grad(expected.sum(), x)[0])
    _, same = fused(x, weight, bias, condition, None, options)
    alone = torch.autograd.grad(same.sum(), [x, weight], allow_unused=True)
    assert torch.equal(alone[0], torch.ones_like(x))
    assert alone[1] is None


def a_part_of_joined_channels_is_a_gradient() -> None:
    """The gradient of a sum may lie between others; so may that of a norm."""
    x, weight, bias, condition = _inputs(3, 6, 4, 6)
    factor = torch.randn(3, 10, 4, 5, generator=torch.Generator().manual_seed(2))
    options = Options(2, 1e-5, True, 1.0, torch.float32)
    pairs = (
        (fused_sum.fused(x, x, condition, 0.7), sums.composed(x, x, condition, 0.7)),
        (
            fused(x, weight, bias, condition, None, options)[0],
            formula(x, weight, bias, condition, None, options),
        ),
    )
    for ours, theirs in pairs:
        found, expected = (
            torch.autograd.grad(
                (torch.cat([made.detach()[:, :2], made, made.detach()[:, 2:4]], 1) * factor).sum(),
                [x, condition],
            )
            for made in (ours, theirs)
        )
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def wrong_kernels_are_found_out() -> None:
    """A factor that is off by twice the bound, in any result of a backward pass."""
    factor = 1 + 2 * BOUNDS[torch.float32]
    for trial, module, num in (
        (partial(case_errors, CASES[2]), norm_launches, 3),  # the smallest with all gradients
        (fused_sum._trial, sum_kernels, 2),
    ):
        kernel = module.backward
        assert Fusion("right kernels", trial).is_trusted(CPU, torch.float32)
        for index in range(num):

            def wrong(*given: Any, kernel: Any = kernel, at: int = index) -> Any:
                made = list(kernel(*given))
                made[at] = made[at] * factor
                return tuple(made)

            module.backward = wrong
            try:
                assert not Fusion("wrong kernels", trial).is_trusted(CPU, torch.float32)
            finally:
                module.backward = kernel


def kernels_that_fail_backwards_leave_it_to_the_formula() -> None:
    """Gradients are right all the same, and the kernels are not asked again."""

    def fail(*arguments: Any) -> Any:
        raise RuntimeError("no such instruction")

    x, weight, bias, condition = _inputs(2, 6, 4, 6)
    options = Options(2, 1e-5, True, 1.0, torch.float32)
    kernel, sum_kernel = norm_launches.backward, sum_kernels.backward
    norm_launches.backward = sum_kernels.backward = fail
    try:
        result, same = fused(x, weight, bias, condition, None, options)
        total = (fused_sum.fused(result, same, condition, 0.7)).square().sum()
        found = torch.autograd.grad(total, [x, weight, condition])
    finally:
        norm_launches.backward, sum_kernels.backward = kernel, sum_kernel
    result = formula(x, weight, bias, condition, None, options)
    total = sums.composed(result, x, condition, 0.7).square().sum()
    expected = torch.autograd.grad(total, [x, weight, condition])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    for fusion in (fused_norm.FUSION, fused_sum.FUSION):
        assert not fusion.is_trusted(CPU, torch.float32)


def a_layer_is_itself_by_its_kernels() -> None:
    """What `GroupNorm` hands to the kernels is what it would compute, dropout's share aside."""
    norm = GroupNorm(12, groups=3)
    x, weight, bias, _ = _inputs(2, 12, 5, 1)
    norm.weight.data, norm.bias.data = weight.data, bias.data
    added, scale_shift = (torch.randn(2, k, 1, 1) for k in (12, 24))
    kinds: list[dict[str, Tensor]] = [{}, {"added": added}, {"scale_shift": scale_shift}]
    for half in (False, True):
        for kind in kinds:
            here = {name: tensor.bfloat16() if half else tensor for name, tensor in kind.items()}
            given = x.bfloat16() if half else x
            expected = norm(given, **here, silu=True, widens=half)
            dtype = torch.float32 if half else x.dtype
            options = Options(3, norm.eps, True, 1.0, dtype)
            condition = next(iter(here.values()), None)
            result, _ = fused(given, norm.weight, norm.bias, condition, None, options)
            assert result.dtype == expected.dtype == dtype
            bound = 3e-2 if half else 1e-5
            torch.testing.assert_close(result, expected, rtol=bound, atol=bound)


def the_pretended_device_computes_what_the_kernels_do() -> None:
    """Results and saved numbers of kernels and of their stand-ins agree."""
    for rows, columns in ((2, 6), (1, 12)):
        x, weight, bias, condition = (t.detach() for t in _inputs(2, 6, 4, columns))
        condition = condition[:rows]
        kept = torch.randint(0, 2, x.shape, dtype=torch.uint8)
        given = (x, weight, bias, condition, kept)
        options = (2, 1e-5, True, 1.25, torch.float32)
        made = norm_launches.forward(*given, *options)
        _close(made, FUSED["fused_group_norm.default"](*given, *options))
        saved = (x.flip(0), x, *given, made[1], True, 1.25)
        _close(norm_launches.backward(*saved), FUSED["fused_group_norm_backward.default"](*saved))
    _close(
        sum_kernels.backward(x, 0.7, torch.float32),
        FUSED["fused_sum_backward.default"](x, 0.7, torch.float32),
    )


def _close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


CHECKS: dict[str, Callable[[], None]] = {
    **{
        f"norms, {what}, {str(dtype)[6:]}": partial(norms_are_the_formula, dtype, cases)
        for what, cases in NORMS.items()
        for dtype in BOUNDS
    },
    **{f"sums, {str(dtype)[6:]}": partial(sums_are_the_formula, dtype) for dtype in BOUNDS},
    **{
        check.__name__: check
        for check in (
            a_large_mean_costs_no_digits,
            a_bias_may_serve_all_images,
            second_derivatives_are_those_of_the_formula,
            only_what_is_asked_for_has_a_gradient,
            a_part_of_joined_channels_is_a_gradient,
            a_layer_is_itself_by_its_kernels,
            the_pretended_device_computes_what_the_kernels_do,
            wrong_kernels_are_found_out,
            kernels_that_fail_backwards_leave_it_to_the_formula,  # last: they are done for
        )
    },
}


def main() -> None:
    """Run all checks."""
    torch.set_num_threads(1)
    for name, check in CHECKS.items():
        error = None
        try:
            check()
        except Exception:
            error = traceback.format_exc()
        print(json.dumps([name, error]), flush=True)


if __name__ == "__main__":
    main()
