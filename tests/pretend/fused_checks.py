"""What is asserted of fused kernels on a pretended GPU; run by `tests.pretend.checks`."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.autograd import forward_ad

from networks import fused, fused_norm, fused_sum
from networks.fused import Fusion
from networks.norms import GroupNorm
from networks.sums import residual_sum
from tests.pretend.computing import run
from tests.pretend.events import Events

DEVICE = "cuda:0"
DTYPES = (torch.float32, torch.bfloat16)
TRITON = "cuLaunchKernelEx"  # what launches its kernels


@contextmanager
def decided(verdict: bool) -> Iterator[None]:
    """The fused kernels compute, or do not, untried."""
    fused.choose(torch.device(DEVICE), verdict)
    try:
        yield
    finally:
        fused.choose(torch.device(DEVICE), None)


def fused_kernels_are_tried_before_they_compute() -> None:
    """The first question compiles and launches them; as they have the true values, they agree."""
    os.environ.pop(fused.VARIABLE, None)
    device = torch.device(DEVICE)
    for known in (fused_norm.FUSION, fused_sum.FUSION):
        fusion = Fusion("kernels to be tried", known._trial)
        for dtype in fused.BOUNDS:
            with Events(names=True) as events:
                assert run(partial(fusion.is_trusted, device, dtype)), (fusion, dtype)
                launched = events.kernels[TRITON]
                assert fusion.is_trusted(device, dtype)
            assert launched == events.kernels[TRITON] > 1, (fusion, dtype)


def what_fused_kernels_cannot_do_is_left_to_pytorch() -> None:
    """Other layouts and dtypes, forward-mode derivatives, and transforms of torch.func."""
    single, double = GroupNorm(8).to(DEVICE), GroupNorm(8).to(DEVICE, torch.float64)
    x = torch.ones(2, 8, 4, 6, device=DEVICE)
    bias = torch.ones(2, 8, 1, 1, device=DEVICE)

    def both(x: Tensor) -> Tensor:
        norm = double if x.dtype == torch.float64 else single
        normed, x = norm.with_input(x, added=bias.to(x.dtype), silu=True)
        return residual_sum(normed, x, bias.to(x.dtype), 0.5)

    def dual(x: Tensor) -> None:
        with forward_ad.dual_level():
            both(forward_ad.make_dual(x, torch.ones_like(x)))

    def norm_of_nothing() -> Tensor:
        return residual_sum(single(x[:0], silu=True), x[:0], bias[:0], 0.5)

    calls: dict[str, tuple[Callable[[], object], int]] = {
        "float32": (lambda: both(x), 2),
        "bfloat16": (lambda: both(x.bfloat16()), 2),
        "float64": (lambda: both(x.double()), 0),
        "channels_last": (lambda: both(x.to(memory_format=torch.channels_last)), 0),
        "no images": (norm_of_nothing, 0),
        "jvp": (lambda: torch.func.jvp(both, (x,), (x,)), 0),
        "vmap": (lambda: torch.func.vmap(both)(x[None]), 0),
        "grad": (lambda: torch.func.grad(lambda x: both(x).sum())(x), 0),
        "dual": (lambda: dual(x), 0),
    }
    for fusion in (fused_norm.FUSION, fused_sum.FUSION):
        fusion._verdicts.clear()
    with decided(True), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's own, of its forward-mode rules
        for name, (call, expected) in calls.items():
            with Events(names=True) as events:
                call()
            assert events.kernels[TRITON] == expected, (name, events.kernels[TRITON])
            for fusion in (fused_norm.FUSION, fused_sum.FUSION):  # left, not tried and given up
                assert False not in fusion._verdicts.values(), name
    with decided(False), Events(names=True) as events:
        both(x)
    assert not events.kernels[TRITON]


def launches_are_repeated_and_else_tritons() -> None:
    """The second launch of a kind repeats the first; other numbers, dtypes and places do not."""
    from networks import sum_kernels  # they need triton
    from networks.launching import Launcher

    launcher = Launcher(sum_kernels.residual_sum_backward_kernel)
    images = {dtype: torch.zeros(2 * 3 * 32 + 1, device=DEVICE, dtype=dtype) for dtype in DTYPES}

    def launch(dtype: torch.dtype = torch.float32, rows: int = 6, start: int = 0) -> int:
        image, before = images[dtype][start:][:192], launcher.num_repeated
        sums = torch.zeros(6, device=DEVICE)
        with Events(names=True) as events:
            launcher((1, 1, 1), (image, image, sums), (rows, 3, 32, 96, 0.5), (8, 32), 1)
        assert events.kernels[TRITON] == 1
        return launcher.num_repeated - before

    assert [launch(), launch(), launch(rows=5), launch(rows=5), launch()] == [0, 1, 0, 1, 1]
    assert [launch(torch.bfloat16), launch(torch.bfloat16), launch()] == [0, 1, 1]
    assert [launch(start=1), launch(start=1)] == [0, 0]

    def fail(*arguments: object) -> None:
        raise TypeError("another number of arguments")

    launcher._variants = dict.fromkeys(launcher._variants, fail)
    assert [launch(), launch(), launch()] == [0, 0, 0]
    assert not launcher.is_direct
