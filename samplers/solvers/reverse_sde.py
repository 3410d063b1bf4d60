"""The reverse SDE in sigma-time: dx = 2 f dsigma + sqrt(2 sigma) dW with f = (x - D) / sigma.

Song et al. 2021 ("Score SDE"), Eq. 6; the first two forms as in Daras et al. 2023 ("Consistent
Diffusion Models").
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from diffusion.steps import exact_std, frozen_std, reverse_sde_step, slope
from samplers.solvers.interface import Callback, Noise, Project


def reverse_sde(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
    corrector: str = "none",
    last_step: str = "denoise",
) -> Tensor:
    """Integrate the reverse SDE by Euler-Maruyama or with a second slope.

    Noise is drawn once a step, twice with the published corrector, but not in a step to 0 that
    denoises.

    Args: those of `Solver`, and
        corrector: none, of weak order 1. published: take the step again with the mean of both ends'
            slopes and fresh noise. The second slope does not know that noise: weak order 1.
            shared: take it again with the same noise, of the exact variance. This is Heun's
            method for additive noise, of weak order 2.
        last_step: denoise, the step to 0 returns D; or published, it is an Euler-Maruyama step,
            noise included, which overshoots: it leaves 2 D - x and noise of twice the variance.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        if sigma_next == 0 and last_step == "denoise":
            x_next = denoised
        else:
            std = (exact_std if corrector == "shared" else frozen_std)(sigma, sigma_next)
            d, fresh = slope(x, denoised, sigma), noise(x)
            x_next = reverse_sde_step(x, d, sigma, sigma_next, std, fresh)
            if corrector != "none" and sigma_next > 0:  # the slope does not exist at 0
                d_next = slope(x_next, denoise(x_next, sigma_next), sigma_next)
                if corrector == "published":
                    fresh = noise(x)
                x_next = reverse_sde_step(x, (d + d_next) / 2, sigma, sigma_next, std, fresh)
        x = x_next if project is None else project(x_next, sigma_next)
    return x
