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

    Args:
        denoise: D(x, sigma).
        x: state at sigmas[0], [N, C, H, W].
        sigmas: strictly decreasing noise levels, n + 1 of them; the last is 0, or positive to
            stop early.
        noise: returns unit normals of the shape of its argument. Called once a step if S_churn
            is not 0.
        round_sigma: nearest level that the model knows, for the raised levels.
        project: applied to the state after each step, with its noise level.
        callback: called with (step, sigma, x, D) after each step's first evaluation.
        S_churn: total amount of noise added, spread over the steps; 0 is deterministic.
        S_min, S_max: noise is added at levels in this interval.
        S_noise: standard deviation of the added noise relative to the exact one.

    Returns:
        The state at sigmas[-1].
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
