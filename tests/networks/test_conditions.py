"""What the embedding does to the blocks has the dtype in which they compute."""

import pytest
import torch
from torch import Tensor, nn

import networks
from networks.blocks import UNetBlock
from tests.networks.small import conditions, images, small_net, small_variant


def dtypes_of_blocks(
    net: nn.Module, x: Tensor, c_noise: Tensor
) -> set[tuple[torch.dtype, torch.dtype]]:
    """(condition, output) of every block of a call."""
    found: set[tuple[torch.dtype, torch.dtype]] = set()

    def note(_block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.add((inputs[1].dtype, output.dtype))

    handles = [m.register_forward_hook(note) for m in net.modules() if isinstance(m, UNetBlock)]
    with torch.no_grad():
        net(x, c_noise)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_blocks_compute_in_one_dtype(name: str) -> None:
    net, x = small_net(**small_variant(name)), images(2)
    assert dtypes_of_blocks(net, x, conditions(2)) == {(torch.float32, torch.float32)}
    with torch.autocast("cpu", torch.bfloat16):
        assert dtypes_of_blocks(net, x, conditions(2)) == {(torch.bfloat16, torch.bfloat16)}
    assert dtypes_of_blocks(net.double(), x.double(), conditions(2)) == {
        (torch.float64, torch.float64)
    }
