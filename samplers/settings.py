"""Which sampler, how many steps, which grid: one flat mapping, as recipes and snapshots hold it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from samplers import GRIDS, SAMPLERS, SamplerRow
from torch_utils.errors import UserError, unknown_name
from torch_utils.registry import lookup, merge_options


@dataclass(frozen=True)
class SamplerSettings:
    """A sampler with everything it needs but a model.

    Attributes:
        name: key of SAMPLERS.
        steps: number of steps asked for.
        grid: options of the time grid.
        options: options of the sampler.
    """

    name: str
    steps: int
    grid: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def row(self) -> SamplerRow:
        """The sampler's registry row."""
        return SAMPLERS[self.name]

    def as_mapping(self) -> dict[str, Any]:
        """The flat form that `settings_from` reads."""
        return {"name": self.name, "steps": self.steps, **self.grid, **self.options}

    def sigmas(
        self, model_min: float, model_max: float, round_sigma: Callable[[float], float]
    ) -> list[float]:
        """The noise levels that are visited, ending in 0.

        Args:
            model_min, model_max: range of noise levels that the model accepts.
            round_sigma: nearest level that the model knows.

        Raises:
            UserError: the range is empty.
        """
        from diffusion.grids import clamp_range, finish_grid

        options = dict(self.grid)
        low, high = clamp_range(
            options.pop("sigma_min"), options.pop("sigma_max"), model_min, model_max
        )
        nodes: np.ndarray = GRIDS[self.row.grid].load()(self.steps, low, high, **options)
        levels: list[float] = finish_grid(nodes, round_sigma).tolist()
        return levels

    def bound(self) -> Callable[..., Any]:
        """The sampler function with its options filled in."""
        return partial(self.row.load(), **self.options)


def settings_from(mapping: Mapping[str, Any]) -> SamplerSettings:
    """Read the flat form: name, steps, and options of the grid and of the sampler side by side.

    Args:
        mapping: e.g. {"name": "heun", "steps": 18, "rho": 7, "S_churn": 40}; what is left out
            has its default.

    Raises:
        UserError: unknown sampler or option, a value of another type, or fewer than 1 step.
    """
    given = dict(mapping)
    name = given.pop("name", "heun")
    steps = given.pop("steps", 18)
    row = lookup("sampler", SAMPLERS, name)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise UserError(f"sampler {name}: steps is {steps!r}: it must be an integer of at least 1")
    grid_defaults = GRIDS[row.grid].options
    for key in given:
        if key not in grid_defaults and key not in row.options:
            raise unknown_name(f"option of sampler {name}:", key, [*grid_defaults, *row.options])
    owner = f"sampler {name}"
    grid = {key: value for key, value in given.items() if key in grid_defaults}
    options = {key: value for key, value in given.items() if key in row.options}
    return SamplerSettings(
        name,
        steps,
        merge_options(owner, grid_defaults, grid),
        merge_options(owner, row.options, options),
    )
