"""Time grids: the decreasing noise levels that a sampler visits, as host float64 arrays.

A grid is built inside the model's range, then rounded to levels that the model knows and freed of
duplicates. Nodes are never clamped one by one.
"""

from collections.abc import Callable

import numpy as np

from diffusion.schedules import EDMSchedule
from torch_utils.errors import UserError


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


def rho_grid(num_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> np.ndarray:
    """EDM's grid (Karras et al. 2022, Eq. 5) without the final zero.

    Args:
        num_steps: number of levels, at least 1; a single step starts at `sigma_max`.
        sigma_min: last level.
        sigma_max: first level.
        rho: exponent of the schedule.

    Returns:
        float64 [num_steps], decreasing.

    Raises:
        UserError: num_steps < 1 or rho <= 0.
    """
    if num_steps < 1:
        raise UserError(f"steps is {num_steps}: a sampler needs at least 1")
    if not rho > 0:
        raise UserError(f"rho is {rho}: it must be positive")
    schedule = EDMSchedule(sigma_min, sigma_max, rho)
    times = 1 - np.arange(num_steps, dtype=np.float64) / max(num_steps - 1, 1)
    return np.asarray(schedule.sigma(times), dtype=np.float64)


def finish_grid(nodes: np.ndarray, round_sigma: Callable[[float], float]) -> np.ndarray:
    """Round the nodes to the model's levels, drop repetitions and end in 0.

    Args:
        nodes: decreasing positive levels, float64 [n].
        round_sigma: nearest level that the model knows.

    Returns:
        float64 [m + 1] with m <= n, strictly decreasing, the last entry 0.
    """
    rounded = np.array([round_sigma(float(sigma)) for sigma in nodes], dtype=np.float64)
    keep = np.append(True, rounded[1:] < rounded[:-1])
    return np.append(rounded[keep], 0.0)
