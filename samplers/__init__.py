"""Samplers: functions over a decreasing grid of noise levels, and the table that lists them.

Adding one is a function with the signature of `samplers.heun.heun` and a row in SAMPLERS. The
table is torch-free; functions are imported when used.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch_utils.registry import Row


@dataclass(frozen=True, kw_only=True)
class SamplerRow(Row):
    """A registered sampler.

    Attributes:
        grid: key of GRIDS, the default time grid.
        order: formal order of the solver in its own variable.
        num_calls: number of denoiser calls for n steps.
        is_stochastic: from the options, whether the sampler draws noise.
        paper: where it comes from.
    """

    grid: str
    order: float
    num_calls: Callable[[int], int]
    is_stochastic: Callable[[Mapping[str, object]], bool]
    paper: str


GRIDS = {
    "rho": Row(
        target="diffusion.grids:rho_grid",
        options={"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0},
        summary="sigma^(1/rho) in even steps; Karras et al. 2022, Eq. 5",
    ),
}

SAMPLERS = {
    "heun": SamplerRow(
        target="samplers.heun:heun",
        options={"S_churn": 0.0, "S_min": 0.0, "S_max": math.inf, "S_noise": 1.0},
        summary="Heun's method with optional churn",
        grid="rho",
        order=2,
        num_calls=lambda num_steps: 2 * num_steps - 1,
        is_stochastic=lambda options: options["S_churn"] != 0,
        paper="Karras et al. 2022 (EDM), Algorithm 2",
    ),
}
