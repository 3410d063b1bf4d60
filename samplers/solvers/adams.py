"""Adams-Bashforth methods in sigma, exact for uneven steps: Hairer, Norsett and Wanner 1993, III.5.

The slope f = (x - D) / sigma is continued by the polynomial through its last values.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from diffusion.steps import slope
from samplers.solvers.interface import Callback, Noise, Project
from samplers.solvers.multistep import even_moments, quadrature_weights, weighted_sum


def adams(
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
    """Integrate the polynomial through the slopes of the last `order` levels.

    The first steps have fewer slopes and a lower order. A step to 0 is one like the others. Noise
    is not drawn.

    Args: those of `Solver`, and
        order: number of slopes, 1 to 4; 1 is Euler's method.
    """
    slopes: deque[Tensor] = deque(maxlen=order)  # the newest first, as their levels
    levels: deque[float] = deque(maxlen=order)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        slopes.appendleft(slope(x, denoised, sigma))
        levels.appendleft(sigma)
        step = sigma_next - sigma
        places = [(level - sigma) / step for level in levels]
        weights = quadrature_weights(places, even_moments(len(places)))
        x = x + step * weighted_sum(weights, slopes)
        x = x if project is None else project(x, sigma_next)
    return x
