"""The published spellings of network options, family by family, in ours.

The left column is what a family's own config calls its images and the arguments of its network.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch_utils.errors import unknown_name

KEYS: dict[str, dict[str, str]] = {
    "sa-dpm": {
        "image_size": "img_resolution",
        "in_channels": "img_channels",
        "out_ch": "out_channels",
        "ch": "model_channels",
        "ch_mult": "channel_mult",
        "num_res_blocks": "num_blocks",
        "attn_resolutions": "attn_resolutions",
        "dropout": "dropout",
    },
    "v-diffusion": {
        "resolution": "img_resolution",
        "in_channels": "img_channels",
        "out_channels": "out_channels",
        "num_classes": "label_dim",
        "multitags": "multi_tags",
        "hid_channels": "model_channels",
        "ch_multipliers": "channel_mult",
        "embedding_dim": "emb_channels",
        "num_res_blocks": "num_blocks",
        "drop_rate": "dropout",
        "num_heads": "num_heads",
        "head_dim": "head_dim",
    },
    "ddpm-xyf": {
        "resolution": "img_resolution",
        "img_size": "img_resolution",
        "img_channels": "img_channels",
        "in_channels": "img_channels",
        "out_channels": "out_channels",
        "num_classes": "label_dim",
        "dim": "model_channels",
        "dim_mults": "channel_mult",
        "num_res_blocks": "num_blocks",
        "n_heads": "num_heads",
        "attn_head_dims": "head_dim",
        "dropout": "dropout",
    },
}


def _at_levels(flags: list[bool], config: Mapping[str, Any]) -> dict[str, Any]:
    """One flag a level, finest first, as resolutions; nothing if the resolution is not given."""
    if "img_resolution" not in config:
        return {}
    side = config["img_resolution"]
    return {"attn_resolutions": [side >> level for level, flag in enumerate(flags) if flag]}


# what is not the same value under another name: (value, ours so far) -> more of ours
RULES: dict[str, dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Any]]]] = {
    "sa-dpm": {"resamp_with_conv": lambda flag, _: {"resampler": "conv" if flag else "pool"}},
    "v-diffusion": {"apply_attn": _at_levels},
    "ddpm-xyf": {
        "use_attn": _at_levels,
        "resblock_updown": lambda flag, _: {"resampler": "block" if flag else "conv"},
    },
}


def translate(family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A family's own description of its network, as the config of `import_network`.

    Args:
        family: a name in `importers.families.FAMILIES`.
        config: published key -> value; null is not given, and keys that say nothing of the network
            are passed over.

    Returns:
        Our key -> value.

    Raises:
        UserError: no family has this name.
    """
    if family not in KEYS:
        raise unknown_name("family", family, KEYS)
    keys = KEYS[family]
    given = {key: value for key, value in config.items() if value is not None}
    ours = {keys[key]: value for key, value in given.items() if key in keys}
    for key, rule in RULES[family].items():
        if key in given:
            ours |= rule(given[key], ours)
    return ours
