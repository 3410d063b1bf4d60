"""Which sampler, how many steps, which grid: one flat mapping, as recipes and snapshots hold it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from samplers import GRIDS, SAMPLERS, SamplerRow
from torch_utils.errors import UserError, unknown_name
from torch_utils.registry import lookup

if TYPE_CHECKING:
    from diffusion.schedules import Schedule

MAX_STEPS = 100_000
Round = Callable[[float], float]

# the published name of the key `grid`, and of a grid; EDM's option --disc
_GRID_KEY = "discretization"
_GRID_NAMES = {"edm": "rho"}


@dataclass(frozen=True)
class SamplerSettings:
    """A sampler with everything it needs but a model.

    Attributes:
        name: key of SAMPLERS.
        steps: number of steps asked for.
        grid: options of the time grid.
        options: options of the sampler.
        grid_name: key of GRIDS.
    """

    name: str
    steps: int
    grid: Mapping[str, Any]
    options: Mapping[str, Any]
    grid_name: str

    @property
    def row(self) -> SamplerRow:
        """The sampler's registry row."""
        return SAMPLERS[self.name]

    def as_mapping(self) -> dict[str, Any]:
        """The flat form that `settings_from` reads; the grid is named if it is not the default."""
        flat: dict[str, Any] = {"name": self.name, "steps": self.steps}
        if self.grid_name != self.row.grid:
            flat["grid"] = self.grid_name
        return flat | {**self.options, **self.grid}

    def sigmas(
        self,
        model_min: float,
        model_max: float,
        round_sigma: Round,
        schedule: "Schedule | None" = None,
    ) -> list[float]:
        """The noise levels that are visited, ending in 0; arguments and errors as of `plan`."""
        return self.plan(model_min, model_max, round_sigma, schedule)[0]

    def plan(
        self,
        model_min: float,
        model_max: float,
        round_sigma: Round,
        schedule: "Schedule | None" = None,
    ) -> tuple[list[float], list[str]]:
        """The noise levels that are visited, ending in 0, and what differs from what was asked.

        Args:
            model_min, model_max: range of noise levels that the model accepts.
            round_sigma: nearest level that the model knows.
            schedule: the model's own, of which the grid `steps` takes the levels unless its
                options name another; for a model without one that of DDPM.

        Returns:
            (strictly decreasing levels, one line for each deviation).

        Raises:
            UserError: the range is empty, or the grid cannot have so many steps.
        """
        from diffusion import schedules
        from diffusion.grids import finish_grid
        from diffusion.schedules import LARGEST_SIGMA, LEAST_SIGMA

        options = {key: value for key, value in self.grid.items() if key not in _RANGE}
        low, high = self._range(model_min, model_max)
        notes = [
            f"{key} {self.grid[key]:g} cut to the model's {value:g}"
            for key, value in zip(_RANGE, (low, high), strict=True)
            if key in self.grid and self.grid[key] != value
        ]
        if "levels" in options and (options["levels"] is not None or schedule is None):
            options["levels"] = schedules.create(options["levels"] or "beta_linear")
        elif "levels" in options:
            options["levels"] = schedule
        nodes = GRIDS[self.grid_name].load()(self.steps, low, high, **options)
        levels: list[float] = finish_grid(nodes, round_sigma).tolist()
        found = len(levels) - 1
        if found != self.steps:
            reason = ": repeated noise levels left out" if found < len(nodes) else ""
            notes.append(f"{self.steps} steps asked for, {found} taken{reason}")
        chain = options.get("levels")
        is_cut = (low < LEAST_SIGMA, high > LARGEST_SIGMA) if chain is None else chain.is_cut
        notes += [*_cap_notes(levels, *is_cut), *_start_notes(levels[0], round_sigma(model_max))]
        return levels, notes

    def _range(self, model_min: float, model_max: float) -> tuple[float, float]:
        """The grid's range of noise levels within the model's; all of that, if it has none."""
        from diffusion.grids import clamp_range

        if "sigma_min" not in self.grid:
            return model_min, model_max
        return clamp_range(self.grid["sigma_min"], self.grid["sigma_max"], model_min, model_max)

    def bound(
        self,
        model_min: float = 0.0,
        model_max: float = float("inf"),
        steps_taken: int | None = None,
    ) -> Callable[..., Any]:
        """The sampler function with its options filled in.

        Args:
            model_min, model_max: range of noise levels that the model accepts; to it is cut what
                the sampler is told of the grid's range.
            steps_taken: steps of the grid it will get, where that may differ from those asked for.
        """
        options = dict(self.options)
        if options.get("S_churn") and steps_taken not in (None, self.steps):
            # spread over the steps asked for, as published; the sampler divides by those taken
            options["S_churn"] *= steps_taken / self.steps
        if set(_RANGE) & options.keys() & self.grid.keys():
            options |= dict(zip(_RANGE, self._range(model_min, model_max), strict=True))
        return partial(self.row.load(), **options)


_RANGE = ("sigma_min", "sigma_max")
_PURE_NOISE = 5.0  # there a hundredth of the variance is data, whose deviation is about 1/2


def _cap_notes(levels: list[float], is_cut_below: bool, is_cut_above: bool) -> list[str]:
    """A line for each end of a grid that the cap of the log-SNR cuts.

    Args:
        levels: decreasing, ending in 0.
        is_cut_below, is_cut_above: whether what was asked for goes beyond the cap there.
    """
    from diffusion.schedules import LARGEST_SIGMA, LEAST_SIGMA, MAX_LOG_SNR

    ends = [
        (is_cut_above, levels[0], LARGEST_SIGMA, "highest", "e^10", -MAX_LOG_SNR),
        (is_cut_below, levels[-2], LEAST_SIGMA, "lowest", "e^-10", MAX_LOG_SNR),
    ]
    return [
        f"the {which} noise level is cut to {power} = {cap:.5g}, where log-SNR is {log_snr:g}"
        for is_cut, level, cap, which, power, log_snr in ends
        if is_cut and math.isclose(level, cap, rel_tol=1e-3)  # a table's levels at the cap differ
    ]


def _start_notes(first: float, highest: float) -> list[str]:
    """A line if sampling starts where a state of nothing but noise is not what the model knows."""
    if first >= _PURE_NOISE or highest <= 2 * first:
        return []
    return [
        f"sampling starts at noise level {first:.3g}, too low for a start from nothing but noise: "
        "take more steps, another spacing or a higher sigma_max"
    ]


def chosen_grid(mapping: Mapping[str, Any]) -> str:
    """The grid that a flat mapping names, or its sampler's default.

    Args:
        mapping: with the key `grid` or, as published for EDM's ablations, `discretization`.

    Raises:
        UserError: an unknown sampler or grid, or two different ones.
    """
    row = lookup("sampler", SAMPLERS, mapping.get("name", "heun"))
    named = [mapping[key] for key in ("grid", _GRID_KEY) if mapping.get(key) is not None]
    names = {_GRID_NAMES.get(name, name) for name in map(str, named)} or {row.grid}
    if len(names) > 1:
        raise UserError(f"grid {named[0]} and {_GRID_KEY} {named[1]} contradict: give one of them")
    (name,) = names
    lookup("grid", GRIDS, name)
    return name


def unknown_option(sampler: str, grid: str, key: str, known: Iterable[str]) -> UserError:
    """The error for an option that neither a sampler nor its grid has, but another may.

    Args:
        sampler, grid: the chosen ones.
        key: the option that was given.
        known: those that it could have been.
    """
    owners = [f"grid {name}" for name, row in GRIDS.items() if key in row.options]
    owners += [f"sampler {name}" for name, row in SAMPLERS.items() if key in row.options]
    if owners:
        return UserError(
            f"{key} is an option of {', '.join(owners)}, not of sampler {sampler} on grid {grid}"
        )
    return unknown_name(f"option of sampler {sampler}:", key, known)


def settings_from(mapping: Mapping[str, Any]) -> SamplerSettings:
    """Read the flat form: name, steps, and options of the grid and of the sampler side by side.

    An option that both have has one value for both, by default the sampler's. None stands for
    an option that is not given.

    Args:
        mapping: e.g. {"name": "heun", "steps": 18, "rho": 7, "S_churn": 40}; what is left out
            has its default. `grid` chooses another grid than the sampler's usual one.

    Raises:
        UserError: unknown sampler, grid or option, a value of another type or that cannot be, or
            fewer than 1 step.
    """
    given = {key: value for key, value in mapping.items() if value is not None}
    name = given.pop("name", "heun")
    row = lookup("sampler", SAMPLERS, name)
    grid_name = chosen_grid(mapping)
    for key in ("grid", _GRID_KEY):
        given.pop(key, None)
    steps = given.pop("steps", None)
    is_count = isinstance(steps, int) and not isinstance(steps, bool) and 1 <= steps <= MAX_STEPS
    if steps is not None and not is_count:
        raise UserError(
            f"sampler {name}: steps is {steps!r}: it must be an integer of at least 1 and at most"
            f" {MAX_STEPS}"
        )
    grid_defaults = {
        key: default if row.options.get(key) is None else row.options[key]
        for key, default in GRIDS[grid_name].options.items()
    }
    defaults = {key: grid_defaults.get(key, default) for key, default in row.options.items()}
    for key in given:
        if key not in grid_defaults and key not in defaults:
            raise unknown_option(name, grid_name, key, [*grid_defaults, *defaults])
    owner = f"sampler {name}"
    grid = {key: value for key, value in given.items() if key in grid_defaults}
    options = {key: value for key, value in given.items() if key in defaults}
    grid = replace(GRIDS[grid_name], options=grid_defaults).resolve(owner, grid)
    options = replace(row, options=defaults).resolve(owner, options)
    num_steps = row.steps(options) if steps is None else steps
    return SamplerSettings(name, num_steps, grid, options, grid_name)
