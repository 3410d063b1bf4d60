"""What is peculiar to DDPM++ and NCSN++; what all networks share is in test_contract."""

import shutil
from typing import Any

import pytest
import torch
import torch._inductor.config

import networks
from tests.networks.small import SMALL, conditions, images, small_net


def test_turning_images_and_weights_turns_the_output() -> None:
    tall, wide = (small_net("ncsnpp", resolution) for resolution in ((12, 8), (8, 12)))
    turned = [tensor.mT if tensor.ndim == 4 else tensor for tensor in tall.state_dict().values()]
    wide.load_state_dict(dict(zip(wide.state_dict(), turned, strict=True)))
    x = images(2, height=12, width=8)
    with torch.no_grad():
        torch.testing.assert_close(wide(x.mT, conditions(2)).mT, tall(x, conditions(2)))


@pytest.mark.parametrize(
    ("resolution", "expected"), [(8, True), ((4, 8), True), ((8, 4), True), (16, False)]
)
def test_attention_goes_by_the_larger_side(resolution: Any, expected: bool) -> None:
    net = small_net(resolution=resolution, attn_resolutions=[8])
    first = next(m for name, m in net.named_modules() if name.endswith("_block0"))
    assert bool(first.heads) == expected


def test_fresh_network_puts_out_almost_nothing() -> None:
    torch.manual_seed(0)
    net = networks.create("ddpmpp", img_resolution=8, img_channels=2, **SMALL).eval()
    with torch.no_grad():
        assert 0 < net(images(2), conditions(2)).abs().max() < 1e-3


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_kernels_equal_the_eager_network() -> None:
    net = small_net(channel_mult=[1], attn_resolutions=[])
    arguments = images(2), conditions(2)
    # each of two dozen kernels includes the same header, which the compiler would read for seconds
    key = "cpp_cache_precompile_headers"
    faster = {key: True} if hasattr(torch._inductor.config, key) else {}
    with torch.no_grad(), torch._inductor.config.patch(faster):
        compiled = torch.compile(net, fullgraph=True)(*arguments)
        torch.testing.assert_close(compiled, net(*arguments))
