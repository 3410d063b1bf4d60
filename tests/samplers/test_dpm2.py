"""DPM-Solver-2: the slope in the middle of a step in log-SNR."""

import torch

from samplers.solvers.dpm2 import dpm2
from tests.samplers.orders import forbidden, images


def test_a_step_follows_the_slope_at_the_geometric_mean_of_its_levels() -> None:
    """With D linear in sigma, for which the slope of the middle can be written down."""
    seen = []

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append((sigma, x.item()))
        return torch.full_like(x, sigma)

    found = dpm2(denoise, images(torch.zeros(1).double()), [8.0, 2.0, 0.0], noise=forbidden)
    # the first slope is (0 - 8) / 8 = -1: 4 at level 4, where the slope is 0
    assert seen == [(8.0, 0.0), (4.0, 4.0), (2.0, 0.0)]
    assert found.item() == 2.0  # the step to 0 returns D


def test_the_middle_is_a_level_of_the_model() -> None:
    levels = []

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        levels.append(sigma)
        return 0 * x

    x = images(torch.ones(1).double())
    found = dpm2(denoise, x, [8.0, 2.0], noise=forbidden, round_sigma=lambda sigma: 5.0)
    assert levels == [8.0, 5.0]
    assert found.item() == 0.25  # with D = 0 the flow is a line, whatever the middle
