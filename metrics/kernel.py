"""Kernel distance, KID with Inception's features (Binkowski et al., 2018): unbiased at any count.

The squared maximum mean discrepancy with the kernel k(x, y) = (x.y / F + 1)^3, averaged over
subsets. In expectation it is 0 for two samples of one distribution, so it can be negative.
"""

import numpy as np
import torch
from torch import Tensor

from torch_utils.errors import UserError

NUM_SUBSETS = 100
SUBSET_SIZE = 1000
_ROWS = 256  # of the kernels within a subset that are computed at once
SUBSET_SEED = 2020  # of the published choice of subsets (torch-fidelity)


def kernel_distance(
    features: np.ndarray,
    reference: np.ndarray,
    *,
    subsets: int = NUM_SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = SUBSET_SEED,
    device: torch.device | str = "cpu",
) -> tuple[float, float]:
    """The distance of two sets of features.

    Subset i of both sets is drawn without replacement, first of `features`, then of `reference`;
    so the two are not interchangeable, though the distance of equal subsets would be.

    Args:
        features: of the images that are scored, [N, F].
        reference: of those that they are compared with, [M, F].
        subsets: how many are drawn.
        subset_size: images in each, at least 2.
        seed: of the choice, numpy's RandomState.
        device: where kernels are computed, in float64.

    Returns:
        Mean and population standard deviation over the subsets.

    Raises:
        UserError: fewer images than a subset has.
    """
    assert features.shape[1] == reference.shape[1], (features.shape, reference.shape)
    assert subset_size >= 2, subset_size
    num = min(len(features), len(reference))
    if num < subset_size:
        raise UserError(
            f"a kernel distance needs {subset_size:,} images in each set, got {num:,}: use more "
            "images, or smaller subsets (subset_size)"
        )
    random = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        drawn = (
            values[random.choice(len(values), subset_size, replace=False)].astype(np.float64)
            for values in (features, reference)
        )
        x, y = (torch.from_numpy(values).to(device) for values in drawn)
        found.append(_squared_discrepancy(x, y))
    distances = torch.stack(found).cpu().numpy()
    return float(distances.mean()), float(distances.std())


def _squared_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate from two samples [n, F] (Gretton et al., 2012, equation 3)."""
    num = len(x)
    pairs = num * (num - 1)  # a point and itself are no pair
    return (_sum_within(x) + _sum_within(y)) / pairs - 2 * _kernel(x, y).mean()


def _sum_within(x: Tensor) -> Tensor:
    """The sum of the kernels of all pairs, each of which is computed about once, not twice."""
    total = x.new_zeros([])
    for first in range(0, len(x), _ROWS):
        rows = x[first : first + _ROWS]
        kernels = _kernel(rows, x[first:])
        same, later = kernels[:, : len(rows)], kernels[:, len(rows) :]
        total = total + same.sum() - same.trace() + 2 * later.sum()
    return total


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """[n, m]."""
    return (x @ y.T).div_(x.shape[1]).add_(1).pow_(3)
