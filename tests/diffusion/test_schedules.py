"""Noise schedules against their formulas, there and back, for floats, arrays and tensors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion.schedules import VPSchedule, iddpm_levels, nearest_index


@given(st.floats(1e-7, 1), st.floats(1, 30), st.floats(0.01, 1))
def test_vp_schedule_round_trips(time: float, beta_d: float, beta_min: float) -> None:
    schedule = VPSchedule(beta_d, beta_min)
    assert schedule.time(schedule.sigma(time)) == pytest.approx(time, rel=1e-9)


def test_vp_noise_is_the_integral_of_beta() -> None:
    # log(1 + sigma^2) is the integral of beta(t) = beta_min + beta_d t
    times = np.linspace(0, 1, 100_001)
    beta = 0.1 + 19.9 * times
    integral = np.trapezoid(beta, times)
    assert math.log1p(VPSchedule().sigma(1.0) ** 2) == pytest.approx(integral, rel=1e-9)
    assert VPSchedule().sigma(0.0) == 0 == VPSchedule().time(0.0)


def test_vp_schedule_takes_tensors_in_their_own_precision() -> None:
    times = np.array([1e-5, 1e-3, 0.5, 1.0])
    exact = VPSchedule().sigma(times)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        sigma = VPSchedule().sigma(torch.from_numpy(times).to(dtype))
        assert sigma.dtype == dtype
        np.testing.assert_allclose(sigma.double().numpy(), exact, rtol=tolerance)
        time = VPSchedule().time(torch.from_numpy(exact).to(dtype))
        np.testing.assert_allclose(time.double().numpy(), times, rtol=tolerance)


def test_iddpm_levels_are_the_published_ones() -> None:
    u = iddpm_levels()
    assert u.dtype == np.float64
    assert u.shape == (1001,)
    assert (np.diff(u) < 0).all()
    assert u[-1] == 0
    assert u[0] == pytest.approx(20291.17, abs=0.005)
    assert u[8] == pytest.approx(80.204, abs=5e-4)
    assert u[999] == pytest.approx(0.0064254, abs=5e-8)


def test_iddpm_levels_are_the_cosine_schedule_where_nothing_is_limited() -> None:
    # alpha_bar = 1 / (1 + sigma^2) is a squared sine up to a constant
    u, index = iddpm_levels(), np.arange(1001)
    sine = np.sin(0.5 * math.pi * index / 1008) ** 2
    np.testing.assert_allclose((1 / (1 + u**2))[2:], (sine / sine[-1])[2:], rtol=1e-9)


def test_iddpm_steps_remove_at_most_the_stated_share_of_the_signal() -> None:
    u = iddpm_levels(20, c_1=0.3)
    ratio = (1 + u[1:] ** 2) / (1 + u[:-1] ** 2)
    assert ratio.min() == pytest.approx(0.3)
    assert (ratio > 0.3 - 1e-12).all()


def test_the_nearest_entry_is_found_in_any_shape() -> None:
    levels = torch.tensor([4.0, 2.0, 1.0, 0.0])
    sigma = torch.tensor([[9.0, 3.0, 2.9], [1.5, 1.4, 0.1]], dtype=torch.float64)
    assert nearest_index(sigma, levels).tolist() == [[0, 0, 1], [1, 2, 3]]
    assert nearest_index(torch.tensor(1.1), levels).item() == 2
