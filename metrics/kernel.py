"""Kernel distance, KID with Inception's features (Binkowski et al., 2018): unbiased at any count.

The squared maximum mean discrepancy with the kernel k(x, y) = (x.y / F + 1)^3, averaged over
subsets. In expectation it is 0 for two samples of one distribution, so it can be negative.
"""

import numpy as np

from torch_utils.errors import UserError

NUM_SUBSETS = 100
SUBSET_SIZE = 1000
SUBSET_SEED = 2020  # of the published choice of subsets (torch-fidelity)


def kernel_distance(
    features: np.ndarray,
    reference: np.ndarray,
    *,
    subsets: int = NUM_SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = SUBSET_SEED,
) -> tuple[float, float]:
    """The distance of two sets of features.

    Subset i of both sets is drawn without replacement, first of `features`, then of `reference`.

    Args:
        features: of the images that are scored, [N, F].
        reference: of those that they are compared with, [M, F].
        subsets: how many are drawn.
        subset_size: images in each.
        seed: of the choice, numpy's RandomState.

    Returns:
        Mean and population standard deviation over the subsets.

    Raises:
        UserError: fewer images than a subset has.
    """
    assert features.shape[1] == reference.shape[1], (features.shape, reference.shape)
    num = min(len(features), len(reference))
    if num < subset_size:
        raise UserError(f"a kernel distance needs {subset_size:,} images in each set, got {num:,}")
    random = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        x = features[random.choice(len(features), subset_size, replace=False)]
        y = reference[random.choice(len(reference), subset_size, replace=False)]
        found.append(_squared_discrepancy(x.astype(np.float64), y.astype(np.float64)))
    return float(np.mean(found)), float(np.std(found))


def _squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate from two samples [n, F] (Gretton et al., 2012, equation 3)."""
    num = len(x)
    pairs = num * (num - 1)  # a point and itself are no pair
    within = (_kernel_sum(x, x, paired=True) + _kernel_sum(y, y, paired=True)) / pairs
    return float(within - 2 * _kernel_sum(x, y) / num**2)


def _kernel_sum(x: np.ndarray, y: np.ndarray, *, paired: bool = False) -> float:
    """The sum of the kernel over all pairs; `paired` leaves out those of equal index."""
    values = (x @ y.T / x.shape[1] + 1) ** 3
    return float(values.sum() - (np.trace(values) if paired else 0))
