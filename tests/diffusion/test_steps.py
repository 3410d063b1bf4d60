"""Single steps against DDPM's and DDIM's published formulas in variance-preserving coordinates."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion import steps

pairs = st.tuples(st.floats(0.01, 100), st.floats(0.001, 0.99)).map(lambda p: (p[0], p[0] * p[1]))


def abar(sigma: float) -> float:
    """alpha-bar of a noise level: 1 / (1 + sigma^2)."""
    return 1 / (1 + sigma**2)


@given(pairs)
def test_variances_are_ddpms_beta_and_beta_tilde(pair: tuple[float, float]) -> None:
    sigma, after = pair
    beta = 1 - abar(sigma) / abar(after)
    beta_tilde = beta * (1 - abar(after)) / (1 - abar(sigma))
    to_z = abar(after)  # variance of z = alpha x
    assert steps.variance_large(sigma, after) * to_z == pytest.approx(beta, rel=1e-9)
    assert steps.variance_small(sigma, after) * to_z == pytest.approx(beta_tilde, rel=1e-9)
    middle = steps.variance_interpolated(sigma, after, 0.3) * to_z
    assert middle == pytest.approx(beta_tilde**0.7 * beta**0.3, rel=1e-9)


@given(pairs, st.floats(-2, 2), st.floats(-2, 2))
def test_posterior_mean_is_ddpms(pair: tuple[float, float], y: float, n: float) -> None:
    sigma, after = pair
    a, a_next = abar(sigma), abar(after)
    alpha, beta = a / a_next, 1 - a / a_next
    z = math.sqrt(a) * (y + sigma * n)
    published = (math.sqrt(a_next) * beta * y + math.sqrt(alpha) * (1 - a_next) * z) / (1 - a)
    ours = steps.posterior_mean(torch.tensor(y + sigma * n).double(), torch.tensor(y), sigma, after)
    assert math.sqrt(a_next) * ours.item() == pytest.approx(published, rel=1e-5, abs=1e-6)


@given(pairs, st.floats(0, 1), st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2))
def test_ddim_is_the_published_step(
    pair: tuple[float, float], eta: float, y: float, n: float, e: float
) -> None:
    sigma, after = pair
    a, a_next = abar(sigma), abar(after)
    spread = eta * math.sqrt((1 - a_next) / (1 - a)) * math.sqrt(max(1 - a / a_next, 0))
    published = math.sqrt(a_next) * y + math.sqrt(max(1 - a_next - spread**2, 0)) * n + spread * e
    x, clean = torch.tensor(y + sigma * n, dtype=torch.float64), torch.tensor(y).double()
    ours = steps.ddim_step(x, clean, sigma, after, eta, torch.tensor(e, dtype=torch.float64))
    assert math.sqrt(a_next) * ours.item() == pytest.approx(published, rel=1e-4, abs=1e-5)


def test_a_step_to_zero_returns_the_denoised_image() -> None:
    x, clean = torch.randn(2, 1, 2, 3), torch.randn(2, 1, 2, 3)
    assert torch.equal(steps.ddim_step(x, clean, 0.7, 0.0, eta=1.0), clean)


def test_deterministic_ddim_is_an_euler_step() -> None:
    x, clean = torch.randn(2, 1, 2, 3).double(), torch.randn(2, 1, 2, 3).double()
    euler = x + (0.2 - 0.7) * steps.slope(x, clean, 0.7)
    torch.testing.assert_close(steps.ddim_step(x, clean, 0.7, 0.2), euler)


def test_raised_noise_has_the_level_asked_for() -> None:
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0)).double()
    raised = steps.raise_noise(torch.zeros_like(noise), noise, 0.3, 0.5)
    assert raised.std().item() == pytest.approx(0.4, rel=0.01)


@given(pairs)
def test_floats_stay_floats_and_tensors_take_the_same_steps(pair: tuple[float, float]) -> None:
    levels = [torch.full([2, 1, 1, 1], sigma, dtype=torch.float64) for sigma in pair]
    x, clean, fresh = (torch.randn(2, 1, 2, 3, dtype=torch.float64) for _ in range(3))
    for variance in steps.VARIANCES.values():
        on_host, on_device = variance(*pair, 0.3), variance(*levels, 0.3)
        assert type(on_host) is float
        torch.testing.assert_close(on_device, torch.full_like(on_device, on_host))
        torch.testing.assert_close(
            steps.ancestral_step(x, clean, *levels, on_device, fresh),
            steps.ancestral_step(x, clean, *pair, on_host, fresh),
        )
    for std in (steps.frozen_std, steps.exact_std):
        assert type(std(*pair)) is float
        torch.testing.assert_close(
            steps.reverse_sde_step(x, clean, *levels, std(*levels), fresh),
            steps.reverse_sde_step(x, clean, *pair, std(*pair), fresh),
        )
    torch.testing.assert_close(
        steps.raise_noise(x, fresh, levels[1], levels[0]),
        steps.raise_noise(x, fresh, pair[1], pair[0]),
    )


def test_a_variance_that_rounding_left_below_zero_has_no_noise() -> None:
    sigma, after = torch.tensor(1.0), torch.tensor(1.0 + 1e-7)
    assert steps.frozen_std(sigma, after) == steps.exact_std(sigma, after) == 0
    assert steps.frozen_std(1.0, 1.0 + 1e-9) == steps.exact_std(1.0, 1.0 + 1e-9) == 0
