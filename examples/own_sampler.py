"""A sampler of one's own: a function and a row make it a name, for Python and command lines alike.

python examples/own_sampler.py RUN|SNAPSHOT
"""

import math
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

import driftless
from diffusion.denoiser import DenoiseFunction
from samplers import SAMPLERS, SamplerRow
from samplers.solvers.interface import Callback, Noise, Project


def dpm_solver(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M): two steps' estimates, one call a step. Lu et al. 2022, Algorithm 2."""
    before, h_before = None, math.nan
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = target = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        if sigma_next > 0:
            h = math.log(sigma / sigma_next)
            if before is not None:
                target = denoised + h / (2 * h_before) * (denoised - before)
            before, h_before = denoised, h
        x = target + sigma_next / sigma * (x - target)
        x = x if project is None else project(x, sigma_next)
    return x


SAMPLERS["dpm_solver"] = SamplerRow(
    target=f"{__name__}:dpm_solver",
    summary="DPM-Solver++(2M)",
    grid="rho",
    order=2,
    num_calls=lambda num_steps, options, to_zero: num_steps,
    least_steps=1,
    is_stochastic=lambda options: False,
    paper="Lu et al. 2022, Algorithm 2",
)

model = driftless.load(sys.argv[1])
exact = model.sample(range(8), sampler="heun", steps=64)
for name, steps in (("euler", 15), ("heun", 8), ("dpm_solver", 15)):
    calls = SAMPLERS[name].num_calls(steps, SAMPLERS[name].options, True)
    images = model.sample(range(8), sampler=name, steps=steps)
    print(f"{name:<10} {calls} calls   error {(images - exact).square().mean().sqrt():.4f}")
