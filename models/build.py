"""From a model config to a denoiser."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import torch

import networks
from diffusion import preconditioning
from diffusion.denoiser import Denoiser
from models.config import ModelConfig
from torch_utils.errors import UserError
from torch_utils.registry import resolve_entry


def build(config: ModelConfig, *, empty: bool = False) -> Denoiser:
    """Make the denoiser that a config describes, with freshly drawn weights, on the CPU.

    Args:
        config: of the model.
        empty: take no memory for weights: they have names, shapes and types, but no values.

    Raises:
        UserError: unknown names or options, sizes that the network cannot have, or more weights
            than this machine has memory for.
    """
    chosen = preconditioning.create(**config.preconditioning.model_dump())
    name, _, options = resolve_entry("network", networks.NETWORKS, config.network)
    if not empty:
        _check_memory(options)
    with torch.device("meta") if empty else contextlib.nullcontext():
        network = networks.create(
            name,
            img_resolution=config.img_resolution,
            img_channels=config.img_channels,
            label_dim=config.label_dim,
            augment_dim=config.augment_dim,
            out_channels=config.img_channels * chosen.output_multiple,
            **options,
        )
    return Denoiser(
        network,
        chosen,
        img_resolution=config.img_resolution,
        img_channels=config.img_channels,
        label_dim=config.label_dim,
    )


_WIDTHS = ("model_channels", "channel_mult", "num_blocks")


def _check_memory(options: Mapping[str, Any]) -> None:
    """Refuse a network whose widest convolutions alone are larger than the machine's memory."""
    if not (hasattr(os, "sysconf") and options.keys() >= {*_WIDTHS}):
        return
    unit, mult, blocks = (options[key] for key in _WIDTHS)
    needed = 36 * (unit * max(mult)) ** 2 * blocks
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(
            f"a network of model_channels {unit}, channel_mult {mult} and num_blocks {blocks} needs"
            f" more than {needed / 2**30:.0f} GiB, this machine has {there / 2**30:.0f}: lower them"
        )
