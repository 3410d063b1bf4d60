"""Heun's method with churn: Karras et al. 2022 ("EDM"), Algorithms 1 and 2."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from diffusion.steps import slope
from samplers.solvers.churn import churned
from samplers.solvers.interface import Callback, Noise, Project


def heun(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
    S_churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = math.inf,
    S_noise: float = 1.0,
) -> Tensor:
    """Integrate the probability-flow ODE by Heun's method, raising the noise before each step.

    Noise is drawn once a step if S_churn is not 0; raised levels are rounded to the model's.

    Args: those of `Solver`, and
        S_churn: total amount of noise added, spread over the steps; 0 is deterministic.
        S_min, S_max: noise is added at levels in this interval.
        S_noise: standard deviation of the added noise relative to the exact one.
    """
    churn = len(sigmas) - 1, S_churn, S_min, S_max, S_noise
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churned(x, sigma, noise, round_sigma, *churn)
        denoised = denoise(x, sigma_hat)
        if callback is not None:
            callback(i, sigma_hat, x, denoised)
        d = slope(x, denoised, sigma_hat)
        x_next = x + (sigma_next - sigma_hat) * d
        if sigma_next > 0:  # the slope does not exist at 0
            d_next = slope(x_next, denoise(x_next, sigma_next), sigma_next)
            x_next = x + (sigma_next - sigma_hat) * (d + d_next) / 2
        x = x_next if project is None else project(x_next, sigma_next)
    return x
