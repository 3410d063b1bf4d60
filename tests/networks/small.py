"""Small networks for the tests of this folder."""

from typing import Any

import torch
from torch import Tensor, nn

import networks
from tests.parity.weights import fill_by_rule

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SMALL: dict[str, Any] = {
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.0,
}


def small_net(name: str = "ddpmpp", resolution: Any = 8, **options: Any) -> nn.Module:
    """A small network in evaluation mode whose every layer matters."""
    sizes = {"img_channels": 2} | {
        key: options.pop(key)
        for key in ("img_channels", "label_dim", "augment_dim", "out_channels")
        if key in options
    }
    net = networks.create(name, img_resolution=resolution, **sizes, **(SMALL | options))
    fill_by_rule(net)
    return net.eval()


def images(num: int, channels: int = 2, height: int = 8, width: int = 8) -> Tensor:
    """Random images, the same in every call."""
    return torch.randn(num, channels, height, width, generator=torch.Generator().manual_seed(1))


def conditions(num: int) -> Tensor:
    """Noise conditions, the same in every call."""
    return torch.linspace(-1.0, 0.8, num)
