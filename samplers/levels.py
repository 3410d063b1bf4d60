"""Settings within the range of a model: the noise levels that are visited, and the solver."""

import math
from collections.abc import Callable
from functools import partial

from diffusion import GRIDS, schedules
from diffusion.grids import clamp_range, finish_grid
from diffusion.schedules import LARGEST_SIGMA, LEAST_SIGMA, MAX_LOG_SNR, Schedule
from samplers.settings import GenerationSettings
from samplers.solvers.interface import Solver

_RANGE = ("sigma_min", "sigma_max")
_PURE_NOISE = 5.0  # data, with a deviation of about 1/2, is a hundredth of the variance here


def visited_levels(
    settings: GenerationSettings,
    model_min: float,
    model_max: float,
    round_sigma: Callable[[float], float],
    schedule: Schedule | None = None,
) -> tuple[list[float], list[str]]:
    """The noise levels that are visited, and what differs from what was asked.

    Args:
        settings: with the grid.
        model_min, model_max: range of noise levels that the model accepts.
        round_sigma: nearest level that the model knows.
        schedule: the model's own, or None. The grid `steps` takes its levels from the schedule
            that its options name, else from this one, else from DDPM's.

    Returns:
        (strictly decreasing levels, the last of them 0 unless the grid has another end; one line
        for each deviation).

    Raises:
        UserError: the range is empty, or the grid cannot have so many steps.
    """
    options = {key: value for key, value in settings.grid.items() if key not in _RANGE}
    low, high = _range(settings, model_min, model_max)
    notes = [
        f"{key} {settings.grid[key]:g} cut to the model's {value:g}"
        for key, value in zip(_RANGE, (low, high), strict=True)
        if key in settings.grid and settings.grid[key] != value
    ]
    if "levels" in options and (options["levels"] is not None or schedule is None):
        options["levels"] = schedules.create(options["levels"] or "beta_linear")
    elif "levels" in options:
        options["levels"] = schedule
    nodes = GRIDS[settings.grid_name].load()(settings.steps, low, high, **options)
    end = settings.grid_end
    levels: list[float] = finish_grid(nodes, round_sigma, end).tolist()
    found = len(levels) - 1
    if found != settings.steps:
        reason = ": repeated noise levels left out" if found < len(nodes) - (end != "zero") else ""
        notes.append(f"{settings.steps} steps asked for, {found} taken{reason}")
    chain = options.get("levels")
    is_cut = (low < LEAST_SIGMA, high > LARGEST_SIGMA) if chain is None else chain.is_cut
    notes += [*_cap_notes(levels, *is_cut), *_start_notes(levels[0], round_sigma(model_max))]
    return levels, notes


def _range(settings: GenerationSettings, model_min: float, model_max: float) -> tuple[float, float]:
    """The part of the model's noise levels that the grid asks for; by default all of them."""
    if "sigma_min" not in settings.grid:
        return model_min, model_max
    return clamp_range(settings.grid["sigma_min"], settings.grid["sigma_max"], model_min, model_max)


def solver_of(
    settings: GenerationSettings,
    model_min: float = 0.0,
    model_max: float = math.inf,
    steps_taken: int | None = None,
) -> Solver:
    """The sampler function with its options filled in.

    Args:
        settings: with the sampler.
        model_min, model_max: range of noise levels that the model accepts. If the sampler
            itself has a range among its options, it gets the part within the model's.
        steps_taken: number of steps of its grid, if that may differ from what was asked for.
    """
    options = dict(settings.options)
    if options.get("S_churn") and steps_taken not in (None, settings.steps):
        # spread over the steps asked for, as published; the sampler divides by those taken
        options["S_churn"] *= steps_taken / settings.steps
    if set(_RANGE) & options.keys() & settings.grid.keys():
        options |= dict(zip(_RANGE, _range(settings, model_min, model_max), strict=True))
    return partial(settings.row.load(), **options)


def _cap_notes(levels: list[float], is_cut_below: bool, is_cut_above: bool) -> list[str]:
    """A line for each end of a grid that the cap of the log-SNR cuts.

    Args:
        levels: decreasing; the last may be 0.
        is_cut_below, is_cut_above: whether what was asked for goes beyond the cap there.
    """
    lowest = levels[-1] or levels[-2]
    ends = [
        (is_cut_above, levels[0], LARGEST_SIGMA, "highest", "e^10", -MAX_LOG_SNR),
        (is_cut_below, lowest, LEAST_SIGMA, "lowest", "e^-10", MAX_LOG_SNR),
    ]
    return [
        f"the {which} noise level is cut to {power} = {cap:.5g}, where log-SNR is {log_snr:g}"
        for is_cut, level, cap, which, power, log_snr in ends
        if is_cut and math.isclose(level, cap, rel_tol=1e-3)  # a table's levels at the cap differ
    ]


def _start_notes(first: float, highest: float) -> list[str]:
    """A line if sampling starts at a level where the model expects visible data, not pure noise."""
    if first >= _PURE_NOISE or highest <= 2 * first:
        return []
    return [
        f"sampling starts at noise level {first:.3g}, too low for a start from nothing but noise: "
        "take more steps, another spacing or a higher sigma_max"
    ]
