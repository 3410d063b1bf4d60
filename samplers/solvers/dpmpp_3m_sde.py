"""A three-step SDE-DPM-Solver++, the form of Lu et al. 2022b ("DPM-Solver++") with one more step.

The SDE and its exact part are in `samplers.solvers.sde_steps`.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from samplers.solvers.interface import Callback, Noise, Project
from samplers.solvers.sde_steps import SDEStep


def dpmpp_3m_sde(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
    eta: float = 1.0,
    S_noise: float = 1.0,
) -> Tensor:
    """Integrate a reverse SDE with the estimates of three steps; the step to 0 returns D.

    D is taken to change along the parabola through three estimates, in the second step along the
    line through two. As published, the parabola's curvature has half of the weight that the exact
    integral gives it, which limits the order to 2.

    Noise is drawn once a step if eta is not 0, but not in the step to 0.

    Args: those of `Solver`, and
        eta: amount of noise; 0 is the probability-flow ODE.
        S_noise: standard deviation of the noise relative to the exact one.
    """
    before: deque[tuple[Tensor, float]] = deque(maxlen=2)  # (D, length of its step), newest first
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        x_next = denoised
        if sigma_next > 0:
            step = SDEStep(sigma, sigma_next, eta)
            x_next = step.towards(x, denoised)
            if before:
                x_next = x_next + _change(step, denoised, *before)
            x_next = step.with_noise(x_next, noise, S_noise)
            before.appendleft((denoised, step.length))
        x = x_next if project is None else project(x_next, sigma_next)
    return x


def _change(step: SDEStep, denoised: Tensor, *before: tuple[Tensor, float]) -> Tensor:
    """What the change of D contributes, by divided differences of one or two earlier estimates."""
    (last, h_last), *older = before
    h, (_, linear, quadratic) = step.length, step.moments
    rate = (denoised - last) / h_last
    if not older:
        return linear * h * rate
    ((oldest, h_oldest),) = older
    bend = (rate - (last - oldest) / h_oldest) / (h_last + h_oldest)
    return linear * h * (rate + h_last * bend) + quadratic / 2 * h * h * bend
