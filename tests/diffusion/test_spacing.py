"""Grids over the steps of a schedule, and those of EDM's ablations: published nodes, range."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion import GRIDS, schedules
from diffusion.grids import SPACINGS, iddpm_grid, steps_grid, ve_grid, vp_grid
from diffusion.schedules import LogSNRCosine, Schedule
from diffusion.tables import beta_linear, iddpm
from torch_utils.errors import UserError

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "samplers.json"
PUBLISHED = {
    "uniform": "leading",
    "uniform-linspace": "linspace",
    "uniform-trailing": "trailing",
    "quad": "quad",
}
CASES = [case for case in json.loads(GOLDEN.read_text())["cases"] if "timesteps" in case]
LINEAR = beta_linear()
EVERYTHING = (0.0, math.inf)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_spacings_choose_the_published_timesteps(case) -> None:  # type: ignore[no-untyped-def]
    args = case["args"]
    indices = SPACINGS[PUBLISHED[args["skip_type"]]](1000, args["timesteps"])
    assert indices.tolist() == case["timesteps"]


@pytest.mark.parametrize(
    ("spacing", "steps", "num_different", "noisiest"),
    [
        ("leading", 10, 10, 900),
        ("leading", 300, 334, 999),
        ("leading", 400, 500, 998),
        ("leading", 600, 1000, 999),
        ("trailing", 300, 334, 999),
        ("linspace", 300, 300, 999),
        ("linspace", 1, 1, 0),
        ("quad", 50, 49, 800),
        ("quad", 1000, 688, 800),
        ("all", 7, 1000, 999),
        ("exact", 300, 300, 999),
        ("exact", 1000, 1000, 999),
        ("exact", 1, 1, 999),
    ],
)
def test_spacings_have_the_published_number_of_steps(
    spacing: str, steps: int, num_different: int, noisiest: int
) -> None:
    grid = steps_grid(steps, *EVERYTHING, levels=LINEAR, spacing=spacing)
    assert len(set(grid)) == num_different
    assert grid[0] == LINEAR.levels[noisiest]
    assert (np.diff(grid) <= 0).all()


@given(st.integers(1, 300), st.integers(0, 300))
def test_exact_spacing_has_as_many_steps_as_asked_for_in_even_strides(
    steps: int, more: int
) -> None:
    indices = SPACINGS["exact"](steps + more, steps)
    strides = np.diff([-1, *indices])
    assert len(indices) == steps
    assert indices[-1] == steps + more - 1
    assert strides.min() >= 1
    assert strides.max() - strides.min() <= 1
    even = (steps + more) / steps * np.arange(1, steps + 1) - 1
    assert np.abs(indices - even).max() <= 0.5 + 1e-9  # the nearest ones


def test_trailing_and_exact_agree_where_the_steps_divide_the_levels() -> None:
    for steps in (1, 2, 50, 250, 1000):
        assert (SPACINGS["exact"](1000, steps) == SPACINGS["trailing"](1000, steps)).all()


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing", "exact"])
def test_as_many_steps_as_levels_are_all_of_them(spacing: str) -> None:
    assert SPACINGS[spacing](1000, 1000).tolist() == list(range(1000))


def test_every_spacing_is_listed() -> None:
    assert set(GRIDS["steps"].choices["spacing"]) == set(SPACINGS)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "exact"])
def test_more_steps_than_levels_are_refused(spacing: str) -> None:
    with pytest.raises(UserError, match="steps is 1001: the schedule has only 1000 levels"):
        steps_grid(1001, *EVERYTHING, levels=LINEAR, spacing=spacing)


def test_times_of_a_continuous_schedule_are_even_and_start_at_its_end() -> None:
    schedule = LogSNRCosine()
    grid = steps_grid(4, schedule.sigma(0.0), schedule.sigma(1.0), levels=schedule)
    np.testing.assert_array_equal(grid, schedule.sigma(np.array([1.0, 0.75, 0.5, 0.25])))
    with pytest.raises(UserError, match="spacing quad chooses among the levels of a discrete"):
        steps_grid(4, *EVERYTHING, levels=schedule, spacing="quad")


@pytest.mark.parametrize("schedule", [LINEAR, LogSNRCosine(), iddpm()])
def test_levels_outside_the_models_range_are_left_out_before_spacing(schedule: Schedule) -> None:
    grid = steps_grid(10, 0.5, 20.0, levels=schedule)
    assert len(grid) == 10
    assert grid[0] == pytest.approx(20.0, rel=0.05)
    assert 0.5 <= grid.min() < 0.9
    assert grid.max() <= 20.0 * (1 + 1e-9)
    with pytest.raises(UserError, match="no noise level from 1e-07 to 1e-06"):
        steps_grid(10, 1e-7, 1e-6, levels=schedule)


@pytest.mark.parametrize("name", ["beta_linear", "beta_jsd", "iddpm", "logsnr_cosine", "vp", "edm"])
def test_a_schedules_own_range_leaves_nothing_out(name: str) -> None:
    schedule = schedules.create(name)
    low, high = float(schedule.sigma(0.0)), float(schedule.sigma(1.0))
    grid = steps_grid(100, low, high, levels=schedule)
    np.testing.assert_array_equal(grid, steps_grid(100, *EVERYTHING, levels=schedule))
    assert grid[0] == pytest.approx(high, rel=1e-12)


def test_default_ranges_of_the_ablations_are_the_published_ones() -> None:
    found = [(GRIDS[n].options["sigma_min"], GRIDS[n].options["sigma_max"]) for n in ("vp", "ve")]
    assert found[0] == pytest.approx((0.010486, 152.167), rel=1e-4)
    assert found[1] == (0.02, 100.0)
    assert GRIDS["iddpm"].options["sigma_max"] == 81.0


def test_the_vp_grid_has_even_times_of_the_fitted_schedule() -> None:
    low, high = (GRIDS["vp"].options[key] for key in ("sigma_min", "sigma_max"))
    grid = vp_grid(5, low, high, 1e-3)
    times = np.linspace(1, 1e-3, 5)
    np.testing.assert_allclose(
        grid, np.sqrt(np.expm1(19.9 / 2 * times**2 + 0.1 * times)), rtol=1e-9
    )
    fitted = vp_grid(7, 0.002, 80.0)  # a negative beta_min
    assert fitted[[0, -1]] == pytest.approx([80.0, 0.002])
    assert (np.diff(fitted) < 0).all()
    with pytest.raises(UserError, match="lower sigma_min or raise epsilon_s"):
        vp_grid(7, 0.5, 80.0)
    assert vp_grid(7, 0.5, 80.0, 0.1)[-1] == pytest.approx(0.5)


def test_the_ve_grid_is_geometric() -> None:
    assert ve_grid(3, 0.02, 100.0) == pytest.approx([100.0, math.sqrt(2), 0.02])


def test_the_iddpm_grid_chooses_among_its_levels() -> None:
    levels = iddpm().levels
    grid = iddpm_grid(5, 0.002, 81.0)
    inside = levels[levels <= 81.0][::-1]
    assert grid.tolist() == [inside[round(i / 4 * (len(inside) - 1))] for i in range(5)]
    assert grid[0] == pytest.approx(80.204, rel=1e-4)
    assert len(set(iddpm_grid(2000, 0.002, 81.0))) == len(inside)
    with pytest.raises(UserError, match="no noise level"):
        iddpm_grid(5, 1e-4, 2e-4)


@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_starts_a_single_step_at_the_top_and_refuses_none(name: str) -> None:
    row = GRIDS[name]
    options = {key: value for key, value in row.options.items() if "sigma" not in key}
    if name == "steps":
        options["levels"] = LINEAR
    (node,) = row.load()(1, 0.01, 80.0, **options)
    assert node == pytest.approx(80.0, rel=0.15)
    with pytest.raises(UserError, match="at least 1"):
        row.load()(0, 0.02, 80.0, **options)


def test_linspace_rounded_takes_the_nearest_indices() -> None:
    grid = steps_grid(5, *EVERYTHING, levels=LINEAR, spacing="linspace_rounded")
    assert grid.tolist() == LINEAR.levels[[999, 749, 500, 250, 0]].tolist()


def test_an_offset_moves_leading_indices_and_leaves_out_those_beyond_the_end() -> None:
    grid = steps_grid(4, *EVERYTHING, levels=LINEAR, spacing="leading", offset=1)
    assert grid.tolist() == LINEAR.levels[[751, 501, 251, 1]].tolist()
    grid = steps_grid(4, *EVERYTHING, levels=LINEAR, spacing="leading", offset=300)
    assert grid.tolist() == LINEAR.levels[[800, 550, 300]].tolist()
    with pytest.raises(UserError, match="offset 1 is for the spacing leading, not for exact"):
        steps_grid(4, *EVERYTHING, levels=LINEAR, offset=1)
    with pytest.raises(UserError, match="offset 1000 leads beyond the 1000 levels"):
        steps_grid(4, *EVERYTHING, levels=LINEAR, spacing="leading", offset=1000)
