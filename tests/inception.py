"""Random weights for Inception-v3, in a file of the published layout, so that tests run offline."""

import os
from pathlib import Path

import torch
from torch import Tensor

from metrics.inception import Inception


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Weights with which activations neither vanish nor explode, by their published names."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in Inception().published_shapes().items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("conv.weight"):
            values *= (2 / values[0].numel()) ** 0.5
        elif name == "fc.weight":
            values *= 10 / shape[1] ** 0.5  # so that images differ in their classes
        elif name.endswith(("bn.weight", "running_var")):
            values = 0.5 + torch.rand(shape, generator=generator)
        else:
            values *= 0.1
        state[name] = values
    return state


def save_weights(path: str | os.PathLike[str], seed: int = 0) -> Path:
    """Write random weights in the older of PyTorch's two formats, 96 MB."""
    torch.save(random_weights(seed), path, _use_new_zipfile_serialization=False)
    return Path(path)
