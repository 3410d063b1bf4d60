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
    ("num_x", "num_y", "subsets", "size", "num_features", "scale"),
    [
        (1200, 1500, NUM_SUBSETS, SUBSET_SIZE, 8, 1.1),
        (1500, 1000, NUM_SUBSETS, SUBSET_SIZE, 8, 1.1),
        (2600, 2300, 2, 1100, 8, 1.1),
        (2100, 1200, 30, 1100, 8, 1.1),
        (1300, 1100, 1, 1050, 256, 1.5),
        (1300, 1100, 3, 1050, 256, 1.5),
    ],
)
def test_the_subsets_are_those_of_torch_fidelity(
    num_x: int, num_y: int, subsets: int, size: int, num_features: int, scale: float
) -> None:
    """Also those that are computed in several blocks, one by one or jointly, or in float32."""
    metric_kid = pytest.importorskip("torch_fidelity.metric_kid")
    x = sample(2, num_x, num_features=num_features)
    y = sample(3, num_y, scale, num_features=num_features)
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


def many_features(seed: int, num: int, scale: float = 1.0, offset: float = 0.3) -> np.ndarray:
    """float32 [num, 1024] of some common causes, not negative, as a network's are."""
    causes = np.random.default_rng(100).normal(size=(50, 1024)) * np.logspace(0, -1, 50)[:, None]
    values = offset + 0.3 * np.random.default_rng(seed).normal(size=(num, 50)) * scale @ causes
    return np.maximum(values, 0).astype(np.float32)


def in_float64(x: np.ndarray, y: np.ndarray) -> float:
    """Gretton et al. 2012, equation 3, by matrices."""
    a, b = x.astype(float), y.astype(float)
    xx, yy, xy = ((p @ q.T / p.shape[1] + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
    within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy))
    return float(within - 2 * xy.mean())


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (many_features(1, 400), many_features(2, 400)),
        (many_features(1, 400, 1.02), many_features(2, 400)),
        (many_features(1, 400, 1.5), many_features(2, 400)),
        (many_features(1, 400, offset=5.0), many_features(2, 400, offset=5.0)),
        (sample(1, 400, num_features=1024), sample(2, 400, 1.1, num_features=1024)),
    ],
    ids=["equal", "near", "far", "far from 0", "independent"],
)
def test_products_in_float32_change_a_distance_far_less_than_chance(
    x: np.ndarray, y: np.ndarray
) -> None:
    exact = in_float64(x, y)
    chance = np.std([in_float64(x[i::4], y[i::4]) for i in range(4)]) / 4  # of so many more
    found, _ = kernel_distance(x, y, subsets=1, subset_size=400)
    assert abs(found - exact) < 5e-6 * chance
    assert found != exact  # they are in float32, which takes half the time


@pytest.mark.parametrize("dtypes", ["df", "fd", "dd"])
def test_features_in_float64_are_multiplied_in_float64(dtypes: str) -> None:
    x, y = many_features(1, 400).astype(dtypes[0]), many_features(2, 400, 1.1).astype(dtypes[1])
    x += np.array(1e-9, dtypes[0])  # a part that float32 has no room for
    found, _ = kernel_distance(x, y, subsets=1, subset_size=400)
    assert found == pytest.approx(in_float64(x, y), rel=1e-10)


@pytest.mark.parametrize("subsets", [1, 9])
def test_the_layout_of_features_in_memory_does_not_matter(subsets: int) -> None:
    x, y = many_features(1, 700), many_features(2, 601, 1.1)
    views = x[::-1, ::2], np.asfortranarray(y)[:, 1::2]
    copies = np.ascontiguousarray(views[0]), np.ascontiguousarray(views[1])
    found, expected = (
        kernel_distance(*sets, subsets=subsets, subset_size=600) for sets in (views, copies)
    )
    assert found == pytest.approx(expected, rel=1e-9)


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
