"""Run a detector over images: uint8 batches -> statistics, probabilities, features.

One pass serves every metric; nothing here knows where the images come from.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from metrics.detectors import Detector
from metrics.statistics import FeatureStatistics
from torch_utils.devices import download, finish
from torch_utils.distributed import World


@dataclass(frozen=True)
class Evaluation:
    """What a detector saw, in the order of the images.

    Attributes:
        statistics: sums of the features, on the detector's device.
        probabilities: float64 [N, K] on the host; None if the detector has no classes.
        features: [N, F] on the host; None unless asked for.
    """

    statistics: FeatureStatistics
    probabilities: np.ndarray | None
    features: np.ndarray | None


def num_features(detector: Detector, image_shape: tuple[int, int, int]) -> int:
    """Features per image of shape (C, H, W).

    Raises:
        UserError: the detector does not take such images.
    """
    with torch.no_grad():
        return detector(torch.zeros([1, *image_shape], dtype=torch.uint8)).features.shape[1]


def evaluate(
    detector: Detector,
    batches: Iterable[np.ndarray | torch.Tensor],
    image_shape: tuple[int, int, int],
    *,
    keep_features: bool = False,
) -> Evaluation:
    """Run a detector over all batches.

    Args:
        detector: from `metrics.detectors.load`.
        batches: uint8 [n, C, H, W], n may differ from batch to batch.
        image_shape: (C, H, W).
        keep_features: also return the features of every image.

    Returns:
        Statistics, probabilities if the detector gives any, features if asked for.

    Raises:
        UserError: the detector does not take such images, or has too many features.
    """
    statistics = FeatureStatistics(num_features(detector, image_shape), detector.device)
    probabilities: list[torch.Tensor] = []
    features: list[torch.Tensor] = []
    with torch.no_grad():
        for batch in batches:
            if isinstance(batch, np.ndarray):
                batch = torch.from_numpy(batch.copy())  # mapped arrays are read-only
            found = detector(batch)
            statistics.update(found.features)
            if found.probabilities is not None:
                probabilities.append(download(found.probabilities))
            if keep_features:
                features.append(download(found.features))
    finish(detector.device)
    return Evaluation(
        statistics,
        torch.cat(probabilities).double().numpy() if probabilities else None,
        torch.cat(features).numpy() if features else None,
    )


def combine(part: Evaluation, first: int, num: int, world: World) -> Evaluation:
    """Put together what the processes found, each on its own range of images.

    Args:
        part: this process's share; its features are not combined.
        first: index of its first image.
        num: images of all processes.
        world: the processes; every one must call.

    Returns:
        Sums over all images, and all probabilities in the order of the images.
    """
    if not world.is_group:
        return part
    world.meet()  # shares may take longer on one machine than on another
    for tensor in (part.statistics.count, part.statistics.total, part.statistics.outer):
        world.sum(tensor)
    # an empty share has no probabilities: its width comes from the others
    found = part.probabilities
    width = torch.tensor(0 if found is None else found.shape[1])
    widest = int(world.max(width))
    if widest == 0:
        return Evaluation(part.statistics, None, None)
    whole = torch.zeros([num, widest], dtype=torch.float64)
    if found is not None:
        whole[first : first + len(found)] = torch.from_numpy(found)
    return Evaluation(part.statistics, world.sum(whole).numpy(), None)
