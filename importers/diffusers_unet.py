"""The config of UNet2DModel, of the library diffusers, as options of our network `ddpm`.

Facts of the library's documentation: keys, their defaults, and what each changes in the network.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch_utils.errors import UserError
from torch_utils.numbers import is_integer

CLASS = "UNet2DModel"

# key -> the library's default
DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", *["AttnDownBlock2D"] * 3],
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": [*["AttnUpBlock2D"] * 3, "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
}
# the only values that our network can express
ONLY: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
    "freq_shift": (0, 1),
    "flip_sin_to_cos": (False, True),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "add_attention": (False, True),
}
# type of a level's block -> whether it has attention, and the layer that leaves the level; None
# for the one that downsample_type or upsample_type names
BLOCKS: dict[str, tuple[bool, str | None]] = {
    "DownBlock2D": (False, "conv"),
    "AttnDownBlock2D": (True, None),
    "ResnetDownsampleBlock2D": (False, "block"),
    "UpBlock2D": (False, "conv"),
    "AttnUpBlock2D": (True, None),
    "ResnetUpsampleBlock2D": (False, "block"),
}
RESAMPLERS = {"conv": "conv", "resnet": "block"}
_MAX_LEVELS = 16


@dataclass(frozen=True)
class UNetReading:
    """What a config of the network says.

    Attributes:
        network: {name, options...} of networks.create.
        img_resolution: (height, width).
        img_channels: of the images.
        out_channels: of the output: as many, or twice as many if a variance is learned.
        num_classes: 0 without classes.
        num_levels: how many resolutions there are.
    """

    network: dict[str, Any]
    img_resolution: tuple[int, int]
    img_channels: int
    out_channels: int
    num_classes: int
    num_levels: int


def read_unet(config: Mapping[str, Any], where: str) -> UNetReading:
    """Read a config.

    Args:
        config: key -> value; those that are not there have the library's defaults.
        where: its file, for messages.

    Raises:
        UserError: a value that our network cannot express, or that no network can have.
    """
    values = DEFAULTS | {key: value for key, value in config.items() if key in DEFAULTS}
    for key, accepted in ONLY.items():
        if not any(values[key] == value for value in accepted):
            raise UserError(
                f"{where}: {key} is {_shown(values[key])}: our networks only have"
                f" {' or '.join(map(_shown, accepted))}"
            )
    height, width = _sides(values["sample_size"], where)
    widths = _widths(values["block_out_channels"], where)
    attention, resamplers = _levels(values, len(widths), where)
    for key in ("in_channels", "out_channels", "layers_per_block", "norm_num_groups"):
        _check_whole(key, values[key], where)
    optional = ("num_class_embeds", "time_embedding_dim", "attention_head_dim")
    for key in (*optional, "attn_norm_num_groups"):
        if values[key] is not None:
            _check_whole(key, values[key], where)
    unit = math.gcd(*widths)
    network = {
        "name": "ddpm",
        "model_channels": unit,
        "first_channels": None if widths[0] == unit else widths[0],
        "channel_mult": [width // unit for width in widths],
        "emb_channels": values["time_embedding_dim"],
        "num_blocks": values["layers_per_block"],
        "attn_resolutions": [
            max(height, width) >> level for level, has in enumerate(attention) if has
        ],
        "dropout": values["dropout"],
        "num_heads": 1 if values["attention_head_dim"] is None else None,
        "head_dim": values["attention_head_dim"],
        "norm_eps": values["norm_eps"],
        "modulation": "add" if values["resnet_time_scale_shift"] == "default" else "scale_shift",
        "down_padding": "both" if values["downsample_padding"] else "end",
        "num_groups": values["norm_num_groups"],
        "middle_attention": _middle(values, where),
        "middle_heads": "same",
        "freq_endpoint": values["freq_shift"] == 1,
        "cosine_first": bool(values["flip_sin_to_cos"]),
        **resamplers,
    }
    in_channels, out_channels = values["in_channels"], values["out_channels"]
    if out_channels not in (in_channels, 2 * in_channels):
        raise UserError(
            f"{where}: out_channels is {out_channels} for {in_channels} in_channels: it must be"
            " as many, or twice as many"
        )
    return UNetReading(
        network=network,
        img_resolution=(height, width),
        img_channels=in_channels,
        out_channels=out_channels,
        num_classes=values["num_class_embeds"] or 0,
        num_levels=len(widths),
    )


def _shown(value: Any) -> str:
    return repr(value)[:60]


def _check_whole(key: str, value: Any, where: str) -> None:
    if not is_integer(value, 1, 2**20):
        raise UserError(f"{where}: {key} is {_shown(value)}: it must be a positive integer")


def _sides(size: Any, where: str) -> tuple[int, int]:
    if size is None:
        raise UserError(f"{where} has no sample_size: write the images' size into it")
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2:
        raise UserError(f"{where}: sample_size is {_shown(size)}: it must be one side, or two")
    for side in sides:
        _check_whole("sample_size", side, where)
    return sides[0], sides[1]


def _widths(widths: Any, where: str) -> list[int]:
    if not isinstance(widths, list) or not 1 <= len(widths) <= _MAX_LEVELS:
        raise UserError(
            f"{where}: block_out_channels is {_shown(widths)}: it must be a list of 1 to"
            f" {_MAX_LEVELS} widths"
        )
    for width in widths:
        _check_whole("block_out_channels", width, where)
    return widths


def _levels(
    values: Mapping[str, Any], num: int, where: str
) -> tuple[list[bool], dict[str, str | None]]:
    """Which levels have attention, finest first; and our options of resampling."""
    attention: dict[str, list[bool]] = {}
    leaving: dict[bool, set[str]] = {False: set(), True: set()}  # by attention
    for side in ("down", "up"):
        key = f"{side}_block_types"
        types = values[key]
        if not isinstance(types, list) or len(types) != num:
            raise UserError(
                f"{where}: {key} is {_shown(types)}: it must have one type for each of the {num}"
                " block_out_channels"
            )
        for kind in types:
            if not isinstance(kind, str) or kind not in BLOCKS or side not in kind.lower():
                raise UserError(
                    f"{where}: {key} has the block {_shown(kind)}, which our networks do not have"
                )
        attention[side] = [BLOCKS[kind][0] for kind in types]
        for kind in types[:-1]:  # the last level is not left
            has, resampler = BLOCKS[kind]
            leaving[has].add(resampler or RESAMPLERS[values[f"{side}sample_type"]])
    if attention["down"] != attention["up"][::-1]:
        raise UserError(
            f"{where}: up_block_types do not have attention where down_block_types have: our"
            " networks have it on both ways of a level, or on none"
        )
    if max(map(len, leaving.values())) > 1:
        raise UserError(
            f"{where}: the levels are left by both convolutions and residual blocks, not by"
            " whether they have attention: our networks cannot mix them so"
        )
    plain, attended = (next(iter(leaving[has]), None) for has in (False, True))
    resampler = plain or attended or "conv"
    return attention["down"], {
        "resampler": resampler,
        "attn_resampler": attended if attended != resampler else None,
    }


def _middle(values: Mapping[str, Any], where: str) -> str:
    """Our option middle_attention."""
    groups = values["attn_norm_num_groups"]
    if not values["add_attention"]:
        return "none"
    if groups is None:  # then the library norms there only if blocks are not scaled and shifted
        return "normed" if values["resnet_time_scale_shift"] == "default" else "plain"
    if groups != values["norm_num_groups"]:
        raise UserError(
            f"{where}: attn_norm_num_groups is {groups}, norm_num_groups"
            f" {values['norm_num_groups']}: our networks have one number for all norms"
        )
    return "normed"
