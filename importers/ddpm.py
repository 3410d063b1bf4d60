"""Readers of the two DDPM families: SA-DPM with the ported weights of DDPM, and xyfJASON's."""

from typing import Any

from importers.naming import Naming, Part, Shapes, Unit, interleave, transpose
from importers.reading import Given, Reading, count, multiples, size

# ----------------------------------------------------------------------------
# SA-DPM; the attentions have one head, a network predicts the noise


def _locate_sa_dpm(unit: Unit) -> tuple[str, str]:
    if unit.side == "mid":
        return f"mid.block_{unit.index + 1}", "mid.attn_1"
    level = f"{unit.side}.{unit.level}"
    if unit.is_resampler:
        return f"{level}.{unit.side}sample.conv", ""
    return f"{level}.block.{unit.index}", f"{level}.attn.{unit.index}"


_SA_DPM = Naming(
    first="conv_in",
    layers={
        "map_layer0": Part(("temb.dense.0",)),
        "map_layer1": Part(("temb.dense.1",)),
        "out_norm": Part(("norm_out",)),
        "out_conv": Part(("conv_out",)),
    },
    locate=_locate_sa_dpm,
    residual={
        "norm0": Part(("norm1",)),
        "conv0": Part(("conv1",)),
        "affine": Part(("temb_proj",)),
        "norm1": Part(("norm2",)),
        "conv1": Part(("conv2",)),
        "skip": Part(("nin_shortcut",)),
    },
    attention={
        "norm2": Part(("norm",)),
        "qkv": Part(("q", "k", "v"), interleave),
        "proj": Part(("proj_out",)),
    },
)


def read_sa_dpm(shapes: Shapes, given: Given) -> Reading:
    """Read the shapes of SA-DPM's network.

    Args:
        shapes: foreign name -> shape.
        given: the caller's config.

    Returns:
        The reading.

    Raises:
        UserError: the shapes are not those of such a network.
    """
    family = given.family
    unit = size(family, shapes, "temb.dense.0.weight", 1)
    num_levels = count(shapes, "down.{}.block.0.conv1.weight")
    first = [f"down.{level}.block.0.conv1.weight" for level in range(num_levels)]
    widths = [size(family, shapes, name, 0) for name in first]
    has_conv = num_levels == 1 or "down.0.downsample.conv.weight" in shapes
    return Reading(
        network="ddpm",
        naming=_SA_DPM,
        inferred={
            "model_channels": unit,
            "channel_mult": multiples(family, widths, unit),
            "emb_channels": size(family, shapes, "temb.dense.0.weight", 0),
            "num_blocks": count(shapes, "down.0.block.{}.conv1.weight"),
            "resampler": "conv" if has_conv else "pool",
            "modulation": "add",
            "num_heads": 1,
            "head_dim": None,
            "img_channels": size(family, shapes, "conv_in.weight", 1),
            "out_channels": size(family, shapes, "conv_out.weight", 0),
            "label_dim": 0,
            "prediction": "eps",
        },
        assumed={"norm_eps": 1e-6, "down_padding": "end", "dropout": 0.0},
        attention=[f"down.{level}.attn.0.q.weight" in shapes for level in range(num_levels)],
    )


# ----------------------------------------------------------------------------
# Diffusion-Models-Implementations: units are numbered with their attentions, and up from the depth


def _naming_ddpm_xyf(attention: list[bool], is_adaptive: bool) -> Naming:
    def locate(unit: Unit) -> tuple[str, str]:
        if unit.side == "mid":
            return f"bottleneck_block.{2 * unit.index}", "bottleneck_block.1"
        stride = 2 if attention[unit.level] else 1
        number = unit.level if unit.side == "down" else len(attention) - 1 - unit.level
        level = f"{unit.side}_blocks.{number}"
        name = f"{level}.{unit.index * stride}"
        if unit.entry.kind == "conv_resample" and unit.side == "up":
            return f"{name}.1", ""
        return name, f"{level}.{unit.index * stride + 1}"

    residual = {"norm0": "blk1.0", "conv0": "blk1.2", "skip": "shortcut"}
    plain = {"affine": "proj.1", "norm1": "blk2.0", "conv1": "blk2.3"}
    adaptive = {"affine": "adagn.proj.1", "norm1": "adagn.gn", "conv1": "blk2.2"}
    residual |= adaptive if is_adaptive else plain
    return Naming(
        first="first_conv",
        layers={
            "map_layer0": Part(("time_embed.1",)),
            "map_layer1": Part(("time_embed.3",)),
            "map_label": Part(("class_embed",), transpose),
            "out_norm": Part(("last_conv.0",)),
            "out_conv": Part(("last_conv.2",)),
        },
        locate=locate,
        residual={ours: Part((name,)) for ours, name in residual.items()},
        attention={
            "norm2": Part(("norm",)),
            "qkv": Part(("q", "k", "v"), interleave),
            "proj": Part(("proj",)),
        },
    )


def read_ddpm_xyf(shapes: Shapes, given: Given) -> Reading:
    """Read the shapes of the networks UNet and UNetCategorialAdaGN.

    Args:
        shapes: foreign name -> shape.
        given: the caller's config; with num_heads or head_dim if a level has attention. The one
            head of the bottleneck does not count.

    Returns:
        The reading.

    Raises:
        UserError: the shapes are not those of such a network.
    """
    family = given.family
    unit = size(family, shapes, "time_embed.1.weight", 1)
    num_levels = count(shapes, "down_blocks.{}.0.blk1.2.weight")
    first = [f"down_blocks.{level}.0.blk1.2.weight" for level in range(num_levels)]
    widths = [size(family, shapes, name, 0) for name in first]
    attention = [f"down_blocks.{level}.1.q.weight" in shapes for level in range(num_levels)]
    is_adaptive = "down_blocks.0.0.adagn.gn.weight" in shapes
    # The deepest level has no resampling unit, which can look like a block.
    deepest = f"down_blocks.{num_levels - 1}"
    num_units = len({name.split(".")[2] for name in shapes if name.startswith(f"{deepest}.")})
    num_blocks = num_units // (2 if attention and attention[-1] else 1)
    has_labels = "class_embed.weight" in shapes
    inferred: dict[str, Any] = {
        "model_channels": unit,
        "channel_mult": multiples(family, widths, unit),
        "emb_channels": size(family, shapes, "time_embed.1.weight", 0),
        "num_blocks": num_blocks,
        "resampler": _resampler(shapes, num_blocks * (2 if attention[0] else 1)),
        "modulation": "scale_shift" if is_adaptive else "add",
        "img_channels": size(family, shapes, "first_conv.weight", 1),
        "out_channels": size(family, shapes, "last_conv.2.weight", 0),
        "label_dim": size(family, shapes, "class_embed.weight", 0) if has_labels else 0,
    }
    attended = [width for width, has in zip(widths, attention, strict=True) if has]
    heads = given.heads([(width, width) for width in attended])
    return Reading(
        network="ddpm",
        naming=_naming_ddpm_xyf(attention, is_adaptive),
        inferred=inferred | (heads or {}),
        assumed={
            "norm_eps": 1e-5,
            "down_padding": "both",
            "num_heads": 1,
            "head_dim": None,
            "dropout": 0.0,
        },
        attention=attention,
        missing=["num_heads or head_dim"] if attended and heads is None else [],
    )


def _resampler(shapes: Shapes, index: int) -> str:
    return "block" if f"down_blocks.0.{index}.blk1.2.weight" in shapes else "conv"
