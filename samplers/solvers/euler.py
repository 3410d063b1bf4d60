"""Euler's method on the probability-flow ODE: Karras et al. 2022 ("EDM"), Eq. 3."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from diffusion.steps import slope
from samplers.solvers.interface import Callback, Noise, Project


def euler(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Follow the slope of each step's start. The same numbers as DDIM without noise.

    Args:
        denoise: D(x, sigma).
        x: state at sigmas[0], [N, C, H, W].
        sigmas: strictly decreasing noise levels, n + 1 of them; the last is 0, or positive to
            stop early.
        noise: not used.
        round_sigma: not used.
        project: applied to the state after each step, with its noise level.
        callback: called with (step, sigma, x, D) after each evaluation.

    Returns:
        The state at sigmas[-1].
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        x = x + (sigma_next - sigma) * slope(x, denoised, sigma)
        x = x if project is None else project(x, sigma_next)
    return x
