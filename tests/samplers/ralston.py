"""A sampler that is not registered: what adding one takes."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from diffusion.steps import slope
from samplers.solvers.interface import Callback, Noise, Project


def ralston(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
    share: float = 0.75,
) -> Tensor:
    """Ralston's method (1962) on the probability-flow ODE; `share` other than 3/4 spoils it."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        d = slope(x, denoised, sigma)
        if sigma_next > 0:
            inner = sigma + 2 / 3 * (sigma_next - sigma)
            ahead = x + (inner - sigma) * d
            d = (1 - share) * d + share * slope(ahead, denoise(ahead, inner), inner)
        x = x + (sigma_next - sigma) * d
        x = x if project is None else project(x, sigma_next)
    return x
