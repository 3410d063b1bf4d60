"""Noise schedules against their formulas, there and back, for floats, arrays and tensors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion import SCHEDULES, schedules
from diffusion.schedules import LARGEST_SIGMA, LEAST_SIGMA, EDMSchedule, VPSchedule
from diffusion.tables import Table, beta_linear, from_betas, iddpm_levels
from torch_utils.errors import UserError

TABLES = [name for name in SCHEDULES if name.startswith("beta_") or name == "iddpm"]


@given(st.floats(1e-5, 1), st.floats(1, 30), st.floats(0.01, 1))
def test_vp_schedule_round_trips(time: float, beta_d: float, beta_min: float) -> None:
    schedule = VPSchedule(beta_d, beta_min)
    assert schedule.time(schedule.sigma(time)) == pytest.approx(time, rel=1e-9)


def test_vp_noise_is_the_integral_of_beta() -> None:
    # log(1 + sigma^2) is the integral of beta(t) = beta_min + beta_d t
    times = np.linspace(0, 1, 100_001)
    beta = 0.1 + 19.9 * times
    integral = np.trapezoid(beta, times)
    assert math.log1p(VPSchedule().sigma(1.0) ** 2) == pytest.approx(integral, rel=1e-9)
    assert VPSchedule().sigma(0.0) == LEAST_SIGMA
    assert VPSchedule().time(0.0) == 0


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


@pytest.mark.parametrize("name", SCHEDULES)
@given(time=st.floats(0, 1))
def test_every_schedule_goes_there_and_back(name: str, time: float) -> None:
    schedule = schedules.create(name)
    sigma = schedule.sigma(time)
    assert math.isfinite(sigma)
    assert schedule.least_sigma <= sigma <= LARGEST_SIGMA
    back = schedule.time(sigma)
    if schedule.least_sigma < sigma < LARGEST_SIGMA:
        assert back == pytest.approx(time, abs=1e-9)
    assert schedule.sigma(back) == pytest.approx(sigma, rel=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_noise_rises_with_time_and_ends_are_finite(name: str) -> None:
    schedule = schedules.create(name)
    sigma = schedule.sigma(np.linspace(0, 1, 1001))
    assert (np.diff(sigma) > 0).all()
    as_tensor = schedule.sigma(torch.linspace(0, 1, 1001, dtype=torch.float64))
    np.testing.assert_allclose(as_tensor.numpy(), sigma, rtol=1e-7)
    single = schedule.sigma(torch.linspace(0, 1, 11))
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.double().numpy(), sigma[::100], rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_inverse_is_differentiable(name: str) -> None:
    schedule = schedules.create(name)
    sigma = torch.as_tensor(schedule.sigma(np.array([0.31117, 0.73331])))
    _, slope = torch.func.jvp(schedule.time, (sigma,), (torch.ones_like(sigma),))
    step = 1e-6 * sigma
    numeric = (schedule.time(sigma + step) - schedule.time(sigma - step)) / (2 * step)
    torch.testing.assert_close(slope, numeric, rtol=1e-5, atol=1e-9)


# alpha_bar at indices 0, 500 and 999 of the published tables
@pytest.mark.parametrize(
    ("name", "first", "middle", "last"),
    [
        ("beta_linear", 0.9999, 0.077797, 4.0358e-5),
        ("beta_quad", 0.9999, 0.331275, 7.3341e-4),
        ("beta_const", 0.98, 4.0204e-5, None),
        ("beta_jsd", 0.999, 0.499, None),
        ("beta_sigmoid", 0.999851, 0.298878, 3.9682e-5),
    ],
)
def test_published_tables(name: str, first: float, middle: float, last: float | None) -> None:
    table = schedules.create(name)
    assert isinstance(table, Table)
    signal = 1 / (1 + table.levels**2)
    assert signal[0] == pytest.approx(first, rel=1e-6)
    assert signal[500] == pytest.approx(middle, rel=5e-5)
    if last is None:  # beyond the cap
        assert table.levels[-1] == pytest.approx(LARGEST_SIGMA)
    else:
        assert signal[999] == pytest.approx(last, rel=2e-5)


def test_cosine_betas_are_capped_and_agree_with_the_form_of_edm() -> None:
    ours, theirs = schedules.create("beta_cosine"), schedules.create("iddpm")
    assert isinstance(ours, Table)
    assert isinstance(theirs, Table)
    np.testing.assert_allclose(ours.levels, theirs.levels, rtol=1e-6)
    kept = (1 + ours.levels[:-1] ** 2) / (1 + ours.levels[1:] ** 2)
    assert kept.min() == pytest.approx(0.001, rel=1e-9)


# log-SNR at t = 0, 0.25, 0.5, 0.75, 1
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("logsnr_alpha2_linear", [20, 1.0986, 0, -1.0986, -20]),
        ("logsnr_linear", [20, 10, 0, -10, -20]),
        ("logsnr_cosine", [20, 1.7626, 0, -1.7626, -20]),
        ("logsnr_legacy", [20.7233, 0.0925, -2.4644, -5.6971, -10.1176]),
    ],
)
def test_published_log_snrs(name: str, expected: list[float]) -> None:
    log_snr = -2 * np.log(schedules.create(name).sigma(np.linspace(0, 1, 5)))
    np.testing.assert_allclose(log_snr, expected, atol=5e-5)


def test_the_legacy_schedule_keeps_its_digits_at_small_times() -> None:
    # ln(alpha^2) is the integral of 1000 ln(1 - b); float32 evaluation loses it altogether
    sigma = schedules.create("logsnr_legacy").sigma(np.array([1e-3, 1 / 256]))
    log_signal = -np.log1p(sigma**2)
    np.testing.assert_allclose(log_signal, [-1.1e-4, -5.4e-4], rtol=2e-2)
    table = beta_linear()
    times = (np.arange(1000) + 1) / 1000
    found = 1 / (1 + schedules.create("logsnr_legacy").sigma(times) ** 2)
    assert np.abs(found - 1 / (1 + table.levels**2)).max() < 1.2e-3


def test_flow_is_the_ratio_of_its_two_shares() -> None:
    flow = schedules.create("flow")
    assert flow.sigma(0.25) == pytest.approx(1 / 3)
    assert flow.sigma(1.0) == LARGEST_SIGMA
    assert flow.time(3.0) == 0.75


@pytest.mark.parametrize("name", TABLES)
def test_indices_of_a_table_are_exact_and_fractional_between(name: str) -> None:
    table = schedules.create(name)
    assert isinstance(table, Table)
    levels = torch.from_numpy(table.levels)
    torch.testing.assert_close(
        table.index(levels), torch.arange(table.num_steps, dtype=torch.float64), rtol=0, atol=1e-6
    )
    assert torch.equal(table.nearest(levels), torch.arange(table.num_steps))
    between = (levels[:-1] * levels[1:]).sqrt()
    torch.testing.assert_close(
        table.index(between),
        torch.arange(table.num_steps - 1, dtype=torch.float64) + 0.5,
        rtol=0,
        atol=1e-6,
    )
    torch.testing.assert_close(table.at(table.index(between)), between)


def test_a_table_goes_on_beyond_its_ends() -> None:
    table = Table(np.array([1.0, 2.0, 4.0]))
    assert table.index(torch.tensor([0.5, 8.0])).tolist() == [-1.0, 3.0]
    assert table.at(torch.tensor([-1.0, 3.0])).tolist() == pytest.approx([0.5, 8.0])


def test_a_table_goes_to_a_device_once_and_may_be_trained_with_afterwards() -> None:
    table, there = beta_linear(10), torch.empty(1, device="meta")
    with torch.inference_mode():  # as a sampler asks
        levels = table.log_levels(there)
    assert levels.device == there.device
    assert table.log_levels(there) is levels
    assert not levels.is_inference()


def test_the_nearest_level_is_the_noisier_one_of_equals() -> None:
    table = Table(np.array([1.0, 2.0, 4.0]))
    sigma = torch.tensor([[9.0, 3.0, 2.9], [1.5, 1.4, 0.1]], dtype=torch.float64)
    assert table.nearest(sigma).tolist() == [[2, 2, 1], [1, 0, 0]]
    assert [table.round(s) for s in (9.0, 3.0, 2.9, 1.5, 1.4, 0.1)] == [4, 4, 2, 2, 1, 1]


def test_levels_at_the_cap_keep_an_index_each() -> None:
    table = from_betas(np.full(2000, 0.02))
    assert table.levels[-1] == pytest.approx(LARGEST_SIGMA)
    levels = torch.from_numpy(table.levels).float()
    assert torch.equal(table.nearest(levels), torch.arange(2000))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("cosine", "did you mean"),
        ({"name": "beta_linear", "num_steps": 1}, "from 2 to 65536"),
        ({"name": "iddpm", "num_steps": 10**9}, "from 2 to 65536"),
        (
            {"name": "beta_linear", "beta_start": 0.5, "beta_end": 0.1},
            "must not be above beta_end=0.1",
        ),
        ({"name": "beta_const", "beta_end": 1.0}, "above 0 and below 1"),
        ({"name": "beta_cosine", "offset": -1.0}, "offset"),
        ({"name": "iddpm", "c_1": 2.0}, "c_1"),
        ({"name": "logsnr_cosine", "logsnr_max": 30.0}, "from -20 to 20"),
        ({"name": "logsnr_linear", "logsnr_min": 5.0, "logsnr_max": 1.0}, "below logsnr_max"),
        ({"name": "ve", "sigma_min": 0.0}, "positive"),
        ({"name": "ve", "sigma_min": 3.0, "sigma_max": 2.0}, "below sigma_max"),
        ({"name": "vp", "beta_d": -1.0}, "beta_d"),
        ({"name": "edm", "rho": 0.0}, "rho"),
        ({"name": "edm", "sigma_min": 80.0}, "below sigma_max"),
    ],
)
def test_impossible_schedules_are_refused(entry: str | dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        schedules.create(entry)


def test_a_schedule_is_made_from_its_name_and_options() -> None:
    assert schedules.create({"name": "edm", "rho": 5}) == EDMSchedule(rho=5.0)


def test_betas_may_be_given_one_by_one() -> None:
    betas = np.linspace(1e-4, 0.02, 1000).tolist()
    listed = schedules.create({"name": "beta_list", "betas": betas})
    assert isinstance(listed, Table)
    np.testing.assert_allclose(listed.levels, beta_linear().levels, rtol=1e-12)
    ended = schedules.create({"name": "beta_list", "betas": [0.5, 1.0]})
    assert ended.is_cut == (False, True)
    for wrong in ([0.5], [0.5, 0.0], [0.5, 1.5], [0.5, float("nan")], "betas", [0.5, True]):
        with pytest.raises(UserError, match=r"betas is .*: it must be a list of 2 to"):
            schedules.create({"name": "beta_list", "betas": wrong})
