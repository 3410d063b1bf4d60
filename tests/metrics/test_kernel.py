"""The kernel distance against its definition, torch-fidelity and known distributions."""

import numpy as np
import pytest
import torch

from metrics.kernel import NUM_SUBSETS, SUBSET_SIZE, kernel_distance
from torch_utils.errors import UserError


def sample(seed: int, num: int, scale: float = 1.0, num_features: int = 6) -> np.ndarray:
    """float32 [num, num_features], normal."""
    values = np.random.default_rng(seed).normal(size=(num, num_features)) * scale
    return values.astype(np.float32)


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """Gretton et al. 2012, equation 3, pair by pair."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a.astype(float) @ b.astype(float) / len(a) + 1) ** 3)

    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(kernel(a, b) for a in x for b in y) / (n * m)
    return xx + yy - 2 * xy


def test_a_subset_of_all_images_agrees_with_the_definition() -> None:
    x, y = sample(0, 12), sample(1, 12, 1.5)
    mean, std = kernel_distance(x, y, subsets=3, subset_size=12)
    assert mean == pytest.approx(by_definition(x, y), rel=1e-12)
    assert std == pytest.approx(0, abs=1e-12)  # every subset is the whole set


@pytest.mark.parametrize("subsets", [2, 5])
def test_subsets_are_drawn_in_turn_first_of_the_scored_images(subsets: int) -> None:
    """Two subsets are computed one by one; five share more kernels than there are."""
    x, y = sample(2, 20), sample(3, 14, 1.5)
    random = np.random.RandomState(2020)
    found = [
        by_definition(
            x[random.choice(20, 9, replace=False)], y[random.choice(14, 9, replace=False)]
        )
        for _ in range(subsets)
    ]
    expected = np.mean(found), np.std(found)
    distance = kernel_distance(x, y, subsets=subsets, subset_size=9)
    assert distance == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("num_x", "num_y", "subsets", "size"),
    [
        (1200, 1500, NUM_SUBSETS, SUBSET_SIZE),
        (1500, 1000, NUM_SUBSETS, SUBSET_SIZE),
        (2600, 2300, 2, 1100),
        (2100, 1200, 30, 1100),
    ],
)
def test_the_subsets_are_those_of_torch_fidelity(
    num_x: int, num_y: int, subsets: int, size: int
) -> None:
    """Also those that are computed in several blocks, one by one or jointly."""
    metric_kid = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = sample(2, num_x, num_features=8), sample(3, num_y, 1.1, num_features=8)
    is_usual = (subsets, size) == (NUM_SUBSETS, SUBSET_SIZE)
    theirs = metric_kid.kid_features_to_metric(
        torch.from_numpy(x).double(),
        torch.from_numpy(y).double(),
        verbose=False,
        **({} if is_usual else {"kid_subsets": subsets, "kid_subset_size": size}),
    )
    mean, std = kernel_distance(x, y, subsets=subsets, subset_size=size)
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6)


def test_two_samples_of_one_distribution_have_no_distance_in_the_mean() -> None:
    """A biased estimate would be positive in every pair of samples."""
    found = [
        kernel_distance(sample(2 * i, 40), sample(2 * i + 1, 40), subsets=1, subset_size=40)[0]
        for i in range(200)
    ]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error
    assert np.mean(np.array(found) < 0) > 0.3


def test_fewer_images_than_a_subset_are_refused() -> None:
    with pytest.raises(UserError, match=r"1,000 images in each set, got 999: use more"):
        kernel_distance(sample(0, 999), sample(1, 1000))
    with pytest.raises(UserError, match="got 12"):
        kernel_distance(sample(0, 1000), sample(1, 12))
    assert kernel_distance(sample(0, 999), sample(1, 12), subset_size=12, subsets=2)[1] > 0
