"""From a model config to a denoiser."""

import networks
from diffusion import preconditioning
from diffusion.denoiser import Denoiser
from models.config import ModelConfig
from torch_utils.registry import split_name


def build(config: ModelConfig) -> Denoiser:
    """Make the denoiser that a config describes, with freshly drawn weights, on the CPU.

    Raises:
        UserError: unknown names or options, or sizes that the network cannot have.
    """
    chosen = preconditioning.create(**config.preconditioning.model_dump())
    name, options = split_name("network", config.network)
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
