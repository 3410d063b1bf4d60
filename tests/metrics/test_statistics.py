"""Streaming sums against numpy's covariance."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metrics.statistics import (
    MAX_FEATURES,
    FeatureStatistics,
    is_covariance,
    worthwhile_rows,
)
from torch_utils.errors import UserError


def collect(parts: list[np.ndarray]) -> FeatureStatistics:
    """Feed features part by part."""
    statistics = FeatureStatistics(parts[0].shape[1])
    for part in parts:
        statistics.update(torch.from_numpy(part))
    return statistics


@pytest.fixture
def features() -> np.ndarray:
    """100 correlated feature vectors far from 0."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(100, 5)) @ rng.normal(size=(5, 5)) + 3


def test_streamed_statistics_equal_those_of_the_whole(features: np.ndarray) -> None:
    gaussian = collect([features[:1], features[1:40], features[40:40], features[40:]]).finalize()
    np.testing.assert_allclose(gaussian.mu, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(gaussian.sigma, np.cov(features.T), rtol=1e-11, atol=1e-12)
    assert gaussian.num == 100


@pytest.mark.parametrize("num_features", [1, 127, 128, 129, 300])
def test_the_covariance_of_any_number_of_features_is_whole_and_symmetric(num_features: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, num_features)) @ rng.normal(size=(num_features, num_features))
    sigma = collect([features[:20], features[20:]]).finalize().sigma
    expected = np.cov(features.T).reshape(sigma.shape)
    np.testing.assert_allclose(sigma, expected, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_array_equal(sigma, sigma.T)


def test_a_single_image_is_added_like_many(features: np.ndarray) -> None:
    gaussian = collect(list(features[:, None])).finalize()
    np.testing.assert_allclose(gaussian.sigma, np.cov(features.T), rtol=1e-11, atol=1e-12)


def test_sums_grow_on_after_a_look_at_them(features: np.ndarray) -> None:
    statistics = collect([features[:30]])
    statistics.finalize()
    statistics.update(torch.from_numpy(features[30:]))
    np.testing.assert_allclose(statistics.finalize().sigma, np.cov(features.T), rtol=1e-11)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_noticed(features: np.ndarray, value: float) -> None:
    features[50, 3] = value
    with pytest.raises(AssertionError, match="not finite"):
        collect([features]).finalize()


@pytest.mark.parametrize(("size", "rows"), [(64, 2048), (2048, 2048), (4096, 1024), (16384, 512)])
def test_features_that_wait_to_be_added_are_bounded(size: int, rows: int) -> None:
    assert worthwhile_rows(size) == rows


@given(cuts=st.lists(st.integers(0, 100), max_size=8), seed=st.integers(0, 2**32 - 1))
def test_neither_order_nor_batches_matter(cuts: list[int], seed: int) -> None:
    values = np.random.default_rng(0).normal(3, 1, (100, 5)).astype(np.float32)
    whole = collect([values]).finalize()
    shuffled = np.random.default_rng(seed).permutation(values)
    found = collect(np.split(shuffled, sorted(cuts))).finalize()
    np.testing.assert_allclose(found.mu, whole.mu, rtol=1e-13)
    np.testing.assert_allclose(found.sigma, whole.sigma, rtol=1e-12, atol=1e-13)
    assert found.num == 100


def test_float32_features_are_summed_in_float64() -> None:
    values = np.tile(np.array([[1000.0], [1001.0]], dtype=np.float32), (5000, 1))
    gaussian = collect(np.array_split(values, 7)).finalize()
    np.testing.assert_allclose(gaussian.sigma, [[0.25 * 10000 / 9999]], rtol=1e-8)


def test_one_image_has_no_covariance(features: np.ndarray) -> None:
    with pytest.raises(UserError, match="at least 2 images, got 1"):
        collect([features[:1]]).finalize()


def test_a_covariance_beyond_memory_is_refused() -> None:
    with pytest.raises(UserError, match="GiB"):
        FeatureStatistics(MAX_FEATURES + 1)


@pytest.mark.parametrize("num", [3, 30, 300])
def test_a_covariance_of_any_number_of_images_is_one_also_in_float32(num: int) -> None:
    """Also of fewer images than features, where eigenvalues are 0 up to rounding."""
    features = np.random.default_rng(0).normal(5, 1, (num, 40)) * np.logspace(-3, 3, 40)
    statistics = FeatureStatistics(40)
    statistics.update(torch.from_numpy(features))
    sigma = statistics.finalize().sigma
    assert is_covariance(sigma)
    rounded = sigma.astype(np.float32).astype(np.float64)
    assert is_covariance(rounded)
    assert is_covariance(np.zeros((4, 4)))
    for place in (0, 20, 39):
        damaged = np.diag(np.full(40, sigma[39, 39]))
        damaged[place, place] *= -1e-3
        assert not is_covariance(damaged)
    correlated = np.array([[1.0, 2.0], [2.0, 1.0]])
    assert not is_covariance(correlated)
