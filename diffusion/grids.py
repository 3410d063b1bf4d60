"""Time grids: the decreasing noise levels that a sampler visits, as host float64 arrays.

A grid is built inside the model's range, then rounded to levels that the model knows and freed of
duplicates. Nodes are never clamped one by one. Karras et al. 2022 ("EDM"), Eq. 5 and Table 1; the
spacings of `steps` are those of DDPM, DDIM and v-diffusion.

With the end `zero` a grid has one level a step, and the last step goes to 0; with `sigma_min` it
has one level more, and the last step goes there.
"""

from collections.abc import Callable

import numpy as np

from diffusion import IDDPM_C_1, IDDPM_C_2, IDDPM_STEPS
from diffusion.schedules import EDMSchedule, Schedule
from diffusion.tables import Table, iddpm_levels
from diffusion.time_map import fit_vp
from torch_utils.errors import UserError

_ROUNDING = 1e-9  # a level this near to the end of the range, relative to it, is inside


def clamp_range(
    sigma_min: float, sigma_max: float, model_min: float, model_max: float
) -> tuple[float, float]:
    """Cut a range of noise levels to what the model accepts.

    Raises:
        UserError: the range is empty or not positive.
    """
    low, high = max(sigma_min, model_min), min(sigma_max, model_max)
    if not 0 < low < high < float("inf"):
        raise UserError(
            f"noise levels from sigma_min={low:g} to sigma_max={high:g}: "
            "sigma_min must be positive and below sigma_max"
        )
    return low, high


def rho_grid(
    num_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0, end: str = "zero"
) -> np.ndarray:
    """EDM's grid (Karras et al. 2022, Eq. 5) without the final zero.

    Args:
        num_steps: number of steps, at least 1; the first starts at `sigma_max`.
        sigma_min: last level.
        sigma_max: first level.
        rho: exponent of the schedule.
        end: zero, if a step from `sigma_min` to 0 is one of the steps; sigma_min, if there is none.

    Returns:
        float64, decreasing: num_steps levels, or one more if the end is sigma_min.

    Raises:
        UserError: num_steps < 1.
    """
    schedule = EDMSchedule(sigma_min, sigma_max, rho)
    return np.asarray(schedule.sigma(1 - _fractions(num_steps, end)), dtype=np.float64)


def log_sigma_grid(
    num_steps: int, sigma_min: float, sigma_max: float, end: str = "zero"
) -> np.ndarray:
    """ln(sigma) in even steps, as `ve_grid`; that is log-SNR, -2 ln(sigma), in even steps, too.

    Lu et al. 2022 ("DPM-Solver"), sec. 3.4. Arguments, result and errors are as of `rho_grid`.
    """
    return _geometric(sigma_min, sigma_max, _fractions(num_steps, end))


def _geometric(sigma_min: float, sigma_max: float, fractions: np.ndarray) -> np.ndarray:
    levels: np.ndarray = sigma_max * (sigma_min / sigma_max) ** fractions
    return levels


def _fractions(num_steps: int, end: str = "zero") -> np.ndarray:
    """i / (n - 1) for i = 0, ..., n - 1 of n levels; a single level has 0."""
    if num_steps < 1:
        raise UserError(f"steps is {num_steps}: a sampler needs at least 1")
    num_levels = num_steps if end == "zero" else num_steps + 1
    return np.arange(num_levels, dtype=np.float64) / max(num_levels - 1, 1)


def vp_grid(
    num_steps: int, sigma_min: float, sigma_max: float, epsilon_s: float = 1e-3
) -> np.ndarray:
    """Even times from 1 to epsilon_s of the VP schedule that is fitted to the range.

    Karras et al. 2022, Table 1, column VP. Arguments and result are as of `rho_grid`; `epsilon_s`
    is the smallest time.

    Raises:
        UserError: num_steps < 1, or the schedule does not grow from one end to the other.
    """
    schedule = fit_vp(sigma_min, sigma_max, epsilon_s)
    times = 1 + _fractions(num_steps) * (epsilon_s - 1)
    nodes = np.array([schedule.sigma(time) for time in times.tolist()])
    if not (np.diff(nodes) < 0).all():
        raise UserError(
            f"no VP schedule grows from sigma_min={sigma_min:g} at time {epsilon_s:g} to"
            f" sigma_max={sigma_max:g} at time 1: lower sigma_min or raise epsilon_s"
        )
    return nodes


def ve_grid(num_steps: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """ln(sigma) in even steps. Karras et al. 2022, Table 1, column VE.

    Arguments, result and errors are as of `rho_grid`.
    """
    return _geometric(sigma_min, sigma_max, _fractions(num_steps))


def iddpm_grid(
    num_steps: int,
    sigma_min: float,
    sigma_max: float,
    C_1: float = IDDPM_C_1,
    C_2: float = IDDPM_C_2,
    M: int = IDDPM_STEPS,
) -> np.ndarray:
    """Even steps among the levels of improved DDPM. Karras et al. 2022, Table 1, column iDDPM.

    Args:
        num_steps: number of levels, at least 1; if the schedule has fewer, some repeat.
        sigma_min, sigma_max: levels outside of this range are removed first.
        C_1: least ratio of successive alpha_bar.
        C_2: offset of the cosine.
        M: number of levels of the schedule.

    Returns:
        float64 [num_steps], not increasing.

    Raises:
        UserError: num_steps < 1, or no level is in the range.
    """
    levels = _inside(iddpm_levels(M, C_1, C_2), sigma_min, sigma_max)
    place = np.round(_fractions(num_steps) * (len(levels) - 1)).astype(int)
    chosen: np.ndarray = levels[place]
    return chosen


def _inside(levels: np.ndarray, sigma_min: float, sigma_max: float) -> np.ndarray:
    """The levels inside a range, in their order."""
    is_low, is_high = levels < sigma_min * (1 - _ROUNDING), levels > sigma_max * (1 + _ROUNDING)
    if (is_low | is_high).all():
        raise _no_levels(sigma_min, sigma_max)
    inside: np.ndarray = levels[~(is_low | is_high)]
    return inside


def _no_levels(sigma_min: float, sigma_max: float) -> UserError:
    return UserError(
        f"the schedule has no noise level from {sigma_min:g} to {sigma_max:g}, the range of the"
        " model: choose another schedule"
    )


def _stride(num_levels: int, num_steps: int) -> int:
    """Levels per step, rounded down."""
    if num_steps > num_levels:
        raise UserError(f"steps is {num_steps}: the schedule has only {num_levels} levels")
    return num_levels // num_steps


def _exact(num_levels: int, num_steps: int) -> np.ndarray:
    """num_steps indices from the last one on, in equal strides towards index -1."""
    _stride(num_levels, num_steps)
    place = np.arange(num_steps - 1, -1, -1)
    back: np.ndarray = (2 * place * num_levels + num_steps) // (2 * num_steps)
    return num_levels - 1 - back


def _quad(num_levels: int, num_steps: int) -> np.ndarray:
    squares = np.linspace(0, np.sqrt(0.8 * num_levels), num_steps) ** 2
    indices: np.ndarray = squares.astype(int)
    return indices


# (number of levels, number of steps) -> ascending indices as published, repetitions included;
# leading and trailing may have more than num_steps, linspace and quad fewer different ones
SPACINGS: dict[str, Callable[[int, int], np.ndarray]] = {
    "leading": lambda levels, steps: np.arange(0, levels, _stride(levels, steps)),
    "trailing": lambda levels, steps: np.arange(levels - 1, -1, -_stride(levels, steps))[::-1],
    "linspace": lambda levels, steps: np.linspace(0, levels - 1, steps).astype(int),
    "linspace_rounded": lambda levels, steps: np.rint(np.linspace(0, levels - 1, steps)).astype(
        int
    ),
    "quad": _quad,
    "all": lambda levels, _: np.arange(levels),
    "exact": _exact,
}


def steps_grid(
    num_steps: int,
    sigma_min: float,
    sigma_max: float,
    *,
    levels: Schedule,
    spacing: str = "exact",
    offset: int = 0,
) -> np.ndarray:
    """Some of the steps of a noise schedule.

    Args:
        num_steps: how many; `leading` and `trailing` may give more where that does not divide the
            number of levels, `linspace` and `quad` may repeat some, `all` gives every level.
        sigma_min, sigma_max: levels outside of this range are removed first.
        levels: the schedule. A continuous schedule has even times, (i + 1) / num_steps, and only
            the spacing `exact`; Salimans and Ho 2022, Algorithm 2 of the appendix.
        spacing: key of SPACINGS. leading: even strides in the index, from the least noise on.
            trailing: from the most noise on. linspace: even, with both ends, rounded down;
            linspace_rounded: to the nearest. quad: indices like
            squares, up to 0.8 of the schedule; Song et al. 2021 (DDIM), sec. D.2. exact: as
            trailing, but always num_steps levels.
        offset: added to the indices of the spacing leading; those beyond the last level are left
            out.

    Returns:
        float64, not increasing.

    Raises:
        UserError: num_steps < 1 or more than there are levels, a spacing that a continuous
            schedule does not have, or no level in the range.
    """
    _fractions(num_steps)
    if offset and spacing != "leading":
        raise UserError(f"offset {offset} is for the spacing leading, not for {spacing}")
    if isinstance(levels, Table):
        nodes = _inside(levels.levels, sigma_min, sigma_max)
        indices = SPACINGS[spacing](len(nodes), num_steps) + offset
        chosen: np.ndarray = nodes[indices[indices < len(nodes)]][::-1]
        if not len(chosen):
            raise UserError(f"offset {offset} leads beyond the {len(nodes)} levels: lower it")
        return chosen
    if spacing != "exact":
        raise UserError(
            f"spacing {spacing} chooses among the levels of a discrete schedule; this one is"
            " continuous: use exact"
        )
    first, last = float(levels.sigma(0.0)), float(levels.sigma(1.0))
    bottom = 0.0 if first >= sigma_min * (1 - _ROUNDING) else float(levels.time(sigma_min))
    top = 1.0 if last <= sigma_max * (1 + _ROUNDING) else float(levels.time(sigma_max))
    if not bottom < top:
        raise _no_levels(sigma_min, sigma_max)
    times = bottom + (top - bottom) * (np.arange(num_steps, 0, -1) / num_steps)
    return np.asarray(levels.sigma(times), dtype=np.float64)


def finish_grid(
    nodes: np.ndarray, round_sigma: Callable[[float], float], end: str = "zero"
) -> np.ndarray:
    """Round the nodes to the model's levels, drop repetitions and go on to the end.

    Args:
        nodes: decreasing positive levels, float64 [n].
        round_sigma: nearest level that the model knows.
        end: zero, to add a 0; sigma_min, to end at the last of the nodes.

    Returns:
        float64, strictly decreasing: m <= n levels, and 0 if that is the end.

    Raises:
        UserError: a single level is left, and the grid does not go on to 0.
    """
    rounded = np.array([round_sigma(float(sigma)) for sigma in nodes], dtype=np.float64)
    levels: np.ndarray = rounded[np.append(True, rounded[1:] < rounded[:-1])]
    if end == "zero":
        return np.append(levels, 0.0)
    if len(levels) < 2:
        raise UserError(f"end {end}: the model knows one level of the grid, and one is no step")
    return levels
