"""What FID costs the way that it is published: EDM's pass over images, and the plain network.

Written from a description of EDM's fid.py (Karras et al. 2022): PyTorch's loader with 3 processes,
batches of 64, Inception-v3 in float32 with channels first and batch normalisations of its own, sums
in float64, and the square root of a matrix. Not EDM's network itself, which is a pickled program.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks.published_data import Images
from metrics.inception import EPS, resize
from metrics.inception_layers import BLOCKS, STEM, Branch, Pool, Unit
from metrics.statistics import Gaussian

BATCH = 64
WORKERS = 3
Network = Callable[[Tensor], Tensor]  # uint8 [N, 3, H, W] -> features [N, 2048]


def _unit(unit: Unit, prefix: str, state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    name = prefix + unit.name
    height, width = unit.kernel
    padding = (0, 0) if unit.is_valid else (height // 2, width // 2)
    x = functional.conv2d(x, state[f"{name}.conv.weight"], None, unit.stride, padding)
    parts = (state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var"))
    scale, offset = state[f"{name}.bn.weight"], state[f"{name}.bn.bias"]
    return functional.relu(functional.batch_norm(x, *parts, scale, offset, eps=EPS))


def _pool(pool: Pool, x: Tensor) -> Tensor:
    padding = 1 if pool.stride == 1 else 0
    if pool.kind == "max":
        return functional.max_pool2d(x, 3, pool.stride, padding)
    return functional.avg_pool2d(x, 3, pool.stride, padding, count_include_pad=False)


def _branch(branch: Branch, prefix: str, state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    for step in branch:
        if isinstance(step, Pool):
            x = _pool(step, x)
        elif isinstance(step, Unit):
            x = _unit(step, prefix, state, x)
        else:
            x = torch.cat([_unit(unit, prefix, state, x) for unit in step], 1)
    return x


def plain_network(state: Mapping[str, Tensor]) -> Network:
    """Inception-v3 layer by layer.

    Args:
        state: tensors by their published names, on the device.
    """

    def network(images: Tensor) -> Tensor:
        x = (resize(images.float()) - 128) / 128
        x = _branch(STEM, "", state, x)
        for name, branches in BLOCKS.items():
            x = torch.cat([_branch(branch, f"{name}.", state, x) for branch in branches], 1)
        return x.mean((2, 3))

    return network


def loader(path: Path) -> "DataLoader[np.ndarray]":
    """Batches of the images of a zip."""
    dataset: torch.utils.data.Dataset[np.ndarray] = Images(path)  # type: ignore[assignment]
    return DataLoader(dataset, batch_size=BATCH, num_workers=WORKERS, prefetch_factor=2)


class Sums:
    """Running sums of features.

    Args:
        size: features of an image.
        device: of the sums.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.first = torch.zeros([size], dtype=torch.float64, device=device)
        self.second = torch.zeros([size, size], dtype=torch.float64, device=device)
        self.num = 0

    def add(self, features: Tensor) -> None:
        """Add the features of a batch."""
        values = features.to(torch.float64)
        self.first += values.sum(0)
        self.second += values.T @ values
        self.num += len(values)

    def gaussian(self) -> Gaussian:
        """Mean and covariance."""
        mean = self.first / self.num
        sigma = (self.second - mean.ger(mean) * self.num) / (self.num - 1)
        return Gaussian(mean.cpu().numpy(), sigma.cpu().numpy(), self.num)


def score(path: Path, network: Network, size: int, device: torch.device) -> Gaussian:
    """EDM's pass over the images of a zip."""
    sums = Sums(size, device)
    with torch.no_grad():
        for images in loader(path):
            sums.add(network(images.to(device)))
    return sums.gaussian()


def distance(first: Gaussian, second: Gaussian) -> float:
    """The Frechet distance by a square root."""
    root = scipy.linalg.sqrtm(first.sigma @ second.sigma)
    offset = first.mu - second.mu
    return float(offset @ offset + np.trace(first.sigma + second.sigma - 2 * np.real(root)))
