"""The sampler of EDM's ablations: one solver in any time, on any scaling of the state.

Karras et al. 2022 ("EDM"), Eq. 4, Table 1 and Algorithm 1, with Algorithm 2's churn. It visits the
levels of the grid; `diffusion.time_map` has the times and scales.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion import time_map
from diffusion.denoiser import DenoiseFunction
from diffusion.time_map import TimeMap
from samplers.solvers.churn import churned
from samplers.solvers.interface import Callback, Noise, Project


def ablation(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
    solver: str = "heun",
    schedule: str = "linear",
    scaling: str = "none",
    alpha: float = 1.0,
    S_churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = math.inf,
    S_noise: float = 1.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    epsilon_s: float = 1e-3,
) -> Tensor:
    """Integrate the ODE of the state s(t) x over the time t with sigma(t) the noise level.

    State and result are without the scaling. Noise is drawn and levels are rounded as in `heun`.

    Args: those of `Solver`, and
        solver: euler, or heun for two slopes a step.
        schedule: sigma(t), one of vp, ve and linear.
        scaling: s(t), vp or none, which is 1.
        alpha: where in a step the second slope is taken, above 0 and up to 1; 1 is Heun's method,
            1/2 the midpoint method. All are of order 2.
        S_churn, S_min, S_max, S_noise: as in `heun`.
        sigma_min, sigma_max: range to which the vp schedule is fitted; by default that of sigmas.
        epsilon_s: time at which the vp schedule reaches sigma_min.
    """
    low = min(sigma for sigma in sigmas if sigma > 0) if sigma_min is None else sigma_min
    high = sigmas[0] if sigma_max is None else sigma_max
    times = time_map.by_names(schedule, scaling, low, high, epsilon_s)
    churn = len(sigmas) - 1, S_churn, S_min, S_max, S_noise
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churned(x, sigma, noise, round_sigma, *churn)
        denoised = denoise(x, sigma_hat)
        if callback is not None:
            callback(i, sigma_hat, x, denoised)
        t = times.inverse(sigma_hat)
        t_next = times.inverse(sigma_next) if sigma_next > 0 else 0.0
        h, scale_next = t_next - t, times.s(t_next) if sigma_next > 0 else 1.0
        state = times.s(t) * x
        d = _slope(times, t, x, denoised, sigma_hat)
        if solver == "heun" and sigma_next > 0:  # the slope does not exist at 0
            t_mid = t + alpha * h
            # alpha = 1 ends at a level that the model knows, without the rounding of a round trip
            sigma_mid = sigma_next if alpha == 1 else times.sigma(t_mid)
            x_mid = (state + alpha * h * d) / times.s(t_mid)
            d_mid = _slope(times, t_mid, x_mid, denoise(x_mid, sigma_mid), sigma_mid)
            d = (1 - 1 / (2 * alpha)) * d + d_mid / (2 * alpha)
        x = (state + h * d) / scale_next
        x = x if project is None else project(x, sigma_next)
    return x


def _slope(times: TimeMap, t: float, x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    """d(s x)/dt = (sigma'/sigma + s'/s) s x - (sigma' s/sigma) D. EDM, Algorithm 1, line 4."""
    rate, s = times.dsigma(t) / sigma, times.s(t)
    return (rate * s + times.ds(t)) * x - rate * s * denoised
