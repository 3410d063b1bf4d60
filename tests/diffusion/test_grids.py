"""Schedules go there and back; grids have the published nodes and stay in the model's range."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion.grids import clamp_range, finish_grid, log_sigma_grid, rho_grid
from diffusion.schedules import EDMSchedule
from torch_utils.errors import UserError

Make = Callable[..., np.ndarray]


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


def test_even_steps_in_the_logarithm_have_a_constant_ratio() -> None:
    grid = log_sigma_grid(4, 0.01, 10.0)
    np.testing.assert_allclose(grid, [10.0, 1.0, 0.1, 0.01], rtol=1e-12)


@pytest.mark.parametrize("make", [rho_grid, log_sigma_grid], ids=lambda make: make.__name__)
def test_a_grid_that_ends_at_sigma_min_has_as_many_steps_without_one_to_zero(make: Make) -> None:
    zero = finish_grid(make(5, 0.002, 80.0, end="zero"), float, "zero")
    above = finish_grid(make(5, 0.002, 80.0, end="sigma_min"), float, "sigma_min")
    assert len(zero) == len(above) == 6
    assert (zero[0], *zero[-2:]) == pytest.approx((80.0, 0.002, 0.0))
    assert (above[0], above[-1]) == pytest.approx((80.0, 0.002))
    np.testing.assert_allclose(above, make(6, 0.002, 80.0), rtol=1e-12)


def test_a_model_that_knows_one_level_has_no_grid_that_ends_above_zero() -> None:
    with pytest.raises(UserError, match="one is no step"):
        finish_grid(rho_grid(3, 2.9, 3.1, end="sigma_min"), round, "sigma_min")  # type: ignore[arg-type]


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
