"""Implicit models: Song et al. 2021 ("DDIM"), Eq. 12 and 16.

Over even times of a log-SNR schedule this is the sampler of Salimans and Ho 2022, Eq. 8.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from diffusion.steps import ddim_step
from samplers.solvers.interface import Callback, Noise, Project


def ddim(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
    eta: float = 0.0,
    clip_x0: bool = False,
) -> Tensor:
    """Keep the direction of the noise and replace a share of it by fresh noise.

    A repeated noise level is a step that changes nothing. Noise is drawn once a step if eta is not
    0, but not in a step to 0, which returns D.

    Args: those of `Solver`, and
        eta: 0 is deterministic, 1 is ancestral sampling with the small variance.
        clip_x0: clip D to [-1, 1] where it stands for the image, but not in the direction of the
            noise, as the library diffusers does.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        fresh = noise(x) if eta and sigma_next else None
        image = denoised.clamp(-1, 1) if clip_x0 else None
        x = ddim_step(x, denoised, sigma, sigma_next, eta, fresh, image)
        x = x if project is None else project(x, sigma_next)
    return x
