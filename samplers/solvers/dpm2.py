"""DPM-Solver-2: Lu et al. 2022a ("DPM-Solver"), Algorithm 1 with r_1 = 1/2, in x = y + sigma n.

There the predicted noise is f = (x - D) / sigma and half the log-SNR is -ln(sigma), so that the
middle of a step is the geometric mean of its levels.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from diffusion.steps import slope
from samplers.solvers.interface import Callback, Noise, Project


def dpm2(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Follow the slope of each step's middle in log-SNR; the step to 0 is Euler's and returns D.

    Noise is not drawn. The level of the middle is rounded to one of the model's.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        x_next = denoised
        if sigma_next > 0:
            sigma_mid = round_sigma(math.sqrt(sigma * sigma_next))
            x_mid = x + (sigma_mid - sigma) * slope(x, denoised, sigma)
            d_mid = slope(x_mid, denoise(x_mid, sigma_mid), sigma_mid)
            x_next = x + (sigma_next - sigma) * d_mid
        x = x_next if project is None else project(x_next, sigma_next)
    return x
