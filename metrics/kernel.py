"""Kernel distance, KID with Inception's features (Binkowski et al., 2018): unbiased at any count.

The squared maximum mean discrepancy with the kernel k(x, y) = (x.y / F + 1)^3, averaged over
subsets. In expectation it is 0 for two samples of one distribution, so it can be negative.

Where subsets share so many pairs that all kernels are fewer than theirs, as with a hundred subsets
of a thousand from five thousand images, each kernel is computed once for all subsets.

A kernel is the cube of a product of features, which is taken about a centre c:

    F k(x, y)^(1/3) = (x - c).(y - c) + p(x) + p(y),    p(x) = x.c + (F - c.c) / 2

This holds for any c. About their mean, the first term is a small part of the sum; for many
features on a CPU it is computed in float32, and all else in float64. Its roundings differ from pair
to pair, so they average out as the pairs themselves do: what is left is a few millionths of the
deviation that a subset's distance has by chance, or less.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torch_utils.errors import UserError

NUM_SUBSETS = 100
SUBSET_SIZE = 1000
SUBSET_SEED = 2020  # of the published choice of subsets (torch-fidelity)
_BLOCK = 1024  # images of either set whose products are computed at once
_KERNELS = 2**15  # that are computed at once on a CPU: they stay in the cache, and on one thread
_CENTRED = 2**16  # features that are centred at once, for the same reason
_MANY_VALUES = 2**18  # of a subset: with fewer, float64 costs nothing, and less averages out
_JOINT_VALUES = 2**25  # of all features, at most, if subsets share kernels: 256 MiB
_Sets = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Points:
    """Features about a centre.

    Attributes:
        values: x - c, [N, F], in the precision of products.
        offsets: p(x), float64 [N].
    """

    values: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class _Centre:
    """What features are taken about, and where and how precisely their products are computed."""

    values: np.ndarray
    dtype: type[np.floating]
    device: torch.device

    def points(self, features: np.ndarray, chosen: np.ndarray) -> _Points:
        """Those features [N, F] that are chosen, by indices [n]."""
        num_features = features.shape[1]
        values = np.empty([len(chosen), num_features], self.dtype)
        offsets = np.empty(len(chosen))
        centre = self.values.astype(np.float64)
        size = max(_CENTRED // num_features, 1)
        for first in range(0, len(chosen), size):
            part = slice(first, first + size)
            found = features[chosen[part]]
            np.subtract(found, self.values, out=values[part], dtype=self.dtype)
            offsets[part] = found.astype(np.float64) @ centre
        offsets += (num_features - centre @ centre) / 2
        return _Points(*(torch.from_numpy(each).to(self.device) for each in (values, offsets)))


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
        device: where kernels are computed: on a CPU, the products of many float32 features in
            float32, about their mean; all others in float64.

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
    centre = _centre(sets, drawn[0], torch.device(device))
    distances = compute(sets, np.array(drawn), centre).cpu().numpy()
    return float(distances.mean()), float(distances.std())


def _num_kernels(num: int, num_reference: int) -> int:
    """Pairs of images: within both sets, and across."""
    total = num + num_reference
    return total * (total - 1) // 2


def _centre(sets: _Sets, drawn: list[np.ndarray], device: torch.device) -> _Centre:
    """About the mean of a subset of the reference."""
    chosen = sets[1][drawn[1]]
    is_plain = all(values.dtype == np.float32 for values in sets)
    is_single = device.type == "cpu" and is_plain and chosen.size >= _MANY_VALUES
    dtype = np.float32 if is_single else np.float64
    return _Centre(chosen.mean(0, dtype=dtype), dtype, device)


def _one_by_one(sets: _Sets, drawn: np.ndarray, centre: _Centre) -> Tensor:
    """The estimates [S] for subsets of both sets, indices [S, 2, n]."""
    whole = torch.ones([drawn.shape[2], 1], dtype=torch.float64, device=centre.device)
    found = []
    for pair in drawn:
        x, y = (centre.points(values, which) for values, which in zip(sets, pair, strict=True))
        found.append(_squared_discrepancies(x, y, whole, whole))
    return torch.cat(found)


def _jointly(sets: _Sets, drawn: np.ndarray, centre: _Centre) -> Tensor:
    """The same, from all kernels: one that several subsets need is computed once."""
    x, y = (centre.points(values, np.arange(len(values))) for values in sets)
    chosen = []
    for number, values in enumerate(sets):
        is_chosen = np.zeros([len(values), len(drawn)])
        np.put_along_axis(is_chosen, drawn[:, number].T, 1, axis=0)
        chosen.append(torch.from_numpy(is_chosen).to(centre.device))
    return _squared_discrepancies(x, y, *chosen)


def _squared_discrepancies(x: _Points, y: _Points, x_chosen: Tensor, y_chosen: Tensor) -> Tensor:
    """The unbiased estimates [S] from pairs of subsets (Gretton et al., 2012, equation 3).

    Args:
        x: N images.
        y: M images.
        x_chosen: 1 where x is in a subset, float64 [N, S].
        y_chosen: the same for y, [M, S]; all subsets are of one size.
    """
    num = int(x_chosen[:, 0].sum())
    pairs = num * (num - 1) / 2  # a point and itself are no pair
    within = _sums(x, x, x_chosen, x_chosen, True) + _sums(y, y, y_chosen, y_chosen, True)
    return within / pairs - 2 * _sums(x, y, x_chosen, y_chosen, False) / num**2


def _sums(x: _Points, y: _Points, x_chosen: Tensor, y_chosen: Tensor, is_within: bool) -> Tensor:
    """The sums [S] of the kernels of all pairs of a subset; within a set, of each pair once."""
    totals = torch.zeros_like(x_chosen[0])
    for first in range(0, len(x_chosen), _BLOCK):
        for start in range(first if is_within else 0, len(y_chosen), _BLOCK):
            columns = slice(start, start + _BLOCK)
            products = _product(x.values[first : first + _BLOCK], y.values[columns].T)
            is_square = is_within and start == first
            for part, skipped in _parts(products, is_square):
                rows = slice(first + part.start, first + part.stop)
                kernels = products[part, skipped:] + y.offsets[columns][skipped:]
                kernels.add_(x.offsets[rows, None]).pow_(3)
                if is_square:
                    kernels.triu_(1)
                found = _product(kernels, y_chosen[columns][skipped:])
                totals += (x_chosen[rows] * found).sum(0)
    return totals / x.values.shape[1] ** 3


def _parts(products: Tensor, is_square: bool) -> Iterator[tuple[slice, int]]:
    """Rows of products whose kernels are computed at once, and how many columns are left out.

    Args:
        products: [n, m].
        is_square: whether they are symmetric; what is below the diagonal is then left out.
    """
    num, width = products.shape
    size = max(_KERNELS // width, 1) if products.device.type == "cpu" else num
    for first in range(0, num, size):
        yield slice(first, min(first + size, num)), first if is_square else 0


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b; on a CPU by numpy, which computes half of a product of values with themselves."""
    if a.device.type == "cpu":
        return torch.from_numpy(a.numpy() @ b.numpy())
    return a @ b
