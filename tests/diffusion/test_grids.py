"""Schedules go there and back; grids have the published nodes and stay in the model's range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion.grids import clamp_range, finish_grid, rho_grid
from diffusion.schedules import EDMSchedule
from torch_utils.errors import UserError


@given(st.floats(0, 1), st.floats(1e-4, 0.1), st.floats(1, 200), st.floats(1, 10))
def test_edm_schedule_round_trips(time: float, low: float, high: float, rho: float) -> None:
    schedule = EDMSchedule(low, high, rho)
    sigma = schedule.sigma(time)
    assert schedule.sigma(schedule.time(sigma)) == pytest.approx(sigma, rel=1e-9)
    assert schedule.time(sigma) == pytest.approx(time, abs=1e-6)


def test_the_grid_has_edms_nodes() -> None:
    grid = rho_grid(3, 0.002, 80.0, 7.0)
    middle = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    np.testing.assert_allclose(grid, [80.0, middle, 0.002], rtol=1e-12)


def test_one_step_goes_from_the_top_to_zero() -> None:
    assert finish_grid(rho_grid(1, 0.002, 80.0), float).tolist() == pytest.approx([80.0, 0.0])


def test_rounding_drops_repeated_levels_and_keeps_the_order() -> None:
    grid = finish_grid(np.array([3.2, 2.9, 2.6, 1.1]), round)  # type: ignore[arg-type]
    assert grid.tolist() == [3.0, 1.0, 0.0]


def test_the_range_is_cut_to_the_models() -> None:
    assert clamp_range(0.002, 80.0, 0.01, 50.0) == (0.01, 50.0)
    assert clamp_range(0.002, 80.0, 0.0, float("inf")) == (0.002, 80.0)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (-1.0, 1.0)])
def test_an_empty_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(UserError, match="sigma_min must be positive and below sigma_max"):
        clamp_range(low, high, 0.0, float("inf"))


def test_a_grid_has_a_step() -> None:
    with pytest.raises(UserError, match="at least 1"):
        rho_grid(0, 0.002, 80.0)
