"""Churn: fresh noise before a step. Karras et al. 2022 ("EDM"), Algorithm 2, lines 4 to 6."""

import math
from collections.abc import Callable

from torch import Tensor

from diffusion.steps import raise_noise
from samplers.solvers.interface import Noise


def churned(
    x: Tensor,
    sigma: float,
    noise: Noise,
    round_sigma: Callable[[float], float],
    num_steps: int,
    S_churn: float,
    S_min: float,
    S_max: float,
    S_noise: float,
) -> tuple[Tensor, float]:
    """Raise the noise level of a state by its share of S_churn, at most by the factor sqrt(2).

    If S_churn is not 0, noise is drawn at every level, also outside [S_min, S_max]: the published
    order of draws.

    Args:
        x: state at `sigma`, [N, C, H, W].
        sigma: noise level.
        num_steps: number of steps that share S_churn.
        noise, round_sigma, S_churn, S_min, S_max, S_noise: as in `heun`.

    Returns:
        The state and its noise level.
    """
    if not S_churn:
        return x, sigma
    fresh = noise(x)
    if not S_min <= sigma <= S_max:
        return x, sigma
    gamma = min(S_churn / num_steps, math.sqrt(2) - 1)
    sigma_hat = round_sigma(sigma * (1 + gamma))
    return raise_noise(x, S_noise * fresh, sigma, sigma_hat), sigma_hat
