"""Kernel distance, KID with Inception's features (Binkowski et al., 2018): unbiased at any count.

The squared maximum mean discrepancy with the kernel k(x, y) = (x.y / F + 1)^3, averaged over
subsets. In expectation it is 0 for two samples of one distribution, so it can be negative.

Where subsets share so many pairs that all kernels are fewer than theirs, as with a hundred subsets
of a thousand from five thousand images, each kernel is computed once for all subsets.
"""

import numpy as np
import torch
from torch import Tensor

from torch_utils.errors import UserError

NUM_SUBSETS = 100
SUBSET_SIZE = 1000
SUBSET_SEED = 2020  # of the published choice of subsets (torch-fidelity)
_ROWS, _COLUMNS = 512, 1024  # of the kernels that are computed at once
_WITHIN_ROWS = 128  # the same within a set: of these, fewer are computed twice
_JOINT_VALUES = 2**25  # of all features, at most, if subsets share kernels: 256 MiB
_Sets = tuple[np.ndarray, np.ndarray]


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
    sets = features, reference
    drawn = [
        [random.choice(len(values), subset_size, replace=False) for values in sets]
        for _ in range(subsets)
    ]
    few = _num_kernels(*map(len, sets)) < subsets * _num_kernels(subset_size, subset_size)
    compute = _jointly if few and sum(map(np.size, sets)) <= _JOINT_VALUES else _one_by_one
    distances = compute(sets, np.array(drawn), torch.device(device)).cpu().numpy()
    return float(distances.mean()), float(distances.std())


def _num_kernels(num: int, num_reference: int) -> int:
    """Pairs of images: within both sets, and across."""
    total = num + num_reference
    return total * (total - 1) // 2


def _moved(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float64)).to(device)


def _one_by_one(sets: _Sets, drawn: np.ndarray, device: torch.device) -> Tensor:
    """The estimates [S] for subsets of both sets, indices [S, 2, n]."""
    whole = torch.ones([drawn.shape[2], 1], dtype=torch.float64, device=device)
    found = []
    for pair in drawn:
        x, y = (_moved(values[which], device) for values, which in zip(sets, pair, strict=True))
        found.append(_squared_discrepancies(x, y, whole, whole))
    return torch.cat(found)


def _jointly(sets: _Sets, drawn: np.ndarray, device: torch.device) -> Tensor:
    """The same, from all kernels: one that several subsets need is computed once."""
    x, y = (_moved(values, device) for values in sets)
    chosen = []
    for number, values in enumerate(sets):
        is_chosen = np.zeros([len(values), len(drawn)])
        np.put_along_axis(is_chosen, drawn[:, number].T, 1, axis=0)
        chosen.append(_moved(is_chosen, device))
    return _squared_discrepancies(x, y, *chosen)


def _squared_discrepancies(x: Tensor, y: Tensor, x_chosen: Tensor, y_chosen: Tensor) -> Tensor:
    """The unbiased estimates [S] from pairs of subsets (Gretton et al., 2012, equation 3).

    Args:
        x: float64 [N, F].
        y: float64 [M, F].
        x_chosen: 1 where x is in a subset, float64 [N, S].
        y_chosen: the same for y, [M, S]; all subsets are of one size.
    """
    num = int(x_chosen[:, 0].sum())
    pairs = num * (num - 1) / 2  # a point and itself are no pair
    within = _sums(x, x, x_chosen, x_chosen, True) + _sums(y, y, y_chosen, y_chosen, True)
    return within / pairs - 2 * _sums(x, y, x_chosen, y_chosen, False) / num**2


def _sums(x: Tensor, y: Tensor, x_chosen: Tensor, y_chosen: Tensor, is_within: bool) -> Tensor:
    """The sums [S] of the kernels of all pairs of a subset; within a set, of each pair once."""
    totals = torch.zeros_like(x_chosen[0])
    size = _WITHIN_ROWS if is_within else _ROWS
    for first in range(0, len(x), size):
        rows = slice(first, first + size)
        for start in range(first if is_within else 0, len(y), _COLUMNS):
            columns = slice(start, start + _COLUMNS)
            kernels = _kernel(x[rows], y[columns])
            if is_within and start == first:
                kernels.triu_(1)
            totals += (x_chosen[rows] * (kernels @ y_chosen[columns])).sum(0)
    return totals


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """[n, m]."""
    return torch.addmm(x.new_ones([]), x, y.T, alpha=1 / x.shape[1]).pow_(3)
