"""SRA1, a Runge-Kutta method of strong order 1.5 for additive noise, without derivatives.

Roessler 2010, "Runge-Kutta methods for the strong approximation of solutions of stochastic
differential equations", SIAM J. Numer. Anal. 48(3), scheme SRA1, for the SDE of
`samplers.solvers.increments`.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from diffusion.steps import slope
from samplers.solvers.increments import correlated, rates, step_size
from samplers.solvers.interface import Callback, Noise, Project


def sra1(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
    beta: float = 1.0,
    rho: float = 7.0,
) -> Tensor:
    """Integrate a reverse SDE by SRA1; the step to 0 returns D.

    With a = kappa f, g and t from `samplers.solvers.increments`, and a second stage at t + 3h/4:

        H  = x + (3/4) h a(t, x) + (3/2) g(t + h) dZ / h
        x' = x + h (a(t, x) / 3 + (2/3) a(t + 3h/4, H)) + g(t + h) dW + (g(t) - g(t + h)) dZ / h

    It has no Laplacian term to estimate and no derivative to take. With beta = 0 it is Ralston's
    method of order 2 for the probability-flow ODE.

    Noise is drawn twice a step, but not if beta is 0, nor on the step to 0. The level of the second
    stage is rounded to one of the model's.

    Args: those of `Solver`, and
        beta: amount of noise: g^2 = -2 beta sigma sigma'; 1 is the reverse SDE.
        rho: exponent of the time variable, that of the grid.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        x_next = denoised
        if sigma_next > 0:
            h = step_size(sigma, sigma_next, rho)
            sigma_mid = round_sigma((sigma ** (1 / rho) - 0.75 * h) ** rho)
            here, mid, there = (rates(level, rho, beta) for level in (sigma, sigma_mid, sigma_next))
            dW, dZ = correlated(noise, x, h) if beta else (0.0, 0.0)
            a = here.drift * slope(x, denoised, sigma)
            x_mid = x + 0.75 * h * a + 1.5 * there.noise / h * dZ
            a_mid = mid.drift * slope(x_mid, denoise(x_mid, sigma_mid), sigma_mid)
            x_next = x + h / 3 * (a + 2 * a_mid)
            x_next = x_next + there.noise * dW + (here.noise - there.noise) / h * dZ
        x = x_next if project is None else project(x_next, sigma_next)
    return x
