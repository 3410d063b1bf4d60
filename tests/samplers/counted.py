"""EDM's time grid, which counts how often it is computed: a row of GRIDS may point here."""

import numpy as np

from diffusion.grids import rho_grid

CALLS: list[int] = []  # the number of steps of each call


def grid(
    num_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0, end: str = "zero"
) -> np.ndarray:
    """The same levels as `rho_grid`."""
    CALLS.append(num_steps)
    return rho_grid(num_steps, sigma_min, sigma_max, rho, end)
