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

    Noise is not drawn.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        x = x + (sigma_next - sigma) * slope(x, denoised, sigma)
        x = x if project is None else project(x, sigma_next)
    return x
