"""The raw networks F(x, c_noise, ...) by name: a table of rows and `create`.

The table holds plain data and needs no torch; a network's module is imported when one is created.
What a network predicts, and how it is scaled, is the business of `diffusion`.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from networks.rules import check_option, check_sizes
from torch_utils.registry import Row, lookup, merge_options

if TYPE_CHECKING:
    from torch import nn


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
    merged = merge_options(f"network {name}", row.options, options)
    for key, value in merged.items():
        check_option(key, value)
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
        **merged,
    )
    return network
