"""Does a model repeat its training images? Nearest training image against nearest held-out one.

Images of a model that has learned the distribution are as near to unseen images as to its training
images. Images of a model that copies are nearer to its training images.
"""

from dataclasses import dataclass

import numpy as np
import torch

from torch_utils.errors import UserError


@dataclass(frozen=True)
class MemorizationRatio:
    """How near generated images are to the training set, and how near unseen images are.

    Attributes:
        ratio: median nearest distance to training images / that to held-out images.
        baseline: the same for the held-out images themselves. A ratio near it means that nothing is
            memorised; a ratio far below it means that training images are repeated.
        num_train: training images that were compared with.
        num_held_out: held-out images that were compared with.
    """

    ratio: float
    baseline: float
    num_train: int
    num_held_out: int


def nearest_distances(
    queries: torch.Tensor | np.ndarray,
    references: torch.Tensor | np.ndarray,
    *,
    leave_one_out: bool = False,
    chunk: int = 1024,
) -> np.ndarray:
    """Euclidean distance from each query to its nearest reference.

    The nearest one is found from float64 matrix products, chunk by chunk; its distance is then
    computed from the difference, so that a copy has distance exactly 0.

    Args:
        queries: images or features [N, ...], flattened; on any device.
        references: [M, ...] of as many values each, M >= 1.
        leave_one_out: `queries` and `references` are the same set; skip each one itself.
        chunk: queries, and references, in one product.

    Returns:
        float64 [N], in units of the values.

    Raises:
        UserError: there is nothing to compare with, or the sizes differ.
    """
    a = _vectors(queries)
    b = _vectors(references).to(a.device)
    if a.shape[1] != b.shape[1]:
        raise UserError(f"images of {a.shape[1]} and {b.shape[1]} values cannot be compared")
    if len(b) < 1 + leave_one_out:
        raise UserError(f"nearest distances need more than {len(b)} reference images")
    center = b.mean(0)  # a common shift changes no distance, but the products round less
    a, b = a - center, b - center
    result = [
        _nearest(a[start : start + chunk], b, chunk, start if leave_one_out else None)
        for start in range(0, len(a), chunk)
    ]
    return torch.cat(result).cpu().numpy() if result else np.zeros(0)


def _vectors(values: torch.Tensor | np.ndarray) -> torch.Tensor:
    """float64 [N, F]; arrays are copied, because torch warns about read-only ones, e.g. mapped."""
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.array(values, dtype=np.float64))
    return values.flatten(1).double()


def _nearest(
    a: torch.Tensor, b: torch.Tensor, chunk: int, own_position: int | None
) -> torch.Tensor:
    """Distances [n] of one chunk of queries; query i is reference own_position + i, if given."""
    best = torch.full([len(a)], torch.inf, dtype=a.dtype, device=a.device)
    index = torch.zeros([len(a)], dtype=torch.int64, device=a.device)
    rows = torch.arange(len(a), device=a.device)
    for start in range(0, len(b), chunk):
        part = b[start : start + chunk]
        squared = (part * part).sum(1) - 2 * (a @ part.T)  # without |a|^2: the order is the same
        if own_position is not None:
            own = own_position + rows - start
            inside = (own >= 0) & (own < len(part))
            squared[rows[inside], own[inside]] = torch.inf
        value, column = squared.min(1)
        index = torch.where(value < best, column + start, index)
        best = torch.minimum(value, best)
    return (a - b[index]).square().sum(1).sqrt()


def memorization_ratio(
    generated: np.ndarray, train: np.ndarray, held_out: np.ndarray
) -> MemorizationRatio:
    """Median nearest distance to the training set over that to the held-out set.

    In a larger set, the nearest image is nearer. So both numbers are below 1 if the training set is
    the larger one; compare the ratio with its baseline. The sets are not cut to equal sizes: copies
    of images that were cut off would go unnoticed.

    Args:
        generated: images or features [N, ...].
        train: what the model was trained on [T, ...].
        held_out: images of the same distribution that it never saw [M, ...].

    Returns:
        The ratio and its baseline, for which each held-out image is compared with the training
        images and with the other held-out ones.

    Raises:
        UserError: there is no generated image, or there are fewer than 2 of the others; or half the
            held-out (or generated) images are exact copies of held-out ones: then a ratio has no
            meaning.
    """
    if len(generated) < 1 or len(train) < 2 or len(held_out) < 2:
        raise UserError(
            "a memorization ratio needs 1 generated, 2 training and 2 held-out images, got "
            f"{len(generated)}, {len(train)} and {len(held_out)}"
        )
    ratio = _ratio(nearest_distances(generated, train), nearest_distances(generated, held_out))
    baseline = _ratio(
        nearest_distances(held_out, train),
        nearest_distances(held_out, held_out, leave_one_out=True),
    )
    return MemorizationRatio(ratio, baseline, len(train), len(held_out))


def _ratio(to_train: np.ndarray, to_held_out: np.ndarray) -> float:
    below = float(np.median(to_held_out))
    if below == 0:
        raise UserError("half the images are copies of held-out images: remove duplicates first")
    return float(np.median(to_train)) / below
