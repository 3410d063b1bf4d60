"""DPM-Solver++, multistep, in x0: Lu et al. 2022b, Algorithm 2, and its form of order 3."""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from samplers.solvers.interface import Callback, Noise, Project
from samplers.solvers.log_snr_steps import exponential_step, kernel_moments


def dpmpp(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
    order: int = 3,
    lower_order_final: bool = True,
) -> Tensor:
    """Solve the ODE in log-SNR, with D continued from its last `order` values.

    The first steps have fewer values and a lower order. The step to 0 returns D. Noise is not
    drawn.

    Args: those of `Solver`, and
        order: number of values of D, 1 to 3; 1 is DDIM without noise.
        lower_order_final: at the end, take no higher order than there are steps left.
    """
    num_steps = len(sigmas) - 1
    values: deque[tuple[float, Tensor]] = deque(maxlen=order)  # levels and D, the newest first
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        values.appendleft((sigma, denoised))
        x_next = denoised
        if sigma_next > 0:
            used = list(values)[: num_steps - i if lower_order_final else order]
            x_next = exponential_step(x, sigma, sigma_next, used, published_moments)
        x = x_next if project is None else project(x_next, sigma_next)
    return x


def published_moments(h: float, count: int) -> list[float]:
    """What the published steps have in place of the kernel's moments.

    Order 2 has half the integral of the kernel for its first moment, order 3 half of the second
    moment.
    """
    moments = kernel_moments(h, count)
    if count == 2:
        moments[1] = moments[0] / 2
    if count == 3:
        moments[2] /= 2
    return moments
