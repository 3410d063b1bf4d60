"""SDE-DPM-Solver++: what is exact, what it remembers, and what is left without noise."""

import math
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from diffusion.grids import rho_grid
from samplers.solvers.ddim import ddim
from samplers.solvers.dpmpp import dpmpp
from samplers.solvers.dpmpp_2m_sde import dpmpp_2m_sde
from samplers.solvers.dpmpp_3m_sde import dpmpp_3m_sde
from samplers.solvers.sde_steps import SDEStep
from tests.samplers.orders import (
    END,
    MIXTURE,
    START,
    Draws,
    final_variance,
    forbidden,
    images,
    zeros,
)
from tests.samplers.pairs import pair_law_order

SOLVERS = [dpmpp_2m_sde, dpmpp_3m_sde]
GRID = rho_grid(13, END, START).tolist()
Solver = Callable[..., torch.Tensor]


@pytest.mark.parametrize("eta", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_noise_of_a_point_mass_is_exact_in_steps_of_any_length(
    solver: Solver, eta: float
) -> None:
    found = final_variance(solver, [80.0, 3.0, 0.5, 0.4], 0.0, 80.0**2, eta=eta)
    assert found == pytest.approx(0.4**2, rel=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("sigmas", "draws"), [(GRID, 12), ([*GRID, 0.0], 12)])
def test_noise_is_drawn_once_a_step_but_not_in_the_step_to_0(
    solver: Solver, sigmas: list[float], draws: int
) -> None:
    x = images(torch.ones(3, dtype=torch.float64))
    noise = zeros()
    solver(MIXTURE, x, sigmas, noise=noise, eta=0.5)
    assert noise.calls == draws
    solver(MIXTURE, x, sigmas, noise=forbidden, eta=0.0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_S_noise_scales_the_noise(solver: Solver) -> None:
    x = images(torch.zeros(1, dtype=torch.float64))

    def run(draw: float, **options: Any) -> float:
        noise = Draws([draw] * 12)
        return solver(lambda x, sigma: 0 * x, x, GRID, noise=noise, **options).item()

    assert run(1.0) > 0
    assert run(1.0, S_noise=1.5) == pytest.approx(run(1.5))


def test_without_noise_the_midpoint_form_is_the_deterministic_solver_of_order_2() -> None:
    x = images(torch.linspace(-7, 7, 15, dtype=torch.float64))
    found = dpmpp_2m_sde(MIXTURE, x, GRID, noise=forbidden, eta=0.0)
    expected = dpmpp(MIXTURE, x, GRID, noise=forbidden, order=2, lower_order_final=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


LINE_AND_PARABOLA = [4.0, 2.0, 0.7, 0.3]  # uneven in log-SNR, too


def last_step(solver: Solver, power: int, eta: float, **options: Any) -> tuple[float, float]:
    """The state before and after the last step, with D = lambda^power."""

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.full_like(x, (-math.log(sigma)) ** power)

    start, sigmas = images(torch.zeros(1, dtype=torch.float64)), LINE_AND_PARABOLA
    ends = (sigmas[:-1], sigmas)
    found = [solver(denoise, start, s, noise=zeros(), eta=eta, **options).item() for s in ends]
    return found[0], found[1]


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize(
    ("solver", "options"), [(dpmpp_2m_sde, {"solver_type": "heun"}), (dpmpp_3m_sde, {})]
)
def test_a_line_in_log_snr_is_integrated_exactly(
    solver: Solver, options: dict[str, Any], eta: float
) -> None:
    """lambda - 1 / r solves dx = r (lambda - x) dlambda, and what differs from that decays."""
    before, after = last_step(solver, 1, eta, **options)
    rate, (place, end) = 1 + eta, (-math.log(sigma) for sigma in LINE_AND_PARABOLA[2:])
    decay = math.exp(-rate * (end - place))
    exact = end - 1 / rate + decay * (before - place + 1 / rate)
    assert after == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_three_steps_give_a_parabola_half_the_weight_of_its_curvature(eta: float) -> None:
    """The exact weight of h^2 D'' / 2 is 1 - 2 / z + 2 (1 - exp(-z)) / z^2 with z = r h."""
    before, after = last_step(dpmpp_3m_sde, 2, eta)
    rate, (place, end) = 1 + eta, (-math.log(sigma) for sigma in LINE_AND_PARABOLA[2:])
    z = rate * (end - place)

    def solution(level: float) -> float:
        return level**2 - 2 * level / rate + 2 / rate**2

    exact = solution(end) + math.exp(-z) * (before - solution(place))
    weight = 1 - 2 / z + 2 * (1 - math.exp(-z)) / z**2
    assert after == pytest.approx(exact - weight / 2 * (end - place) ** 2, rel=1e-12)


def test_the_steps_noise_and_decay_are_those_of_the_sde() -> None:
    """Many short steps are one long one."""
    short = rho_grid(200, END, START).tolist()
    mean, variance = 1.0, 0.0
    for sigma, sigma_next in pairwise(short):
        step = SDEStep(sigma, sigma_next, 0.7)
        one = images(torch.ones(1, dtype=torch.float64))
        decay = step.towards(one, 0 * one).item()
        noise = step.with_noise(0 * one, lambda like: torch.ones_like(like), 1.0).item()
        mean, variance = decay * mean, decay**2 * variance + noise**2
    step = SDEStep(START, END, 0.7)
    assert step.towards(one, 0 * one).item() == pytest.approx(mean)
    long = step.with_noise(0 * one, lambda like: torch.ones_like(like), 1.0).item()
    assert long**2 == pytest.approx(variance)


@pytest.mark.parametrize(("solver", "most"), [(dpmpp_2m_sde, 1), (dpmpp_3m_sde, 2)])
def test_no_more_estimates_are_held_than_the_next_step_needs(solver: Solver, most: int) -> None:
    estimates: list[weakref.ref[torch.Tensor]] = []
    held = []

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        held.append(sum(estimate() is not None for estimate in estimates))
        denoised = MIXTURE(x, sigma)
        estimates.append(weakref.ref(denoised))
        return denoised

    x = images(torch.ones(2, dtype=torch.float64))
    solver(denoise, x, [*GRID, 0.0], noise=torch.randn_like)
    assert max(held) == most


@pytest.mark.parametrize(
    ("solver", "options", "steps", "least"),
    [
        (ddim, {"eta": 1.0}, (8, 16), 0.9),
        (dpmpp_2m_sde, {"solver_type": "midpoint"}, (16, 32), 1.7),
        (dpmpp_2m_sde, {"solver_type": "heun"}, (16, 32), 1.7),
    ],
)
def test_what_two_steps_remember_lifts_the_order_in_law_on_a_mixture_too(
    solver: Solver, options: dict[str, Any], steps: tuple[int, int], least: float
) -> None:
    """Without memory, the first-order step of the same SDE is that of ddim with eta = 1."""
    found = pair_law_order(solver, steps, **options)
    assert found > least
    assert solver is not ddim or found < 1.1
