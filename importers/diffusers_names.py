"""The names of tensors in UNet2DModel of the library diffusers, and ours for them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from importers.naming import (
    Naming,
    Part,
    Shapes,
    Source,
    Unit,
    identity,
    interleave,
    transpose,
)
from networks.unet import UNet
from torch_utils.errors import UserError

# early releases of the library -> later ones, in the names of attention layers
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def as_convolution(tensor: Tensor) -> Tensor:
    """The weight of a linear layer as that of a 1x1 convolution; a bias stays as it is."""
    return tensor[..., None, None] if tensor.ndim == 2 else tensor


def interleaved(tensor: Tensor) -> Tensor:
    """All queries, all keys, all values of linear layers to our convolution."""
    return as_convolution(interleave(tensor))


def _without_pixels(tensor: Tensor) -> Tensor:
    return tensor[..., 0, 0] if tensor.ndim == 4 else tensor


def _separated(tensor: Tensor) -> Tensor:
    """The inverse of `interleaved`."""
    return _without_pixels(torch.cat([tensor[first::3] for first in range(3)]))


# conversion -> its inverse
INVERSES: Mapping[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] = {
    identity: identity,
    transpose: transpose,
    as_convolution: _without_pixels,
    interleaved: _separated,
}


def _naming(num_levels: int) -> Naming:
    def locate(unit: Unit) -> tuple[str, str]:
        if unit.side == "mid":
            return f"mid_block.resnets.{unit.index}", "mid_block.attentions.0"
        number = unit.level if unit.side == "down" else num_levels - 1 - unit.level
        level = f"{unit.side}_blocks.{number}"
        if not unit.is_resampler:
            return f"{level}.resnets.{unit.index}", f"{level}.attentions.{unit.index}"
        conv = ".conv" if unit.entry.kind == "conv_resample" else ""
        return f"{level}.{unit.side}samplers.0{conv}", ""

    residual = {"norm0": "norm1", "conv0": "conv1", "affine": "time_emb_proj"}
    residual |= {"norm1": "norm2", "conv1": "conv2", "skip": "conv_shortcut"}
    return Naming(
        first="conv_in",
        layers={
            "map_layer0": Part(("time_embedding.linear_1",)),
            "map_layer1": Part(("time_embedding.linear_2",)),
            "map_label": Part(("class_embedding",), transpose),
            "out_norm": Part(("conv_norm_out",)),
            "out_conv": Part(("conv_out",)),
        },
        locate=locate,
        residual={ours: Part((name,)) for ours, name in residual.items()},
        attention={
            "norm2": Part(("group_norm",)),
            "qkv": Part(("to_q", "to_k", "to_v"), interleaved),
            "proj": Part(("to_out.0",), as_convolution),
        },
    )


def sources_of(network: UNet, num_levels: int, num_blocks: int) -> dict[str, Source]:
    """Where each tensor of a network of ours comes from."""
    parts = _naming(num_levels).parts(network.encoder, network.decoder, num_blocks)
    sources = {}
    for name in network.state_dict():
        layer, kind = name.rsplit(".", 1)
        part = parts[layer]
        sources[name] = Source(tuple(f"{there}.{kind}" for there in part.names), part.convert)
    return sources


def with_new_names(shapes: Shapes) -> dict[str, str]:
    """Each name in a file -> the name that later releases of the library have for it.

    Raises:
        UserError: two tensors would have the same name.
    """
    renamed = {name: _new_name(name) for name in shapes}
    if len(set(renamed.values())) < len(renamed):
        raise UserError("it has tensors under both the old and the new names of attention")
    return renamed


def _new_name(name: str) -> str:
    prefix, dot, rest = name.partition(".attentions.")
    index, _, layer = rest.partition(".")
    old, _, kind = layer.rpartition(".")
    if not dot or old not in OLD_ATTENTION:
        return name
    return f"{prefix}.attentions.{index}.{OLD_ATTENTION[old]}.{kind}"
