"""The U-Net of DDPM in its variants: sizes, heads, classes, conditions and what it refuses."""

from typing import Any

import pytest
import torch
from torch import nn

import networks
from networks.blocks import UNetBlock
from tests.networks.small import conditions, images, small_net
from torch_utils.errors import UserError

ADAPTIVE: dict[str, Any] = {"modulation": "scale_shift", "resampler": "block"}


def ddpm(**options: Any) -> nn.Module:
    return small_net("ddpm", **({"model_channels": 32} | options))


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"img_resolution": 32}, 35_746_307),
        ({"img_resolution": 64, "channel_mult": [1, 2, 2, 2, 4]}, 78_700_803),
        ({"img_resolution": 256, "channel_mult": [1, 1, 2, 2, 4, 4]}, 113_673_219),
        ({"img_resolution": 32, "img_channels": 1, "model_channels": 64}, 8_949_761),
        (
            {
                "img_resolution": 32,
                "label_dim": 10,
                "attn_resolutions": [16, 8],
                "num_heads": None,
                "head_dim": 64,
                **ADAPTIVE,
            },
            44_178_947,
        ),
    ],
)
def test_parameter_count_is_the_published_one(options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        net = networks.create("ddpm", **({"img_channels": 3} | options))
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def test_bottleneck_has_one_head_whatever_the_levels_have() -> None:
    for heads in ({"num_heads": 4}, {"num_heads": None, "head_dim": 8}):
        net = ddpm(attn_resolutions=[8], **heads)
        found = {
            name: module.heads
            for name, module in net.named_modules()
            if isinstance(module, UNetBlock) and module.heads
        }
        assert found == {
            "enc.8x8_block0": 4,
            "dec.4x4_in0": 1,
            "dec.8x8_block0": 4,
            "dec.8x8_block1": 4,
        }


def test_bottleneck_may_have_the_heads_of_the_levels() -> None:
    net = ddpm(num_heads=None, head_dim=8, middle_heads="same")
    assert net.dec["4x4_in0"].heads == 8


@pytest.mark.parametrize(
    ("kind", "gone"),
    [("normed", set()), ("plain", {"norm2"}), ("none", {"norm2", "qkv", "proj"})],
)
def test_bottleneck_may_lack_its_norm_or_its_attention(kind: str, gone: set[str]) -> None:
    names = {name.split(".")[2] for name in ddpm().state_dict() if name.startswith("dec.4x4_in0")}
    left = {
        name.split(".")[2]
        for name in ddpm(middle_attention=kind).state_dict()
        if name.startswith("dec.4x4_in0")
    }
    assert names - left == gone


def test_levels_with_attention_may_be_left_by_other_layers() -> None:
    net = ddpm(attn_resolutions=[8], attn_resampler="block", num_heads=1)
    assert isinstance(net.enc["4x4_down"], UNetBlock)  # leaves 8x8, which has attention
    assert not isinstance(net.dec["8x8_up"], UNetBlock)  # leaves 4x4, which has none


def test_first_convolution_may_have_a_width_of_its_own() -> None:
    net = ddpm(first_channels=64, num_groups=16)
    assert net.enc["8x8_conv"].weight.shape[0] == 64
    assert net.map_layer0.weight.shape == (256, 64)
    assert ddpm(first_channels=None).map_layer0.weight.shape == (128, 32)


def test_pooling_has_no_parameters_between_levels() -> None:
    names = {name.split(".")[1] for name, _ in ddpm(resampler="pool").named_parameters()}
    assert not {"4x4_down", "8x8_up"} & names
    names = {name.split(".")[1] for name, _ in ddpm().named_parameters()}
    assert {"4x4_down", "8x8_up"} <= names


@pytest.mark.parametrize(
    "options",
    [
        {"down_padding": "both"},
        {"norm_eps": 0.1},
        {"num_groups": 8},
        {"freq_endpoint": False},
        {"cosine_first": True},
        {"num_heads": 2, "middle_heads": "same"},
        ADAPTIVE,
    ],
)
def test_options_that_need_no_other_weights_change_the_output(options: dict[str, Any]) -> None:
    arguments = images(2), conditions(2)
    with torch.no_grad():
        assert not torch.allclose(ddpm(**options)(*arguments), ddpm()(*arguments))


def test_null_label_adds_nothing() -> None:
    net, plain = ddpm(label_dim=4, **ADAPTIVE), ddpm(**ADAPTIVE)
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("map_label")}
    plain.load_state_dict(state)
    with torch.no_grad():
        expected = plain(images(2), conditions(2))
        torch.testing.assert_close(net(images(2), conditions(2)), expected)
        zeros = net(images(2), conditions(2), torch.zeros(2, 4))
    torch.testing.assert_close(zeros, expected)


def test_a_class_is_a_vector_of_a_table() -> None:
    net, plain = ddpm(label_dim=4), ddpm()
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("map_label")}
    state["map_layer1.bias"] = state["map_layer1.bias"] + net.map_label.weight[:, 2]
    plain.load_state_dict(state)
    labels = torch.eye(4)[[2, 2]]
    with torch.no_grad():
        output = net(images(2), conditions(2), labels)
        torch.testing.assert_close(output, plain(images(2), conditions(2)))


def test_whole_steps_may_be_integers() -> None:
    net = ddpm()
    with torch.no_grad():
        whole = net(images(2), torch.tensor([0, 999]))
        torch.testing.assert_close(whole, net(images(2), torch.tensor([0.0, 999.0])))
    assert whole.dtype == torch.float32


def test_conditions_in_float64_keep_their_precision() -> None:
    net = ddpm()
    step = torch.tensor([987.654321])
    shifted = step.double() + 1e-5  # less than half a unit of float32 at this size
    assert torch.equal(shifted.float(), step)
    emb = [net.embed(value, None, None, None) for value in (step.double(), shifted)]
    assert emb[0].dtype == torch.float32
    assert not torch.equal(*emb)


def test_fresh_network_has_the_defaults_of_the_framework() -> None:
    torch.manual_seed(0)
    net = networks.create("ddpm", img_resolution=8, img_channels=2, model_channels=32)
    conv = net.out_conv
    bound = 1 / (32 * 9) ** 0.5
    for parameter in (conv.weight, conv.bias):
        assert 0.5 * bound < float(parameter.detach().abs().max()) <= bound


@pytest.mark.parametrize("name", ["ddpm", "vdiff"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment_dim": 9}, "takes no augmentation labels"),
        ({"model_channels": 48}, "8x8_block0 would normalise 48 channels, .* 32 groups"),
        ({"model_channels": 16}, "make model_channels a multiple of 32"),
        ({"num_heads": 5}, "attention over 64 channels does not divide into 5 heads"),
        ({"num_heads": None, "head_dim": 48}, "into heads of 48 channels"),
        ({"num_heads": None, "head_dim": 128}, "into heads of 128 channels"),
        ({"num_heads": 0}, "num_heads is 0: it must be a positive integer or null"),
        ({"head_dim": 1.5}, "head_dim is 1.5: it must be a positive integer or null"),
        ({"emb_channels": 0}, "emb_channels is 0: it must be a positive integer or null"),
        ({"img_resolution": (8, 7)}, "width of the images must be a multiple of 2"),
        ({"norm_epsilon": 1}, "unknown option"),
    ],
)
def test_impossible_values_are_refused_before_a_weight_is_drawn(
    name: str, options: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {
        "img_resolution": 8,
        "img_channels": 2,
        "model_channels": 32,
        "channel_mult": [1, 2],
        "attn_resolutions": [4],
    }
    before = torch.get_rng_state()
    with pytest.raises(UserError, match=message):
        networks.create(name, **(given | options))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modulation": "shift"}, "unknown modulation .*: did you mean 'scale_shift'"),
        ({"resampler": "blocks"}, "unknown resampler .*: did you mean 'block'"),
        ({"down_padding": "start"}, "unknown down_padding .*: known are both, end"),
        ({"norm_eps": 0.0}, "norm_eps is 0.0: it must be a positive, finite number"),
        ({"num_groups": 0}, "num_groups is 0: it must be from 1"),
        ({"model_channels": 33, "num_groups": 1}, "noise embedding is 33 wide"),
        ({"attn_resampler": "blok"}, "attn_resampler is 'blok': it must be conv, pool, block or"),
        ({"middle_heads": "two"}, "unknown middle_heads"),
    ],
)
def test_choices_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        networks.create("ddpm", img_resolution=32, img_channels=3, **options)
