"""In which memory layout features lie, by precision."""

import pytest
import torch
from torch import Tensor, nn

from networks.blocks import UNetBlock
from networks.layers import is_channels_last
from tests.networks.small import conditions, images, small_net


@pytest.mark.parametrize("half", [False, True])
def test_features_on_cpus_lie_pixel_by_pixel_in_bf16_only(half: bool) -> None:
    net = small_net()
    layouts = []

    def look(module: nn.Module, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        layouts.append((is_channels_last(inputs[0]), is_channels_last(output)))

    for module in net.modules():
        if isinstance(module, UNetBlock):
            module.register_forward_hook(look)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        net(images(3), conditions(3))
    assert layouts
    assert set(layouts) == {(half, half)}
