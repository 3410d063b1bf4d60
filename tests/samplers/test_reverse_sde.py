"""The reverse SDE: orders in law by exact variances, draws, and the published last step."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.grids import rho_grid
from samplers import SAMPLERS
from samplers.solvers.reverse_sde import reverse_sde
from tests.closed_form import GaussianMixture

STD = 0.5


def gaussian(x: Tensor, sigma: float) -> Tensor:
    return STD**2 / (STD**2 + sigma**2) * x


class Impulses:
    """Noise that is 1 in sample k + 1 at call k and 0 elsewhere."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, like: Tensor) -> Tensor:
        self.calls += 1
        noise = torch.zeros_like(like)
        noise[self.calls] = 1
        return noise


def variance(sigmas: list[float], start: float, **options: Any) -> float:
    """Variance of the result on Gaussian data, exactly.

    Sampling is linear then: sample 0 of the batch carries the start, sample k the k-th noise, and
    their independent contributions add.
    """
    x = torch.zeros(1 + 2 * len(sigmas), 1, 1, 1, dtype=torch.float64)
    x[0] = math.sqrt(start)
    found = reverse_sde(gaussian, x, sigmas, noise=Impulses(), **options)
    return found.square().sum().item()


@pytest.mark.parametrize(("corrector", "order"), [("none", 1), ("published", 1), ("shared", 2)])
def test_the_variance_converges_with_the_stated_order(corrector: str, order: int) -> None:
    first, last = 10.0, 0.1
    counts = [100, 200, 400, 800]
    errors = []
    for n in counts:
        sigmas = rho_grid(n + 1, last, first).tolist()
        found = variance(sigmas, STD**2 + first**2, corrector=corrector)
        errors.append(abs(found / (STD**2 + last**2) - 1))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -slope == pytest.approx(order, abs=0.15), errors


def test_one_step_is_the_published_formula() -> None:
    sigma, after = 3.0, 2.0
    x = torch.full([5, 1, 1, 1], 1.7, dtype=torch.float64)
    noises = iter(torch.tensor([0.4, -0.9], dtype=torch.float64))
    found = reverse_sde(
        gaussian, x, [sigma, after], noise=lambda like: torch.full_like(like, next(noises)),
        corrector="published",
    )  # fmt: skip
    f = (x - gaussian(x, sigma)) / sigma
    spread = math.sqrt(2 * (sigma - after) * sigma)
    predicted = x - 2 * f + spread * 0.4
    f_next = (predicted - gaussian(predicted, after)) / after
    torch.testing.assert_close(found, x - (f + f_next) + spread * -0.9)


@pytest.mark.parametrize(
    ("corrector", "last_step", "draws"),
    [
        ("none", "denoise", 9),
        ("shared", "denoise", 9),
        ("published", "denoise", 18),
        ("none", "published", 10),
        ("shared", "published", 10),
        ("published", "published", 19),
    ],
)
def test_draws_and_calls(corrector: str, last_step: str, draws: int) -> None:
    drawn, calls = [], []

    def noise(like: Tensor) -> Tensor:
        drawn.append(1)
        return torch.zeros_like(like)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return gaussian(x, sigma)

    sigmas = [*rho_grid(10, 0.01, 10.0).tolist(), 0.0]
    options = {"corrector": corrector, "last_step": last_step}
    reverse_sde(denoise, torch.ones(2, 1, 1, 1).double(), sigmas, noise=noise, **options)
    assert len(drawn) == draws
    assert len(calls) == SAMPLERS["reverse_sde"].num_calls(10, options, True)


def test_the_last_step_returns_the_denoised_image_or_overshoots_as_published() -> None:
    x = torch.full([3, 1, 1, 1], 0.8, dtype=torch.float64)
    assert torch.equal(
        reverse_sde(gaussian, x, [0.5, 0.0], noise=torch.ones_like), gaussian(x, 0.5)
    )
    found = reverse_sde(gaussian, x, [0.5, 0.0], noise=torch.ones_like, last_step="published")
    torch.testing.assert_close(found, 2 * gaussian(x, 0.5) - x + math.sqrt(2) * 0.5)


@pytest.mark.parametrize("corrector", SAMPLERS["reverse_sde"].choices["corrector"])
def test_many_steps_keep_a_distribution_that_is_not_gaussian(corrector: str) -> None:
    means = torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    model = GaussianMixture(means, 0.2)
    generator = torch.Generator().manual_seed(0)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    sigmas = [*rho_grid(300, 0.01, 20.0).tolist(), 0.0]
    x = 20.0 * noise(torch.empty(8000, 1, 1, 1, dtype=torch.float64))
    found = reverse_sde(model, x, sigmas, noise=noise, corrector=corrector)
    assert found.abs().mean().item() == pytest.approx(1.0, abs=0.02)
    assert found.abs().std().item() == pytest.approx(0.2, abs=0.02)
    assert (found > 0).double().mean().item() == pytest.approx(0.5, abs=0.03)
