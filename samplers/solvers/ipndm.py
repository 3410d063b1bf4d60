"""Improved pseudo numerical methods: Zhang and Chen 2023 ("DEIS"), the method iPNDM.

Pseudo linear multistep steps of Liu et al. 2022 ("PNDM"), with lower orders at the start in place
of Runge-Kutta steps.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from diffusion.steps import slope
from samplers.solvers.interface import Callback, Noise, Project
from samplers.solvers.multistep import weighted_sum

# of slopes, the newest first, by their number: Adams and Bashforth for even steps
WEIGHTS = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def ipndm(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
    order: int = 4,
) -> Tensor:
    """Follow a weighted mean of the last slopes, with the weights of even steps on every grid.

    The first steps have fewer slopes and a lower order. A step to 0 is one like the others. Noise
    is not drawn.

    Args: those of `Solver`, and
        order: number of slopes, 1 to 4; 1 is Euler's method.
    """
    slopes: deque[Tensor] = deque(maxlen=order)  # the newest first
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        slopes.appendleft(slope(x, denoised, sigma))
        x = x + (sigma_next - sigma) * weighted_sum(WEIGHTS[len(slopes)], slopes)
        x = x if project is None else project(x, sigma_next)
    return x
