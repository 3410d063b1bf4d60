"""Restart: Xu et al. 2023 ("Restart Sampling for Improving Generative Processes"), Algorithm 1."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from diffusion.steps import raise_noise
from samplers.restarts import DEFAULT_RESTARTS, Entry, restarts_after
from samplers.solvers.heun import heun
from samplers.solvers.interface import Callback, Noise, Project

RHO = 7.0  # of the way down from sigma_high


def restart(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
    restarts: Sequence[Entry] = DEFAULT_RESTARTS,
    S_noise: float = 1.0,
) -> Tensor:
    """Heun's method for the probability-flow ODE that goes back to some noise and comes down again.

    The fresh noise contracts the errors of the steps before. It is drawn once a repetition, nowhere
    else. Levels on the way down are rounded to the model's. The callback is called in a repetition,
    too, with the index of the step before it.

    Args: those of `Solver`, and
        restarts: entries [nodes, repetitions, sigma_low, sigma_high]; see `samplers.restarts`.
        S_noise: standard deviation of the added noise relative to the exact one.
    """

    def down(x: Tensor, levels: Sequence[float], i: int) -> Tensor:
        def numbered(_: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
            if callback is not None:
                callback(i, sigma, x, denoised)

        return heun(denoise, x, levels, noise=noise, project=project, callback=numbered)

    after = restarts_after(sigmas, restarts)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x = down(x, [sigma, sigma_next], i)
        for nodes, repetitions, _, high in after[i]:
            levels = way_down(int(nodes), high, sigma_next, round_sigma)
            for _ in range(int(repetitions)):
                x = raise_noise(x, S_noise * noise(x), sigma_next, levels[0])
                x = down(x, levels, i)
    return x


def way_down(
    nodes: int, high: float, low: float, round_sigma: Callable[[float], float]
) -> list[float]:
    """Levels in even steps of sigma^(1/7), rounded and without repetitions; `low` may be 0.

    EDM's grid, Karras et al. 2022, Eq. 5; `low` is a level of the sampler's grid, rounded already.
    """
    top, bottom = high ** (1 / RHO), low ** (1 / RHO)
    even = [(top + j / (nodes - 1) * (bottom - top)) ** RHO for j in range(1, nodes - 1)]
    rounded = {round_sigma(sigma) for sigma in [high, *even]}
    return [*sorted((sigma for sigma in rounded if sigma > low), reverse=True), low]
