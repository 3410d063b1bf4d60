"""Small networks for the tests of this folder."""

from typing import Any

import torch
from torch import Tensor, nn

import networks
from tests.parity.weights import fill_by_rule
from torch_utils.errors import UserError

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SMALL: dict[str, Any] = {
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.0,
}
# what a row's network cannot be smaller than, or is worth a test of all promises
SPECIAL: dict[str, dict[str, Any]] = {
    "adm": {"model_channels": 32, "channel_mult": [1, 4]},
    "ddpm": {"model_channels": 32},
    "vdiff": {"model_channels": 32, "num_heads": 2, "head_dim": 8},
}


def small_variant(name: str) -> dict[str, Any]:
    """Name and options of a small network of a row; options that SMALL knows are made small."""
    return {"name": name, **SPECIAL.get(name, {})}


def small_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options given, and the small ones that the network has."""
    known = networks.options(name)
    return {key: value for key, value in SMALL.items() if key in known} | options


def has_augmentation(name: str) -> bool:
    """Whether a network takes augmentation labels; one that does not refuses to be built."""
    try:
        with torch.device("meta"):
            options = small_variant(name)
            networks.create(
                options.pop("name"),
                img_resolution=8,
                img_channels=2,
                augment_dim=3,
                **small_options(name, options),
            )
    except UserError:
        return False
    return True


def small_net(name: str = "ddpmpp", resolution: Any = 8, **options: Any) -> nn.Module:
    """A small network in evaluation mode whose every layer matters."""
    sizes = {"img_channels": 2} | {
        key: options.pop(key)
        for key in ("img_channels", "label_dim", "augment_dim", "out_channels")
        if key in options
    }
    net = networks.create(name, img_resolution=resolution, **sizes, **small_options(name, options))
    fill_by_rule(net)
    return net.eval()


def images(num: int, channels: int = 2, height: int = 8, width: int = 8) -> Tensor:
    """Random images, the same in every call."""
    return torch.randn(num, channels, height, width, generator=torch.Generator().manual_seed(1))


def conditions(num: int) -> Tensor:
    """Noise conditions, the same in every call."""
    return torch.linspace(-1.0, 0.8, num)
