"""SDE-DPM-Solver++(2M): Lu et al. 2022b ("DPM-Solver++"), appendix B, in x = y + sigma n.

The SDE and its exact part are in `samplers.solvers.sde_steps`.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from samplers.solvers.interface import Callback, Noise, Project
from samplers.solvers.sde_steps import SDEStep


def dpmpp_2m_sde(
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
    solver_type: str = "midpoint",
) -> Tensor:
    """Integrate a reverse SDE with the estimates of two steps; the step to 0 returns D.

    D is taken to change as fast as it did from the step before to this one.

    Noise is drawn once a step if eta is not 0, but not in the step to 0.

    Args: those of `Solver`, and
        eta: amount of noise; 0 is DPM-Solver++(2M) for the probability-flow ODE.
        S_noise: standard deviation of the noise relative to the exact one.
        solver_type: heun integrates the line through both estimates exactly; midpoint gives the
            change half the weight of D.
    """
    before, length_before = None, 0.0
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        x_next = denoised
        if sigma_next > 0:
            step = SDEStep(sigma, sigma_next, eta)
            constant, linear, _ = step.moments
            x_next = step.towards(x, denoised)
            if before is not None:
                weight = constant / 2 if solver_type == "midpoint" else linear
                x_next = x_next + weight * step.length / length_before * (denoised - before)
            before, length_before = denoised, step.length
            x_next = step.with_noise(x_next, noise, S_noise)
        x = x_next if project is None else project(x_next, sigma_next)
    return x
