"""The classifier score of classifiers whose score is known."""

import numpy as np
import pytest
import torch

from metrics.scores import classifier_score, probabilities, split_score
from torch_utils.errors import UserError


def test_a_classifier_that_knows_nothing_scores_one() -> None:
    assert classifier_score(np.full((50, 10), 0.1)) == pytest.approx(1)
    assert split_score(np.full((50, 10), 0.1)) == pytest.approx((1, 0))


def test_a_perfect_classifier_of_balanced_images_scores_the_number_of_classes() -> None:
    assert classifier_score(np.eye(10)[np.arange(50) % 10]) == pytest.approx(10)


def test_images_of_one_class_score_one() -> None:
    assert classifier_score(np.eye(10)[np.zeros(50, dtype=int)]) == pytest.approx(1)


def test_two_images_agree_with_the_formula() -> None:
    p = np.array([[0.9, 0.1], [0.4, 0.6]])
    mean = [0.65, 0.35]
    kl = [sum(a * np.log(a / m) for a, m in zip(row, mean, strict=True)) for row in p]
    assert classifier_score(p) == pytest.approx(np.exp(np.mean(kl)), rel=1e-14)


def test_splits_are_contiguous_parts_of_the_published_permutation() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(4), size=103)
    shuffled = p[np.random.RandomState(2020).permutation(103)]
    parts = [shuffled[i * 103 // 10 : (i + 1) * 103 // 10] for i in range(10)]
    scores = [classifier_score(part) for part in parts]
    assert split_score(p) == pytest.approx((np.mean(scores), np.std(scores)))
    assert sum(map(len, parts)) == 103


def test_fewer_images_than_splits_are_refused() -> None:
    with pytest.raises(UserError, match="10 splits needs as many images, got 9"):
        split_score(np.full((9, 2), 0.5))


def test_probabilities_are_the_softmax_also_of_large_float32_logits() -> None:
    logits = np.array([[0, np.log(3), 0], [1000, 1000, -1000]], dtype=np.float32)
    expected = [[0.2, 0.6, 0.2], [0.5, 0.5, 0]]
    found = probabilities(logits)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-15)


def test_the_score_agrees_with_torch_fidelity() -> None:
    metric_isc = pytest.importorskip("torch_fidelity.metric_isc")
    logits = np.random.default_rng(0).normal(size=(205, 30)).astype(np.float32) * 3
    theirs = metric_isc.isc_features_to_metric(torch.from_numpy(logits))
    expected = [theirs["inception_score_mean"], theirs["inception_score_std"]]
    assert split_score(probabilities(logits)) == pytest.approx(expected, rel=1e-9)


def test_probabilities_that_are_almost_0_add_nothing() -> None:
    """Their mean is 0 in float64, though the smallest of them is not."""
    p = probabilities(np.array([[0, -745.0], [0, -800.0]]))
    assert p[0, 1] > p.mean(0)[1] == 0
    assert classifier_score(p) == pytest.approx(1)


def test_the_order_of_the_images_counts() -> None:
    p = np.random.default_rng(1).dirichlet(np.ones(4), size=50)
    assert split_score(p) != pytest.approx(split_score(p[::-1]), rel=1e-6)
    assert classifier_score(p) == pytest.approx(classifier_score(p[::-1]), rel=1e-12)
