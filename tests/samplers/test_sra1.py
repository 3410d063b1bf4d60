"""SRA1: its tableau, draws, calls and stages. Its orders are measured in test_orders."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.grids import rho_grid
from samplers.solvers.increments import correlated, rates, step_size
from samplers.solvers.sra1 import sra1
from tests.samplers.orders import MIXTURE, Draws, final_variance, forbidden, images, zeros

# Roessler 2010, scheme SRA1 for dX = a dt + g dW
C0, A0 = (0.0, 0.75), ((0.0, 0.0), (0.75, 0.0))
B0, C1 = ((0.0, 0.0), (1.5, 0.0)), (1.0, 0.0)
ALPHA, BETA1, BETA2 = (1 / 3, 2 / 3), (1.0, 0.0), (-1.0, 1.0)


def from_tableau(x: Tensor, sigma: float, h: float, rho: float, beta: float, noise: Any) -> Tensor:
    """One step of any two-stage SRA method: stages, drift sum, noise sums."""
    dW, dZ = correlated(noise, x, h)

    def level(c: float) -> float:
        return float((sigma ** (1 / rho) - c * h) ** rho)

    def g(c: float) -> float:
        return rates(level(c), rho, beta).noise

    slopes: list[Tensor] = []
    for s in range(2):
        stage = x.clone()
        for j in range(s):
            stage = stage + A0[s][j] * h * slopes[j] + B0[s][j] * g(C1[j]) * dZ / h
        f = (stage - MIXTURE(stage, level(C0[s]))) / level(C0[s])
        slopes.append(rates(level(C0[s]), rho, beta).drift * f)
    for s in range(2):
        x = x + h * ALPHA[s] * slopes[s] + (BETA1[s] * dW + BETA2[s] * dZ / h) * g(C1[s])
    return x


@pytest.mark.parametrize(("rho", "beta"), [(7.0, 1.0), (3.0, 0.4), (1.0, 2.0)])
def test_a_step_is_that_of_the_tableau(rho: float, beta: float) -> None:
    x = images(torch.linspace(-3, 3, 7, dtype=torch.float64))
    draws = torch.randn(2, 7, 1, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    found = sra1(MIXTURE, x, [2.0, 1.1], noise=Draws(draws), rho=rho, beta=beta)
    h = step_size(2.0, 1.1, rho)
    expected = from_tableau(x, 2.0, h, rho, beta, Draws(draws))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_variance_on_a_gaussian_converges() -> None:
    errors = []
    for steps in (50, 100, 200):
        sigmas = rho_grid(steps + 1, 0.02, 10.0).tolist()
        variance = final_variance(sra1, sigmas, 0.5, 10.0**2 + 0.25)
        errors.append(abs(variance / (0.02**2 + 0.25) - 1))
    assert errors[2] < 1e-3
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.15)


def test_noise_is_drawn_in_steps_to_positive_levels_only() -> None:
    x = images(torch.ones(3, dtype=torch.float64))
    sigmas = [*rho_grid(6, 0.01, 80.0).tolist(), 0.0]
    noise = zeros()
    sra1(MIXTURE, x, sigmas, noise=noise)
    assert noise.calls == 10
    sra1(MIXTURE, x, sigmas, noise=forbidden, beta=0.0)


def test_the_second_stage_is_taken_at_a_level_that_the_model_knows() -> None:
    seen = []

    def recorded(x: Tensor, sigma: float) -> Tensor:
        seen.append(sigma)
        return MIXTURE(x, sigma)

    x = images(torch.ones(3, dtype=torch.float64))
    sra1(recorded, x, [2.0, 1.0, 0.0], noise=zeros(), round_sigma=lambda sigma: round(sigma, 1))
    assert seen == [2.0, 1.2, 1.0]
