"""The detector that ships with the repository: a small classifier of 8x8 grayscale digits.

Trained by `python -m assets.train_digits_detector`. It makes every metric run offline; its
numbers compare models of this one data set and are neither FID nor Inception scores.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from metrics.detectors import Features, Loaded
from torch_utils.errors import UserError

WEIGHTS = Path(__file__).resolve().with_name("digits-detector.safetensors")
WEIGHTS_SHA256 = "698ccf70bd804247942039492b16b82a73fbb08a738bc136490b8b05e0631537"
METADATA_KEY = "driftless"  # one key, because safetensors files do not fix the order of several
IMAGE_SHAPE = (1, 8, 8)
NUM_CLASSES = 10
NUM_FEATURES = 64


class DigitsNet(torch.nn.Module):
    """Three 3x3 convolutions at 8x8, 4x4 and 2x2, a layer of 64 features, ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 24, 3, padding=1)
        self.conv2 = torch.nn.Conv2d(24, 32, 3, padding=1)
        self.conv3 = torch.nn.Conv2d(32, 48, 3, padding=1)
        self.hidden = torch.nn.Linear(48 * 2 * 2, NUM_FEATURES)
        self.classes = torch.nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [N, 1, 8, 8] in [-1, 1] -> features [N, 64] and logits [N, 10]."""
        act, pool = torch.nn.functional.silu, torch.nn.functional.avg_pool2d
        x = act(self.conv1(images))
        x = pool(act(self.conv2(x)), 2)
        x = pool(act(self.conv3(x)), 2)
        features = act(self.hidden(x.flatten(1)))
        return features, self.classes(features)


def to_network_range(images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Map uint8 images to [-1, 1]."""
    return images.to(dtype) / 127.5 - 1


def metadata(path: str | os.PathLike[str] = WEIGHTS) -> dict[str, Any]:
    """Facts about the training, recorded in the file of weights, e.g. `held_out_accuracy`."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        record: dict[str, Any] = json.loads(file.metadata()[METADATA_KEY])
    return record


def load(device: torch.device) -> Loaded:
    """Load the shipped classifier.

    It computes in float64: the network is tiny, and a number then depends on batch size and device
    only in its last digits.

    Args:
        device: where it will compute.

    Returns:
        An extractor that gives features [N, 64] (the layer before the classes) and logits [N, 10]
        of uint8 [N, 1, 8, 8], float64.

    Raises:
        UserError: the file of weights is missing, or is not the one of this version.
    """
    import safetensors.torch

    try:
        content = WEIGHTS.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{WEIGHTS} is missing: restore it from the repository") from None
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        raise UserError(f"{WEIGHTS} is not the file of this version: restore it from git")
    net = DigitsNet()
    net.load_state_dict(safetensors.torch.load(content))
    net.to(device=device, dtype=torch.float64).eval().requires_grad_(False)

    def extract(images: torch.Tensor) -> Features:
        if tuple(images.shape[1:]) != IMAGE_SHAPE:
            channels, height, width = images.shape[1:]
            raise UserError(
                "detector 'digits' takes 1x8x8 images (channels x height x width), these are "
                f"{channels}x{height}x{width}: use another detector"
            )
        return Features(*net(to_network_range(images, torch.float64)))

    return Loaded(extract, WEIGHTS_SHA256)
