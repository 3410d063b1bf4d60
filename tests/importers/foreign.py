"""Names and shapes of foreign checkpoints, written down from their published descriptions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Shapes = dict[str, list[int]]


def layer(name: str, *shape: int) -> Shapes:
    """A layer with a bias for each output."""
    return {f"{name}.weight": list(shape), f"{name}.bias": [shape[0]]}


def residual(names: Sequence[str], prefix: str, a: int, b: int, emb: int, emb_out: int) -> Shapes:
    """norm, convolution, embedding, norm, convolution, shortcut under a family's names."""
    norm1, conv1, fc, norm2, conv2, skip = (f"{prefix}.{name}" for name in names)
    return (
        layer(norm1, a)
        | layer(conv1, b, a, 3, 3)
        | layer(fc, emb_out, emb)
        | layer(norm2, b)
        | layer(conv2, b, b, 3, 3)
        | (layer(skip, b, a, 1, 1) if a != b else {})
    )


def separate_attention(prefix: str, b: int, proj: str) -> Shapes:
    shapes = layer(f"{prefix}.norm", b)
    for name in ("q", "k", "v", proj):
        shapes |= layer(f"{prefix}.{name}", b, b, 1, 1)
    return shapes


def inputs_of_up(widths: Sequence[int], first: int, num_blocks: int, level: int) -> list[int]:
    """Input channels of the up blocks of a level: what comes from below and the skip."""
    last = len(widths) - 1
    below = [widths[min(level + 1, last)]] + [widths[level]] * num_blocks
    skips = [widths[level]] * num_blocks + [widths[level - 1] if level else first]
    return [a + b for a, b in zip(below, skips, strict=True)]


def inputs_of_down(widths: Sequence[int], first: int, num_blocks: int, level: int) -> list[int]:
    return [widths[level - 1] if level else first] + [widths[level]] * (num_blocks - 1)


def sa_dpm(
    ch: int,
    mult: Sequence[int],
    num: int,
    attn: Sequence[bool],
    *,
    conv: bool = True,
    image: int = 3,
) -> Shapes:
    names = ("norm1", "conv1", "temb_proj", "norm2", "conv2", "nin_shortcut")
    widths, emb, last = [ch * m for m in mult], 4 * ch, len(mult) - 1
    shapes = layer("temb.dense.0", emb, ch) | layer("temb.dense.1", emb, emb)
    shapes |= layer("conv_in", ch, image, 3, 3)
    for i, b in enumerate(widths):
        sides = {"down": inputs_of_down, "up": inputs_of_up}
        for side, inputs in sides.items():
            for j, a in enumerate(inputs(widths, ch, num, i)):
                shapes |= residual(names, f"{side}.{i}.block.{j}", a, b, emb, b)
                if attn[i]:
                    shapes |= separate_attention(f"{side}.{i}.attn.{j}", b, "proj_out")
        if conv and i < last:
            shapes |= layer(f"down.{i}.downsample.conv", b, b, 3, 3)
        if conv and i > 0:
            shapes |= layer(f"up.{i}.upsample.conv", b, b, 3, 3)
    for block in ("mid.block_1", "mid.block_2"):
        shapes |= residual(names, block, widths[-1], widths[-1], emb, widths[-1])
    shapes |= separate_attention("mid.attn_1", widths[-1], "proj_out")
    return shapes | layer("norm_out", widths[0]) | layer("conv_out", image, widths[0], 3, 3)


def ddpm_xyf(
    dim: int, mult: Sequence[int], num: int, attn: Sequence[bool], *, num_classes: int = 0
) -> Shapes:
    """UNet, or UNetCategorialAdaGN with resampling blocks if there are classes."""
    names = ["blk1.0", "blk1.2", "proj.1", "blk2.0", "blk2.3", "shortcut"]
    if num_classes:
        names[2:5] = ["adagn.proj.1", "adagn.gn", "blk2.2"]
    widths, emb, last = [dim * m for m in mult], 4 * dim, len(mult) - 1

    def block(prefix: str, a: int, b: int) -> Shapes:
        return residual(names, prefix, a, b, emb, 2 * b if num_classes else b)

    shapes = layer("time_embed.1", emb, dim) | layer("time_embed.3", emb, emb)
    shapes |= {"class_embed.weight": [num_classes, emb]} if num_classes else {}
    shapes |= layer("first_conv", dim, 3, 3, 3)
    for i, b in enumerate(widths):
        for side, level, inputs in (
            ("down", i, inputs_of_down(widths, dim, num, i)),
            ("up", last - i, inputs_of_up(widths, dim, num, i)),
        ):
            place = 0
            for a in inputs:
                shapes |= block(f"{side}_blocks.{level}.{place}", a, b)
                if attn[i]:
                    shapes |= separate_attention(f"{side}_blocks.{level}.{place + 1}", b, "proj")
                place += 2 if attn[i] else 1
            if i == (last if side == "down" else 0):
                continue
            name = f"{side}_blocks.{level}.{place}"
            conv = layer(name if side == "down" else f"{name}.1", b, b, 3, 3)
            shapes |= block(name, b, b) if num_classes else conv
    for place in (0, 2):
        shapes |= block(f"bottleneck_block.{place}", widths[-1], widths[-1])
    shapes |= separate_attention("bottleneck_block.1", widths[-1], "proj")
    return shapes | layer("last_conv.0", widths[0]) | layer("last_conv.2", 3, widths[0], 3, 3)


def v_diffusion(
    hid: int,
    mult: Sequence[int],
    num: int,
    attn: Sequence[bool],
    *,
    classes: int = 0,
    tags: int = 0,
    emb: int | None = None,
    heads: int | None = None,
    out: int = 3,
) -> Shapes:
    """`heads` is the width of all heads together, None for that of the block."""
    names = ("norm1", "conv1", "fc", "norm2", "conv2", "skip")
    widths, emb, last = [hid * m for m in mult], emb or 4 * hid, len(mult) - 1

    def attention(prefix: str, b: int) -> Shapes:
        h = heads or b
        shapes = layer(f"{prefix}.norm", b) | layer(f"{prefix}.proj_in", 3 * h, b, 1, 1)
        return shapes | layer(f"{prefix}.proj_out", b, h, 1, 1)

    shapes = layer("time_embed.0", emb, hid) | layer("time_embed.2", emb, emb)
    shapes |= layer("class_embed.1", emb, classes) if classes else {}
    shapes |= layer("class_embed", emb, tags) if tags else {}
    shapes |= layer("in_conv", hid, 3, 3, 3)
    for i, b in enumerate(widths):
        for side, inputs in (
            ("down", inputs_of_down(widths, hid, num, i) + [b] * (i < last)),
            ("up", inputs_of_up(widths, hid, num, i) + [b] * (i > 0)),
        ):
            for j, a in enumerate(inputs):
                unit = f"{side}samples.level_{i}.{j}"
                shapes |= residual(names, f"{unit}.0" if attn[i] else unit, a, b, emb, 2 * b)
                shapes |= attention(f"{unit}.1", b) if attn[i] else {}
    for place in (0, 2):
        shapes |= residual(names, f"middle.{place}", widths[-1], widths[-1], emb, 2 * widths[-1])
    shapes |= attention("middle.1", widths[-1])
    return shapes | layer("out_conv.0", widths[0]) | layer("out_conv.2", out, widths[0], 3, 3)


def numbered(shapes: Shapes, device: str = "cpu") -> dict[str, Tensor]:
    """Tensors of these shapes in which every element has a number of its own."""
    tensors: dict[str, Any] = {}
    start = 0
    for name, shape in shapes.items():
        size = torch.Size(shape).numel()
        values = torch.arange(start, start + size, dtype=torch.float32, device=device)
        tensors[name] = values.reshape(shape)
        start += size
    return tensors
