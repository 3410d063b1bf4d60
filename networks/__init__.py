"""The raw networks F(x, c_noise, ...) by name: a table of rows and `create`.

The table holds plain data and needs no torch; a network's module is imported when one is created.
What a network predicts, and how it is scaled, is the business of `diffusion`.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from torch_utils.errors import UserError
from torch_utils.numbers import is_integer, is_number
from torch_utils.registry import POSITIVE, Row, Rule, lookup

if TYPE_CHECKING:
    from torch import nn

LARGEST = 2**20  # of any whole number: more than a network can have, and not without end
MAX_BLOCKS = 1000  # a level
MAX_LEVELS = 16


def _are_integers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(is_integer(item, 1, LARGEST) for item in value)


def _are_taps(value: Any) -> bool:
    """Without an even number of them, doubling and halving are not by exact factors of two."""
    is_list = isinstance(value, list | tuple) and all(map(is_number, value))
    return is_list and len(value) % 2 == 0 and 0 < sum(value) < math.inf


_RANGES = {"model_channels": (1, LARGEST), "num_blocks": (1, MAX_BLOCKS), "dropout": (0.0, 1.0)}
_LISTS = {
    "channel_mult": Rule(
        f"a list of 1 to {MAX_LEVELS} positive integers, one a level",
        lambda value: _are_integers(value) and 1 <= len(value) <= MAX_LEVELS,
    ),
    "attn_resolutions": Rule("a list of positive integers", _are_integers),
}
_OPTIONAL = Rule(
    "a positive integer or null", lambda value: value is None or is_integer(value, 1, LARGEST)
)
_WIDTHS = {**_LISTS, "emb_channels": _OPTIONAL, "num_heads": _OPTIONAL, "head_dim": _OPTIONAL}
_RESAMPLERS = ("conv", "pool", "block")
_SONG_CHOICES = {
    "embedding_type": ("positional", "fourier"),
    "encoder_type": ("standard", "skip", "residual"),
    "decoder_type": ("standard", "skip"),
}
_ADM_RANGES = {**_RANGES, "channel_mult_emb": (1, LARGEST)}
_SONG_RANGES = {**_ADM_RANGES, "channel_mult_noise": (1, LARGEST)}
_SONG_RULES = {
    **_LISTS,
    "resample_filter": Rule("a list of an even number of numbers whose sum is positive", _are_taps),
}

NETWORKS: dict[str, Row] = {
    "ddpmpp": Row(
        target="networks.song:SongUNet",
        options={
            "model_channels": 128,
            "channel_mult": [2, 2, 2],
            "channel_mult_emb": 4,
            "num_blocks": 4,
            "attn_resolutions": [16],
            "dropout": 0.13,
            "embedding_type": "positional",
            "channel_mult_noise": 1,
            "encoder_type": "standard",
            "decoder_type": "standard",
            "resample_filter": [1, 1],
        },
        choices=_SONG_CHOICES,
        ranges=_SONG_RANGES,
        rules=_SONG_RULES,
        summary="DDPM++ of Song et al. 2021, as configured by Karras et al. 2022",
    ),
    "ncsnpp": Row(
        target="networks.song:SongUNet",
        options={
            "model_channels": 128,
            "channel_mult": [2, 2, 2],
            "channel_mult_emb": 4,
            "num_blocks": 4,
            "attn_resolutions": [16],
            "dropout": 0.13,
            "embedding_type": "fourier",
            "channel_mult_noise": 2,
            "encoder_type": "residual",
            "decoder_type": "standard",
            "resample_filter": [1, 3, 3, 1],
        },
        choices=_SONG_CHOICES,
        ranges=_SONG_RANGES,
        rules=_SONG_RULES,
        summary="NCSN++ of Song et al. 2021, as configured by Karras et al. 2022",
    ),
    "adm": Row(
        target="networks.adm:DhariwalUNet",
        options={
            "model_channels": 192,
            "channel_mult": [1, 2, 3, 4],
            "channel_mult_emb": 4,
            "num_blocks": 3,
            "attn_resolutions": [32, 16, 8],
            "dropout": 0.10,
        },
        ranges=_ADM_RANGES,
        rules=_LISTS,
        summary="ADM of Dhariwal & Nichol 2021, as configured by Karras et al. 2022",
    ),
    "ddpm": Row(
        target="networks.ddpm:DDPMUNet",
        options={
            "model_channels": 128,
            "channel_mult": [1, 2, 2, 2],
            "emb_channels": None,
            "num_blocks": 2,
            "attn_resolutions": [16],
            "dropout": 0.1,
            "num_heads": 1,
            "head_dim": None,
            "norm_eps": 1e-6,
            "modulation": "add",
            "resampler": "conv",
            "down_padding": "end",
            "num_groups": 32,
            "first_channels": None,
            "attn_resampler": None,
            "middle_attention": "normed",
            "middle_heads": "one",
            "freq_endpoint": True,
            "cosine_first": False,
        },
        choices={
            "modulation": ("add", "scale_shift"),
            "resampler": _RESAMPLERS,
            "down_padding": ("end", "both"),
            "middle_attention": ("normed", "plain", "none"),
            "middle_heads": ("one", "same"),
        },
        ranges={**_RANGES, "num_groups": (1, LARGEST)},
        rules={
            **_WIDTHS,
            "first_channels": _OPTIONAL,
            "norm_eps": POSITIVE,
            "attn_resampler": Rule(
                f"{', '.join(_RESAMPLERS)} or null",
                lambda value: value is None or value in _RESAMPLERS,
            ),
        },
        summary="DDPM of Ho et al. 2020, as its PyTorch checkpoints have it",
    ),
    "vdiff": Row(
        target="networks.vdiff:VDiffusionUNet",
        options={
            "model_channels": 256,
            "channel_mult": [1, 1, 1],
            "emb_channels": None,
            "num_blocks": 3,
            "attn_resolutions": [16, 8],
            "dropout": 0.2,
            "num_heads": 1,
            "head_dim": None,
            "multi_tags": False,
        },
        ranges=_RANGES,
        rules=_WIDTHS,
        summary="v-diffusion of Salimans & Ho 2022, as its PyTorch port configures it",
    ),
}


def options(name: str) -> dict[str, Any]:
    """The options of a network with their default values.

    Args:
        name: a name in `NETWORKS`.

    Returns:
        A new dictionary, free to be changed.

    Raises:
        UserError: no network has this name.
    """
    return deepcopy(dict(lookup("network", NETWORKS, name).options))


def create(
    name: str,
    *,
    img_resolution: int | Sequence[int],
    img_channels: int,
    label_dim: int = 0,
    augment_dim: int = 0,
    out_channels: int | None = None,
    **options: Any,
) -> "nn.Module":
    """Build a network; its first weights are drawn from torch's global generator.

    Args:
        name: a name in `NETWORKS`.
        img_resolution: height and width of the images, one number if they are equal.
        img_channels: channels of the images.
        label_dim: width of the class labels, 0 for a network without classes.
        augment_dim: width of the augmentation labels, 0 for a network without them.
        out_channels: channels of the output, `img_channels` if None.
        **options: options of this network that differ from `options(name)`.

    Returns:
        A module with `forward(x, c_noise, class_labels=None, label_mask=None,
        augment_labels=None)`; x is [N, img_channels, H, W], the result [N, out_channels, H, W].

    Raises:
        UserError: an unknown name, or a value that the network cannot have.
    """
    row = lookup("network", NETWORKS, name)
    resolved = row.resolve(f"network {name}", options)
    if out_channels is None:
        out_channels = img_channels
    height_width = check_sizes(
        img_resolution=img_resolution,
        img_channels=img_channels,
        label_dim=label_dim,
        augment_dim=augment_dim,
        out_channels=out_channels,
    )
    network: nn.Module = row.load()(
        img_resolution=height_width,
        img_channels=img_channels,
        label_dim=label_dim,
        augment_dim=augment_dim,
        out_channels=out_channels,
        **resolved,
    )
    return network


SIZES = {"img_channels": 1, "label_dim": 0, "augment_dim": 0, "out_channels": 1}  # least values


def check_sizes(*, img_resolution: int | Sequence[int], **sizes: int) -> tuple[int, int]:
    """Check what every network is told about its images and labels.

    Args:
        img_resolution: one side of square images, or (height, width).
        **sizes: values of the names in `SIZES`.

    Returns:
        Height and width of the images.

    Raises:
        UserError: a size is not a number of the right kind.
    """
    for name, value in sizes.items():
        if not is_integer(value, SIZES[name], LARGEST):
            raise UserError(
                f"{name} is {value!r}: it must be an integer of at least {SIZES[name]} and at most"
                f" {LARGEST}"
            )
    sides: Any = (img_resolution,) * 2 if is_integer(img_resolution) else img_resolution
    if not (_are_integers(sides) and len(sides) == 2):
        raise UserError(
            f"img_resolution is {img_resolution!r}: it must be one positive integer, or two"
        )
    return sides[0], sides[1]
