"""The U-Net of v-diffusion: tags, the null label, heads of a fixed width, first values."""

import math
from typing import Any

import pytest
import torch
from torch import nn

import networks
from networks.blocks import UNetBlock
from tests.networks.small import conditions, images, small_net

CELEBA: dict[str, Any] = {
    "img_resolution": 64,
    "out_channels": 6,
    "label_dim": 40,
    "multi_tags": True,
    "model_channels": 192,
    "channel_mult": [1, 2, 3, 4],
    "emb_channels": 768,
    "attn_resolutions": [32, 16, 8],
    "head_dim": 64,
}


def vdiff(**options: Any) -> nn.Module:
    return small_net("vdiff", **({"model_channels": 32} | options))


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"img_resolution": 32, "label_dim": 10}, 60_806_403),
        ({"img_resolution": 32}, 60_795_139),
        (CELEBA | {"num_heads": 1}, 266_831_046),
        (CELEBA | {"num_heads": None}, 301_377_222),
    ],
)
def test_parameter_count_is_the_published_one(options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        net = networks.create("vdiff", img_channels=3, **options)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def test_tags_are_divided_by_the_root_of_their_number() -> None:
    tags, plain = vdiff(label_dim=5, multi_tags=True), vdiff(label_dim=5)
    labels = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).float()
    scaled = labels / torch.tensor([math.sqrt(3), 1, 1])[:, None]
    with torch.no_grad():
        output = tags(images(3), conditions(3), labels)
        torch.testing.assert_close(output, plain(images(3), conditions(3), scaled))
        assert not torch.allclose(output, plain(images(3), conditions(3), labels))


def test_masked_tags_do_not_count() -> None:
    net = vdiff(label_dim=5, multi_tags=True)
    mask = torch.tensor([False, True])
    with torch.no_grad():
        output = net(images(2), conditions(2), torch.ones(2, 5), mask)
        null = net(images(2), conditions(2))
    torch.testing.assert_close(output[0], null[0])
    assert not torch.allclose(output[1], null[1])


@pytest.mark.parametrize("multi_tags", [False, True])
def test_null_label_adds_the_bias_of_the_label_layer(multi_tags: bool) -> None:
    net, plain = vdiff(label_dim=5, multi_tags=multi_tags), vdiff()
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("map_label")}
    state["map_layer1.bias"] = state["map_layer1.bias"] + net.map_label.bias
    plain.load_state_dict(state)
    with torch.no_grad():
        expected = plain(images(2), conditions(2))
        torch.testing.assert_close(net(images(2), conditions(2)), expected)
        zeros = net(images(2), conditions(2), torch.zeros(2, 5))
    torch.testing.assert_close(zeros, expected)


def test_both_numbers_of_heads_make_attention_of_one_width_everywhere() -> None:
    net = vdiff(attn_resolutions=[8, 4], num_heads=1, head_dim=24)
    blocks = [m for m in net.modules() if isinstance(m, UNetBlock) and m.heads]
    assert {block.heads for block in blocks} == {1}
    assert {block.qkv.weight.shape[0] for block in blocks} == {72}
    assert {block.qkv.weight.shape[1] for block in blocks} == {32, 64}


def test_resampling_blocks_attend_where_the_level_they_leave_does() -> None:
    net = vdiff(resolution=16, channel_mult=[1, 1, 1], attn_resolutions=[8])
    attending = {name for name, m in net.named_modules() if isinstance(m, UNetBlock) and m.heads}
    assert attending == {
        "enc.8x8_block0",
        "enc.4x4_down",
        "dec.4x4_in0",
        "dec.8x8_block0",
        "dec.8x8_block1",
        "dec.16x16_up",
    }


def test_fresh_network_puts_out_zeros_and_its_branches_are_closed() -> None:
    torch.manual_seed(0)
    net = networks.create("vdiff", img_resolution=16, img_channels=2, model_channels=32).eval()
    with torch.no_grad():
        assert not net(images(2, height=16, width=16), conditions(2)).any()
    for module in net.modules():
        if isinstance(module, UNetBlock):
            assert not module.conv1.weight.any()
            assert module.conv0.weight.any()
            assert not module.heads or not module.proj.weight.any()


def test_only_tags_start_with_a_bias() -> None:
    torch.manual_seed(0)
    for multi_tags in (False, True):
        options = {"model_channels": 32, "label_dim": 7, "multi_tags": multi_tags}
        net = networks.create("vdiff", img_resolution=8, img_channels=2, **options)
        assert bool(net.map_label.bias.any()) == multi_tags
