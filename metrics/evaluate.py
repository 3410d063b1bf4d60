"""Run a detector over images: uint8 batches -> statistics, logits, features.

One pass serves every metric; nothing here knows where the images come from.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metrics.detectors import Detector
from metrics.statistics import FeatureStatistics, worthwhile_rows
from torch_utils.devices import download, finish
from torch_utils.distributed import World


@dataclass(frozen=True)
class Evaluation:
    """What a detector saw, in the order of the images.

    Attributes:
        statistics: sums of the features, on the detector's device.
        logits: [N, K] on the host, in the detector's precision; None if it has no classes, or if
            there was no image.
        features: [N, F] likewise; None unless asked for, or if there was no image.
    """

    statistics: FeatureStatistics
    logits: np.ndarray | None
    features: np.ndarray | None


def num_features(detector: Detector, image_shape: tuple[int, int, int]) -> int:
    """Features per image of shape (C, H, W).

    Raises:
        UserError: the detector does not take such images.
    """
    image = torch.zeros([1, *image_shape], dtype=torch.uint8, device=detector.device)
    with torch.no_grad():
        return detector.extract(image).features.shape[1]


def evaluate(
    detector: Detector,
    batches: Iterable[np.ndarray | Tensor],
    image_shape: tuple[int, int, int],
    *,
    keep_features: bool = False,
) -> Evaluation:
    """Run a detector over all batches.

    The numbers do not depend on the sizes of the batches: images are regrouped into batches of the
    detector's own size.

    Args:
        detector: from `metrics.detectors.load`.
        batches: uint8 [n, C, H, W], n may differ from batch to batch.
        image_shape: (C, H, W).
        keep_features: also return the features of every image.

    Returns:
        Statistics, logits if the detector gives any, features if asked for.

    Raises:
        UserError: the detector does not take such images, or has too many features.
    """
    size = num_features(detector, image_shape)
    statistics = FeatureStatistics(size, detector.device)
    logits: list[Tensor] = []
    features: list[Tensor] = []
    waiting: list[Tensor] = []
    with torch.no_grad():
        for batch in _regrouped(batches, detector.batch):
            found = detector(batch)
            waiting.append(found.features)
            if len(waiting) * detector.batch >= worthwhile_rows(size):
                statistics.update(torch.cat(waiting))
                waiting.clear()
            if found.logits is not None:
                logits.append(download(found.logits))
            if keep_features:
                features.append(download(found.features))
        if waiting:
            statistics.update(torch.cat(waiting))
    finish(detector.device)
    return Evaluation(
        statistics,
        torch.cat(logits).numpy() if logits else None,
        torch.cat(features).numpy() if features else None,
    )


def _regrouped(batches: Iterable[np.ndarray | Tensor], size: int) -> Iterator[Tensor]:
    """The same images in batches of `size`; the last one may be smaller."""
    waiting: list[Tensor] = []
    num = 0
    for batch in batches:
        if isinstance(batch, np.ndarray):
            batch = torch.from_numpy(batch.copy())  # mapped arrays are read-only
        waiting.append(batch)
        num += len(batch)
        if num >= size:
            whole = torch.cat(waiting)
            num = len(whole) % size
            yield from torch.split(whole[: len(whole) - num], size)
            waiting = [whole[len(whole) - num :]]
    if num:
        yield torch.cat(waiting)


def combine(part: Evaluation, first: int, num: int, world: World) -> Evaluation:
    """Put together what the processes found, each on its own range of images.

    Args:
        part: this process's share.
        first: index of its first image.
        num: images of all processes.
        world: the processes; every one must call.

    Returns:
        Sums over all images; all logits and features in the order of the images.
    """
    if not world.is_group:
        return part
    world.meet()  # shares may take longer on one machine than on another
    for tensor in (part.statistics.count, part.statistics.total, part.statistics.outer):
        world.sum(tensor)
    logits = _gathered(part.logits, first, num, world)
    return Evaluation(part.statistics, logits, _gathered(part.features, first, num, world))


def _gathered(rows: np.ndarray | None, first: int, num: int, world: World) -> np.ndarray | None:
    """The rows of all processes, [num, ...]; None if no process has any."""
    # an empty share has no rows: width and precision come from the others
    shape = [0, 0] if rows is None else [rows.shape[1], rows.itemsize]
    width, itemsize = world.max(torch.tensor(shape)).tolist()
    if not width:
        return None
    dtype = torch.float64 if itemsize == 8 else torch.float32
    whole = torch.zeros([num, width], dtype=dtype)
    if rows is not None:
        whole[first : first + len(rows)] = torch.from_numpy(rows)
    return world.sum(whole).numpy()
