"""The Frechet distance against closed forms and against scipy's matrix square root."""

import numpy as np
import pytest
import scipy.linalg

from metrics.frechet import frechet_distance
from metrics.statistics import Gaussian


def gaussian(seed: int, num_features: int, num_samples: int) -> Gaussian:
    """Mean and covariance of random samples; rank num_samples - 1 if that is smaller."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_samples, num_features)) @ rng.normal(size=(num_features, num_features))
    return Gaussian(x.mean(0), np.cov(x.T), num_samples)


def by_square_root(a: Gaussian, b: Gaussian) -> float:
    """The published formula, literally."""
    root = scipy.linalg.sqrtm(a.sigma @ b.sigma)
    return float(np.square(a.mu - b.mu).sum() + np.trace(a.sigma + b.sigma - 2 * np.real(root)))


def test_full_rank_agrees_with_scipy() -> None:
    a, b = gaussian(0, 20, 200), gaussian(1, 20, 150)
    assert frechet_distance(a, b) == pytest.approx(by_square_root(a, b), rel=1e-9)


def by_nuclear_norm(a: np.ndarray, b: np.ndarray) -> float:
    """The distance from the samples themselves, exact at any rank.

    With S1 = A^T A and S2 = B^T B of centred, scaled samples, the trace of (S1 S2)^(1/2) is the sum
    of the singular values of A B^T.
    """
    scaled = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    offset = a.mean(0) - b.mean(0)
    root = np.linalg.svd(scaled[0] @ scaled[1].T, compute_uv=False).sum()
    return float(offset @ offset + sum(np.square(x).sum() for x in scaled) - 2 * root)


def spectrum(seed: int, num: int, decay: float, scale: float = 1.0) -> np.ndarray:
    """Samples [num, 40] in which the deviations fall from 1 to 10^-decay, times a scale."""
    rotation = scipy.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0]
    deviations = scale * np.logspace(0, -decay, 40)
    return np.random.default_rng(seed).normal(0.1 * scale, deviations, (num, 40)) @ rotation


def of(samples: np.ndarray) -> Gaussian:
    """Their mean and covariance."""
    return Gaussian(samples.mean(0), np.cov(samples.T), len(samples))


@pytest.mark.parametrize(("num_a", "num_b"), [(200, 300), (15, 200), (200, 15), (15, 12), (2, 2)])
@pytest.mark.parametrize("decay", [0, 3, 6])
@pytest.mark.parametrize("scale", [1e-4, 1, 1e4])
def test_any_rank_agrees_with_the_samples(
    num_a: int, num_b: int, decay: float, scale: float
) -> None:
    a, b = spectrum(2, num_a, decay, scale), spectrum(3, num_b, decay, 1.1 * scale)
    assert frechet_distance(of(a), of(b)) == pytest.approx(by_nuclear_norm(a, b), rel=1e-9)


@pytest.mark.parametrize(("num_a", "num_b"), [(15, 200), (200, 15), (15, 12)])
def test_rank_deficient_agrees_with_scipy(num_a: int, num_b: int) -> None:
    """To what a square root of a singular matrix is worth: half the digits."""
    a, b = gaussian(2, 40, num_a), gaussian(3, 40, num_b)
    assert frechet_distance(a, b) == pytest.approx(by_square_root(a, b), rel=1e-6)


@pytest.mark.parametrize(("num", "digits"), [(300, 1e-6), (15, 1e-3)])
def test_covariances_that_were_kept_in_float32_give_about_the_same(num: int, digits: float) -> None:
    """Rounding makes eigenvalues of 0 negative."""
    a, b = spectrum(4, num, 3), spectrum(5, 400, 3)
    rounded = [Gaussian(g.mu, g.sigma.astype("f4").astype("f8"), g.num) for g in (of(a), of(b))]
    expected = by_nuclear_norm(a, b)
    assert frechet_distance(*rounded) == pytest.approx(expected, rel=digits)
    assert frechet_distance(*rounded[::-1]) == pytest.approx(expected, rel=digits)


@pytest.mark.parametrize("zeros", [0, 3])
def test_diagonal_has_a_closed_form(zeros: int) -> None:
    rng = np.random.default_rng(4)
    mu, s, t = rng.normal(size=(3, 8))
    s[:zeros] = 0
    rotation = scipy.linalg.qr(rng.normal(size=(8, 8)))[0]
    a = Gaussian(rotation @ mu, rotation @ np.diag(s**2) @ rotation.T, 10)
    b = Gaussian(np.zeros(8), rotation @ np.diag(t**2) @ rotation.T, 10)
    expected = np.sum(mu**2) + np.sum((np.abs(s) - np.abs(t)) ** 2)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("num_samples", [200, 15])
def test_identical_gaussians_have_distance_zero_and_never_less(num_samples: int) -> None:
    for seed in range(10):
        a = gaussian(seed, 40, num_samples)
        assert 0 <= frechet_distance(a, a) < 1e-9


def test_gaussians_that_share_one_direction_only_have_a_closed_form() -> None:
    rotation = scipy.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    variances = np.array([[1.0] * 5 + [0] * 7, [0] * 4 + [2] * 8])
    a, b = (Gaussian(np.zeros(12), rotation @ np.diag(s) @ rotation.T, 20) for s in variances)
    assert frechet_distance(a, b) == pytest.approx(21 - 2 * np.sqrt(2), rel=1e-7)


@pytest.mark.parametrize("num_samples", [200, 15])
def test_the_distance_is_symmetric(num_samples: int) -> None:
    a, b = gaussian(6, 30, num_samples), gaussian(7, 30, 300)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_images_without_any_variation_are_allowed() -> None:
    a = Gaussian(np.ones(3), np.zeros((3, 3)), 2)
    b = Gaussian(np.zeros(3), np.eye(3), 2)
    assert frechet_distance(a, b) == frechet_distance(b, a) == pytest.approx(6)
    assert frechet_distance(a, a) == 0
