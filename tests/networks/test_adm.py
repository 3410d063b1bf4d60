"""What is peculiar to ADM; what all networks share is in test_contract."""

import math
from typing import Any

import pytest
import torch

import networks
from networks.blocks import UNetBlock
from tests.networks.small import SMALL, conditions, images, small_net
from torch_utils.errors import UserError

SIZES: dict[str, Any] = {"img_resolution": 8, "img_channels": 2}
OPTIONS: dict[str, Any] = SMALL | {"model_channels": 32, "channel_mult": [1, 4]}


def blocks(**options: Any) -> dict[str, UNetBlock]:
    with torch.device("meta"):
        net = networks.create("adm", **SIZES | OPTIONS | options)
    return {name: block for name, block in net.named_modules() if isinstance(block, UNetBlock)}


def test_a_fresh_network_puts_out_exactly_nothing() -> None:
    torch.manual_seed(0)
    net = networks.create("adm", **SIZES, **OPTIONS, label_dim=3, augment_dim=2)
    output = net(images(2), conditions(2), torch.eye(3)[:2], augment_labels=torch.ones(2, 2))
    assert output.shape == (2, 2, 8, 8)
    assert not output.any()


def test_fresh_weights_have_their_published_spread() -> None:
    torch.manual_seed(0)
    net = networks.create("adm", **SIZES, **OPTIONS, label_dim=40, augment_dim=2)
    state = net.state_dict()
    for name in ("map_layer1", "enc.8x8_conv", "dec.4x4_in0.qkv"):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        bound = 1 / math.sqrt(weight[0].numel())
        for values in (weight, bias):
            assert 0.8 * bound < values.abs().max() <= bound, name
    assert state["map_label.weight"].std() == pytest.approx(1, abs=0.05)
    zeros = ("map_augment", "out_conv", "dec.4x4_in0.conv1", "dec.4x4_in0.proj")
    assert not any(state[f"{name}.weight"].any() for name in zeros)
    assert not any(state[f"{name}.bias"].any() for name in zeros[1:])


def test_every_block_of_a_level_has_attention_and_the_bottleneck_always() -> None:
    options = {"channel_mult": [2, 2, 4], "num_blocks": 2, "attn_resolutions": [4]}
    attending = {name for name, block in blocks(**options).items() if block.heads}
    assert attending == {
        *(f"enc.4x4_block{i}" for i in range(2)),
        *(f"dec.4x4_block{i}" for i in range(3)),
        "dec.2x2_in0",
    }


def test_heads_have_64_channels() -> None:
    found = blocks(channel_mult=[2, 6], attn_resolutions=[8, 4])
    assert found["enc.8x8_block0"].heads == 1
    assert found["enc.4x4_block0"].heads == 3


def test_the_first_convolution_has_the_width_of_its_level() -> None:
    net = small_net("adm", **OPTIONS | {"channel_mult": [2, 4]})
    assert net.state_dict()["enc.8x8_conv.weight"].shape == (64, 2, 3, 3)


def test_the_null_label_is_a_row_of_zeros() -> None:
    net = small_net("adm", label_dim=4, **OPTIONS)
    x, c_noise = images(2), conditions(2)
    with torch.no_grad():
        none, zeros = net(x, c_noise), net(x, c_noise, torch.zeros(2, 4))
    torch.testing.assert_close(none, zeros)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel_mult": [1, 1]}, "attention over 32 channels does not divide into heads of 64"),
        ({"attn_resolutions": [8, 4]}, "attention over 32 channels does not divide"),
        ({"model_channels": 224, "channel_mult": [1, 1]}, "attention over 224 channels"),
        ({"model_channels": 17}, "model_channels must be even, not 17"),
        ({"model_channels": 34}, "8x8_block0 would normalise 34 channels"),
        ({"img_resolution": 9}, "height of the images must be a multiple of 2"),
        ({"encoder_type": "skip"}, "encoder_type"),
    ],
)
def test_impossible_sizes_are_one_clear_line_before_any_tensor(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("networks.layers.weight_init", lambda *args: drawn.append(args))
    with pytest.raises(UserError, match=message):
        networks.create("adm", **SIZES | OPTIONS | options)
    assert not drawn
