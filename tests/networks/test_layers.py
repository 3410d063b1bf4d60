"""The primitive layers and the block against plain formulas."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from networks.blocks import BlockSettings, UNetBlock, attention
from networks.conditions import conditions
from networks.layers import (
    Conv2d,
    FourierEmbedding,
    Init,
    Linear,
    PositionalEmbedding,
    Resample,
    StridedConv2d,
    weight_init,
)
from networks.norms import GroupNorm
from tests.networks.small import images
from tests.parity.weights import fill_by_rule
from torch_utils.errors import UserError


@pytest.mark.parametrize(
    ("mode", "std"),
    [
        ("xavier_uniform", math.sqrt(2 / 500)),
        ("xavier_normal", math.sqrt(2 / 500)),
        ("kaiming_uniform", math.sqrt(1 / 200)),
        ("kaiming_normal", math.sqrt(1 / 200)),
        # 0.8796 is the deviation of a unit normal cut at two.
        ("truncated_normal", 0.8796 * math.sqrt(1 / 200)),
    ],
)
def test_initialisers_have_their_standard_deviation(mode: str, std: float) -> None:
    torch.manual_seed(0)
    values = weight_init([300, 200], mode, fan_in=200, fan_out=300)
    assert abs(values.mean()) < 0.02 * std
    assert float(values.std()) == pytest.approx(std, rel=0.02)
    if mode.endswith("uniform"):
        assert float(values.abs().max()) <= std * math.sqrt(3)
    if mode == "truncated_normal":
        assert float(values.abs().max()) <= 2 * math.sqrt(1 / 200)


def test_weight_is_drawn_first_and_the_bias_also_at_gain_zero() -> None:
    torch.manual_seed(0)
    linear = Linear(3, 2)
    after = torch.randn(1)
    torch.manual_seed(0)
    weight, _bias = torch.randn(2, 3), torch.randn(2)
    torch.testing.assert_close(linear.weight.detach(), weight / math.sqrt(3))
    assert linear.bias is not None
    assert torch.equal(linear.bias, torch.zeros(2))
    assert torch.equal(after, torch.randn(1))


def filtered_down(x: np.ndarray, taps: list[float]) -> np.ndarray:
    """Halving along the last axis, written as a sum over taps on a zero-padded line."""
    pad = (len(taps) - 1) // 2
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(pad, pad)])
    num = x.shape[-1] // 2
    lines = [tap * padded[..., i : i + 2 * num : 2] for i, tap in enumerate(taps)]
    return np.asarray(np.sum(lines, axis=0) / sum(taps))


def filtered_up(x: np.ndarray, taps: list[float]) -> np.ndarray:
    """Doubling along the last axis: each value spreads its taps, twice the weight in all."""
    pad, num = (len(taps) - 1) // 2, x.shape[-1]
    spread = np.zeros((*x.shape[:-1], 2 * num + len(taps) - 2))
    for i, tap in enumerate(taps):
        spread[..., i : i + 2 * num : 2] += 2 * tap / sum(taps) * x
    return spread[..., pad : pad + 2 * num]


@pytest.mark.parametrize("taps", [[1, 1], [1, 3], [1, 3, 3, 1], [1, 2, 4, 4, 2, 1]])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_resampling_is_the_separable_filter(direction: str, taps: list[float]) -> None:
    x = images(2, height=4, width=6)
    along = filtered_down if direction == "down" else filtered_up
    expected = along(x.double().numpy(), taps)
    expected = along(expected.swapaxes(2, 3), taps).swapaxes(2, 3)
    np.testing.assert_allclose(Resample(direction, taps)(x).numpy(), expected, atol=1e-6)


def test_fused_convolution_filters_the_padded_convolution() -> None:
    conv = Conv2d(2, 5, 3, resample="down", taps=[1, 3, 3, 1], fused=True)
    fill_by_rule(conv)
    x = images(2, height=8, width=4)
    wide = F.conv2d(x, conv.weight, padding=2)
    assert conv.resample_filter is not None
    kernel = conv.resample_filter.expand(5, 1, 4, 4)
    expected = F.conv2d(wide, kernel, stride=2, groups=5) + conv.bias[:, None, None]
    torch.testing.assert_close(conv(x), expected)


def test_strided_convolution_takes_every_other_window() -> None:
    x = images(2, 2, 4, 6)
    for padding, first in (("end", 1), ("both", 0)):
        conv = StridedConv2d(2, 3, padding=padding)
        fill_by_rule(conv)
        every = F.conv2d(x, conv.weight, conv.bias, padding=1)
        torch.testing.assert_close(conv(x), every[:, :, first::2, first::2])


def test_resampling_without_taps_is_the_box_without_a_tensor() -> None:
    x = images(2, 2, 4, 6)
    for direction in ("up", "down"):
        plain = Resample(direction, None)
        assert not plain.state_dict()
        torch.testing.assert_close(plain(x), Resample(direction, [1, 1])(x))


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (64, 16), (128, 32), (256, 32)])
def test_group_norm_normalises_each_group(channels: int, groups: int) -> None:
    x = images(2, channels, 4, 6)
    y = GroupNorm(channels)(x).reshape(2, groups, -1)
    torch.testing.assert_close(y.mean(2), torch.zeros(2, groups), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(2, correction=0), torch.ones(2, groups), atol=1e-3, rtol=0)


def test_group_norm_may_have_a_fixed_number_of_groups() -> None:
    x = images(2, 64, 4, 6)
    y = GroupNorm(64, groups=2)(x).reshape(2, 2, -1)
    torch.testing.assert_close(y.var(2, correction=0), torch.ones(2, 2), atol=1e-3, rtol=0)


def test_elementary_group_norm_equals_the_native_one() -> None:
    norm = GroupNorm(16)
    fill_by_rule(norm)
    x = images(2, 16, 4, 6)
    torch.testing.assert_close(norm._elementary(x), norm(x))


@pytest.mark.parametrize("endpoint", [False, True])
def test_positional_frequencies_run_from_one_to_a_ten_thousandth(endpoint: bool) -> None:
    x = torch.tensor([0.0, 1.0, 700.0], dtype=torch.float64)
    cos, sin = PositionalEmbedding(8, endpoint=endpoint)(x)
    exponents = torch.arange(4, dtype=torch.float64) / (3 if endpoint else 4)
    phase = x[:, None] * 0.0001**exponents
    torch.testing.assert_close(cos, phase.cos())
    torch.testing.assert_close(sin, phase.sin())


def test_fourier_features_are_those_of_the_stored_frequencies() -> None:
    embedding = FourierEmbedding(8)
    cos, sin = embedding(torch.tensor([0.3]))
    torch.testing.assert_close(cos[0], (0.3 * 2 * math.pi * embedding.freqs).cos())
    torch.testing.assert_close(sin[0], (0.3 * 2 * math.pi * embedding.freqs).sin())


def test_attention_is_its_definition_whichever_way_it_is_computed() -> None:
    generator = torch.Generator().manual_seed(3)
    qkv = torch.randn(2, 3, 5, 3, 8, generator=generator)  # [N, heads, c, 3, L]
    q, k, v = qkv.unbind(3)
    weights = (torch.einsum("nhcq,nhck->nhqk", q, k) / math.sqrt(5)).softmax(-1)
    expected = torch.einsum("nhqk,nhck->nhcq", weights, v)
    plain = attention(qkv)
    dual = torch.func.jvp(attention, (qkv,), (torch.ones_like(qkv),))[0]
    fused = attention(qkv.bfloat16())
    torch.testing.assert_close(plain, expected)
    torch.testing.assert_close(dual, expected)
    torch.testing.assert_close(fused.float(), expected, rtol=3e-2, atol=3e-2)


def block_reference(block: UNetBlock, x: Tensor, emb: Tensor, settings: BlockSettings) -> Tensor:
    """The block of an adaptive network without resampling, written out once more."""

    def norm(layer: GroupNorm, x: Tensor) -> Tensor:
        groups = min(32, x.shape[1] // 4)
        return F.group_norm(x, groups, layer.weight, layer.bias, settings.eps)

    h = F.conv2d(F.silu(norm(block.norm0, x)), block.conv0.weight, block.conv0.bias, padding=1)
    affine = F.linear(emb, block.affine.weight, block.affine.bias)
    scale, shift = affine[..., None, None].chunk(2, 1)
    h = F.silu(norm(block.norm1, h) * (1 + scale) + shift)
    h = F.conv2d(h, block.conv1.weight, block.conv1.bias, padding=1)
    assert isinstance(block.skip, Conv2d)
    y = (h + F.conv2d(x, block.skip.weight, block.skip.bias)) * settings.skip_scale
    qkv = F.conv2d(norm(block.norm2, y), block.qkv.weight, block.qkv.bias).flatten(2)
    per_head = y.shape[1] // block.heads
    heads = []
    for head in range(block.heads):
        first = head * per_head * 3
        q, k, v = (qkv[:, first + i : first + per_head * 3 : 3] for i in range(3))
        weights = (q.mT @ k / math.sqrt(per_head)).softmax(dim=2)
        heads.append((weights @ v.mT).mT)
    attended = torch.cat(heads, dim=1).reshape(y.shape)
    return (F.conv2d(attended, block.proj.weight, block.proj.bias) + y) * settings.skip_scale


@pytest.mark.parametrize(
    "settings",
    [BlockSettings(head_dim=8), BlockSettings(num_heads=4, skip_scale=0.5, eps=0.1)],
)
def test_adaptive_block_with_heads_equals_its_formula(settings: BlockSettings) -> None:
    block = UNetBlock(8, 16, 12, settings, attention=True).eval()
    fill_by_rule(block)
    assert block.heads == (settings.num_heads or 2)
    x, emb = images(2, 8, 4, 6), torch.randn(2, 12)
    torch.testing.assert_close(
        block(x, *conditions([block], emb, x)), block_reference(block, x, emb, settings)
    )


def test_resampling_shortcut_has_no_weights_without_projection() -> None:
    block = UNetBlock(8, 8, 4, BlockSettings(), resample="up")
    names = [name for name in block.state_dict() if name.startswith("skip")]
    assert names == ["skip.resample_filter"]
    x = images(2, 8, 4, 6)
    torch.testing.assert_close(
        block(x, *conditions([block], torch.zeros(1, 4), x)), F.interpolate(x, scale_factor=2.0)
    )


def test_heads_of_a_given_width_need_not_make_up_the_channels() -> None:
    settings = BlockSettings(num_heads=3, head_dim=8)
    block = UNetBlock(16, 16, 4, settings, attention=True)
    assert block.qkv.weight.shape == (72, 16, 1, 1)
    assert block.proj.weight.shape == (16, 24, 1, 1)
    x = images(2, 16, 4, 6)
    assert block(x, *conditions([block], torch.zeros(1, 4), x)).shape == x.shape


@pytest.mark.parametrize("channels", [32, 96])
def test_widths_that_do_not_divide_into_heads_are_an_error(channels: int) -> None:
    settings = BlockSettings(num_heads=5) if channels == 96 else BlockSettings()
    with pytest.raises(UserError, match=f"attention over {channels} channels"):
        UNetBlock(channels, channels, 4, settings, attention=True)


def test_attention_input_projection_may_have_its_own_initialiser() -> None:
    settings = BlockSettings(num_heads=1, init_attn=Init(weight_gain=0.0))
    block = UNetBlock(8, 8, 4, settings, attention=True)
    assert not block.qkv.weight.any()
    assert block.conv0.weight.any()
