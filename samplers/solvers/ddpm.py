"""Ancestral sampling: Ho et al. 2020 ("DDPM"), Algorithm 2.

Over even times of a log-SNR schedule this is the sampler of Salimans and Ho 2022.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from diffusion.steps import VARIANCES, ancestral_step
from samplers.solvers.interface import Callback, Noise, Project


def ddpm(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
    variance: str = "small",
    fraction: float = 0.0,
) -> Tensor:
    """Draw each state from the posterior of its neighbour, with D in the place of the data.

    DDPM, Eq. 6-7 and sec. 3.2; Nichol and Dhariwal 2021, Eq. 15.

    A repeated noise level is a step that changes nothing. Noise is drawn once a step, but not in a
    step to 0, which returns D.

    Args: those of `Solver`, and
        variance: small (exact for a point mass), large (exact for unit normals; in DDPM's terms
            beta-tilde and beta) or interpolated.
        fraction: of the interpolation between their logarithms; 0 is small, 1 is large.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        if sigma_next == 0:
            x = denoised
        else:
            spread = VARIANCES[variance](sigma, sigma_next, fraction)
            x = ancestral_step(x, denoised, sigma, sigma_next, spread, noise(x))
        x = x if project is None else project(x, sigma_next)
    return x
