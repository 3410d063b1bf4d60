"""The detector that needs nothing: pixel values in [0, 1], flattened.

It sees first and second moments of the pixels only; no published number is made with it.
"""

from collections.abc import Callable

import torch

from metrics.detectors import Features


def load(device: torch.device) -> Callable[[torch.Tensor], Features]:
    """The extractor; it has no weights, so `device` changes nothing but where it computes."""
    return extract


def extract(images: torch.Tensor) -> Features:
    """Flatten uint8 images [N, C, H, W] to float64 features [N, C*H*W] in [0, 1]."""
    return Features(images.flatten(1).to(torch.float64) / 255)
