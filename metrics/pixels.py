"""The detector that needs no weights: pixel values in [0, 1], flattened.

It sees only first and second moments of the pixels; published numbers are never made with it.
"""

import torch

from metrics.detectors import Features, Loaded


def load(device: torch.device) -> Loaded:
    """The extractor; it has no weights to put on `device`."""
    return Loaded(extract)


def extract(images: torch.Tensor) -> Features:
    """Flatten uint8 images [N, C, H, W] to float64 features [N, C*H*W] in [0, 1]."""
    return Features(images.flatten(1).to(torch.float64) / 255)
