"""Whether a solver is stable with few steps: tried on Gaussian data, whose right answer is known.

An explicit solver of the reverse SDE amplifies noise if its steps are too long, until only noise is
left. That depends on the solver, its options and the grid, and hardly on the data. So a trial with
numbers in place of images shows it before the work.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from samplers.levels import solver_of, visited_levels
from samplers.settings import GenerationSettings
from samplers.solvers.interface import Solver
from torch_utils.errors import UserError

# standard deviations of the data: of directions in which images in [-1, 1] vary little
DATA_STDS = (0.005, 0.01, 0.02, 0.05, 0.1)
VISIBLE = 0.25  # excess deviation from which images are noisy to the eye
_SAMPLES = 256  # of each; deviations are found to 5%
_MOST_STEPS = 1000  # to look for a number of steps that suffices

Range = tuple[float, float, Callable[[float], float], Any]  # as of `visited_levels`


def excess_noise(sampler: Solver, sigmas: Sequence[float]) -> float:
    """The largest excess of the result's standard deviation over the data's.

    Args:
        sampler: with its options filled in.
        sigmas: noise levels, decreasing.

    Returns:
        The excess in data range [-1, 1], the worst over Gaussian data of `DATA_STDS`; inf if
        numbers overflow.
    """
    generator = torch.Generator().manual_seed(0)
    stds = torch.tensor(DATA_STDS, dtype=torch.float64).repeat_interleave(_SAMPLES)
    variance = stds.square().reshape(-1, 1, 1, 1)

    def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
        return variance / (variance + sigma * sigma) * x

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    start = noise(variance) * (variance + sigmas[0] ** 2).sqrt()
    found = sampler(denoise, start, list(sigmas), noise=noise).reshape(-1, _SAMPLES)
    right = (stds[::_SAMPLES].square() + sigmas[-1] ** 2).sqrt()
    excess = float((found.square().mean(1).sqrt() - right).max())
    return excess if math.isfinite(excess) else math.inf


def is_unstable(settings: GenerationSettings, model: Range) -> bool:
    """Whether the images of a sampler would be visibly noisy, whatever the model.

    Args:
        settings: the sampler with its grid.
        model: sigma_min, sigma_max, round_sigma and schedule of the model.

    Raises:
        UserError: the grid cannot be made.
    """
    sigmas, _ = visited_levels(settings, *model)
    sampler = solver_of(settings, model[0], model[1], len(sigmas) - 1)
    return excess_noise(sampler, sigmas) > VISIBLE


def least_steps(settings: GenerationSettings, model: Range) -> int | None:
    """The smallest number of steps, above that of the settings, with which a sampler is stable.

    Args:
        settings, model: as of `is_unstable`.

    Returns:
        The number, exact below 20 and to a tenth above; None if the search ends without one.
    """
    steps = settings.steps
    while (steps := steps + max(1, steps // 10)) <= _MOST_STEPS:
        try:
            if not is_unstable(settings.model_copy(update={"steps": steps}), model):
                return steps
        except UserError:  # the model has not so many levels
            return None
    return None
