"""Nearest distances against scipy, and a ratio that tells copies from fresh samples."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from metrics.memorization import memorization_ratio, nearest_distances
from torch_utils.errors import UserError


def blobs(seed: int, num: int) -> np.ndarray:
    """Images [num, 1, 4, 4] of a fixed distribution."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(4, 16))
    values = np.clip(rng.normal(size=(num, 4)) @ mixing * 30 + 128, 0, 255)
    return values.astype(np.uint8).reshape(num, 1, 4, 4)


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_nearest_distances_agree_with_scipy(chunk: int) -> None:
    a, b = blobs(0, 30), blobs(1, 40)
    every = cdist(a.reshape(30, -1), b.reshape(40, -1))
    np.testing.assert_allclose(nearest_distances(a, b, chunk=chunk), every.min(1), rtol=1e-12)


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_leave_one_out_skips_each_image_itself(chunk: int) -> None:
    a = blobs(0, 30)
    every = cdist(a.reshape(30, -1), a.reshape(30, -1))
    np.fill_diagonal(every, np.inf)
    found = nearest_distances(a, a, leave_one_out=True, chunk=chunk)
    np.testing.assert_allclose(found, every.min(1), rtol=1e-12)


def test_a_copy_has_distance_exactly_zero() -> None:
    a = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 50)) + 1000)
    assert (nearest_distances(a, a.flip(0)) == 0).all()


def test_fresh_samples_are_near_the_baseline() -> None:
    found = memorization_ratio(blobs(2, 500), blobs(3, 300), blobs(4, 300))
    assert found.ratio == pytest.approx(found.baseline, abs=0.12)
    assert found.ratio == pytest.approx(1, abs=0.12)
    assert (found.num_train, found.num_held_out) == (300, 300)


def test_noisy_copies_of_the_training_set_are_below_the_baseline() -> None:
    train = blobs(3, 300)
    noise = np.random.default_rng(5).integers(-1, 2, size=train.shape)
    copies = np.clip(train.astype(int) + noise, 0, 255).astype(np.uint8)
    found = memorization_ratio(copies, train, blobs(4, 300))
    assert found.ratio < 0.5 * found.baseline


def test_copies_of_any_part_of_the_training_set_are_seen() -> None:
    train, held_out = blobs(3, 1200), blobs(4, 300)
    found = memorization_ratio(train[-400:], train, held_out)
    assert found.ratio == 0
    assert found.baseline > 0.4


def test_a_ratio_without_images_or_meaning_is_refused() -> None:
    with pytest.raises(UserError, match="1 generated"):
        memorization_ratio(blobs(0, 0), blobs(1, 5), blobs(2, 5))
    with pytest.raises(UserError, match="copies of held-out"):
        memorization_ratio(blobs(2, 5), blobs(1, 5), blobs(2, 5))
    with pytest.raises(UserError, match="cannot be compared"):
        nearest_distances(np.zeros((2, 3)), np.zeros((2, 4)))
