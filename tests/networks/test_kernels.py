"""Compiled kernels of every family against eager blocks: the gate for a version of PyTorch."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks.compiled import BlockCompiler, set_compiler
from tests.networks.small import DEVICES, conditions, images, small_net
from tests.networks.test_modes import WITH_BLOCKS, distance

# relative error of the output and of all gradients together
BOUNDS = {"fp32": 1e-5, "bf16": 2e-2}


def results(net: nn.Module, device: str, is_half: bool) -> dict[str, Tensor]:
    """Output and gradients in training mode, and the output in evaluation mode."""
    x, c_noise = images(3).to(device), conditions(3).to(device)
    net.train().zero_grad()
    with torch.autocast(device, torch.bfloat16, enabled=is_half):
        output = net(x, c_noise)
        output.square().mean().backward()
        with torch.no_grad():
            evaluated = net.eval()(x, c_noise)
    gradients = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
    return {"output": output.detach(), "gradients": torch.cat(gradients), "evaluated": evaluated}


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", WITH_BLOCKS)
def test_kernels_equal_eager_blocks_forwards_and_backwards(
    variant: dict[str, Any], device: str
) -> None:
    net = small_net(**variant).to(device)
    plain = copy.deepcopy(net)
    compiler = BlockCompiler()
    set_compiler(net, compiler)
    for precision, bound in BOUNDS.items():
        is_half = precision == "bf16"
        found, expected = results(net, device, is_half), results(plain, device, is_half)
        for name, value in expected.items():
            assert distance(found[name], value) < bound, (precision, name)
    num = compiler.num_graphs
    with torch.compiler.set_stance("fail_on_recompile"):
        again = results(net, device, is_half)
    assert all(torch.equal(again[name], value) for name, value in found.items())
    assert compiler.num_graphs == num
