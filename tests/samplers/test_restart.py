"""Restart: where it goes back, how it comes down again, what it costs, and how it is asked for."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import yaml

from diffusion.grids import rho_grid
from samplers import SAMPLERS
from samplers.command_line import settings_of
from samplers.levels import solver_of, visited_levels
from samplers.restarts import DEFAULT_RESTARTS, restarts_after
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from samplers.solvers.heun import heun
from samplers.solvers.restart import restart
from tests.samplers.orders import (
    Draws,
    final_variance,
    fitted_order,
    images,
    zeros,
)
from tests.samplers.test_generate import model
from torch_utils.errors import UserError

LEVELS = [10.0, 4.0, 1.0, 0.2, 0.05, 0.0]


def shrink(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
    """D of unit Gaussian data."""
    return x / (1 + sigma * sigma)


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [
        (1.2, 5.0, 1),  # ends at 1
        (0.14, 0.3, 2),  # ends at 0.2
        (0.001, 0.3, 4),  # ends at 0
        (7.5, 12.0, None),  # nearest to the first level, where no step ends
        (0.7, 0.9, None),  # nearest to 1, above sigma_high
    ],
)
def test_a_restart_follows_the_step_that_ends_nearest_to_its_low_level(
    low: float, high: float, step: int | None
) -> None:
    entry = [3, 1, low, high]
    found = restarts_after(LEVELS, [entry])
    assert found == [[entry] if i == step else [] for i in range(5)]


def test_each_repetition_draws_once_and_comes_down_over_its_nodes() -> None:
    seen: list[tuple[int, float]] = []
    noise = zeros()
    restarts = [[4, 2, 0.14, 0.3], [2, 1, 4.0, 6.0], [2, 3, 0.18, 5.0]]
    restart(
        shrink,
        images(torch.ones(2, dtype=torch.float64)),
        LEVELS,
        noise=noise,
        restarts=restarts,
        callback=lambda i, sigma, x, denoised: seen.append((i, sigma)),
    )
    way = rho_grid(4, 0.2, 0.3)[:-1].tolist()
    inner = {0: [6.0], 2: [*way, *way, 5.0, 5.0, 5.0]}
    expected = [(i, s) for i in range(5) for s in [LEVELS[i], *inner.get(i, [])]]
    assert [i for i, _ in seen] == [i for i, _ in expected]
    assert [s for _, s in seen] == pytest.approx([s for _, s in expected], rel=1e-12)
    assert noise.calls == 2 + 1 + 3


def test_noise_raises_the_variance_from_level_to_level() -> None:
    """With D = 0 the state shrinks as its level, so that the noise added can be read off."""
    out = restart(
        lambda x, sigma: torch.zeros_like(x),
        images(torch.zeros(1, dtype=torch.float64)),
        [4.0, 1.0, 0.5],
        noise=Draws([1.0, 1.0]),
        restarts=[[5, 2, 1.0, 3.0]],
        S_noise=1.5,
    )
    added = 1.5 * math.sqrt(3.0**2 - 1.0**2)
    assert out.item() == pytest.approx((added / 3 + added) / 3 * 0.5)


def test_without_restarts_it_is_heuns_method() -> None:
    x = images(torch.linspace(-9, 9, 5, dtype=torch.float64))
    without = restart(shrink, x, LEVELS, noise=torch.randn_like, restarts=[])
    assert torch.equal(without, heun(shrink, x, LEVELS, noise=torch.randn_like))


def test_levels_on_the_way_down_are_the_models() -> None:
    seen = []
    restart(
        shrink,
        images(torch.zeros(1, dtype=torch.float64)),
        LEVELS,
        noise=zeros(),
        round_sigma=lambda sigma: round(sigma, 1),
        restarts=[[9, 1, 0.2, 0.41]],
        callback=lambda i, sigma, x, denoised: seen.append(sigma),
    )
    assert seen == [10.0, 4.0, 1.0, 0.4, 0.3, 0.2, 0.05]


def test_the_projection_is_applied_on_the_way_down_too() -> None:
    seen: list[float] = []

    def project(x: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append(sigma)
        return torch.full_like(x, sigma)

    start = images(torch.ones(1, dtype=torch.float64))
    chosen: dict[str, Any] = {"noise": zeros(), "project": project, "restarts": [[3, 1, 1.0, 2.0]]}
    assert restart(shrink, start, [4.0, 1.0, 0.5], **chosen).item() == 0.5
    assert seen == pytest.approx([1.0, rho_grid(3, 1.0, 2.0)[1], 1.0, 0.5])


@pytest.mark.parametrize("S_noise", [1.0, 1.1])
def test_the_law_converges_with_order_2_if_restarts_have_more_nodes_too(S_noise: float) -> None:
    """In the limit, noise adds to the variance and the flow scales it with the exact one."""
    low, high, end, std = 1.0, 3.0, 0.5, 0.4
    at_low, at_high = (std**2 + level**2 for level in (low, high))
    variance = at_low
    for _ in range(2):
        variance = (variance + S_noise**2 * (high**2 - low**2)) * at_low / at_high
    exact = variance * (std**2 + end**2) / at_low
    errors = []
    for n in (8, 16, 32):
        sigmas = [*rho_grid(n + 1, low, 5.0).tolist(), *rho_grid(n + 1, end, low).tolist()[1:]]
        found = final_variance(
            restart,
            sigmas,
            std,
            5.0**2 + std**2,
            restarts=[[n + 1, 2, low, high]],
            S_noise=S_noise,
        )
        errors.append(abs(found / exact - 1))
    assert fitted_order((8, 16, 32), errors) == pytest.approx(2, abs=0.15)


def test_a_restart_contracts_the_error_of_the_state() -> None:
    """Twice the variance at the start: what is left of it shrinks by at_low / at_high each time."""
    std, low, high = 0.4, 1.0, 3.0
    sigmas = [*rho_grid(65, low, 5.0).tolist(), *rho_grid(65, 0.1, low).tolist()[1:]]
    start, end = 2 * (5.0**2 + std**2), 0.1**2 + std**2
    for repetitions in (1, 2):
        entry = [65, repetitions, low, high]
        found = final_variance(restart, sigmas, std, start, restarts=[entry])
        left = ((std**2 + low**2) / (std**2 + high**2)) ** repetitions
        assert found / end - 1 == pytest.approx(left, rel=0.02)


# ---- calls ----


@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize("steps", [1, 2, 6, 18])
@pytest.mark.parametrize(
    "restarts",
    [
        [],
        DEFAULT_RESTARTS,
        [[2, 1, 0.1, 0.3], [7, 3, 0.1, 50.0]],
        [[3, 1, 19.35, 40.79], [3, 1, 1.09, 1.92], [3, 1, 0.06, 0.3]],
    ],
)
def test_the_calls_are_those_that_the_row_states(
    restarts: Sequence[Sequence[float]], steps: int, end: str
) -> None:
    mapping = {"name": "restart", "steps": steps, "end": end, "restarts": restarts}
    settings = generation_settings(mapping)
    sigmas = visited_levels(settings, 0, math.inf, float)[0]
    assert sum(map(len, restarts_after(sigmas, restarts))) == len(restarts)
    calls = []

    def counted(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        calls.append(sigma)
        return shrink(x, sigma)

    start = images(torch.ones(1, dtype=torch.float64))
    solver_of(settings)(counted, start, sigmas, noise=zeros())
    assert len(calls) == settings.num_calls
    assert SAMPLERS["restart"].is_stochastic(settings.options) == bool(restarts)


# ---- the option ----


def test_restarts_on_a_command_line_in_a_recipe_and_in_a_snapshot_are_the_same() -> None:
    text = "restarts=[[3, 1, 19.35, 40.79], [4, 2, 6e-2, 3e-1]]"
    given = {"sampler": "restart", "sampler_option": (text,)}
    settings, _, warnings = settings_of({}, given)
    assert not warnings
    entries = [[3, 1, 19.35, 40.79], [4, 2, 0.06, 0.3]]
    assert settings.options["restarts"] == entries
    stored = yaml.safe_load(yaml.safe_dump(settings.as_mapping()))
    assert generation_settings(stored) == settings
    tuples = tuple(map(tuple, entries))
    assert generation_settings({"name": "restart", "restarts": tuples}).options["restarts"] == (
        entries
    )
    assert generation_settings({"name": "restart"}).options["restarts"] == DEFAULT_RESTARTS


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        "often",
        {"0": [3, 2, 0.14, 0.3]},
        [3, 2, 0.14, 0.3],
        [[3, 2, 0.14]],
        [[1, 2, 0.14, 0.3]],
        [[3.5, 2, 0.14, 0.3]],
        [[True, 2, 0.14, 0.3]],
        [[3, 0, 0.14, 0.3]],
        [[3, 2, 0.3, 0.14]],
        [[3, 2, 0.3, 0.3]],
        [[3, 2, 0.0, 0.3]],
        [[3, 2, "low", 0.3]],
        [[3, 2, 0.14, math.inf]],
        [[3, 2, math.nan, 0.3]],
        [[3, 2, 0.14, 0.3], None],
    ],
)
def test_what_is_no_list_of_restarts_is_refused_in_one_line(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"restarts is .*: it must be a list of entries") as error:
        generation_settings({"name": "restart", "restarts": wrong})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entry", "steps", "words"),
    [
        ([3, 2, 0.14, 90.0], 18, "sigma_high is above the grid's highest level, 80"),
        ([3, 2, 79.0, 80.0], 18, "nearest to sigma_low is 80"),
        ([3, 2, 1e-4, 80.0], 18, "nearest to sigma_low is 0"),
        ([3, 2, 5.5, 5.6], 4, "nearest to sigma_low is 9."),
    ],
)
def test_a_restart_without_a_place_on_the_grid_is_refused(
    entry: list[float], steps: int, words: str
) -> None:
    settings = generation_settings({"name": "restart", "restarts": [entry], "steps": steps})
    with pytest.raises(UserError) as error:
        sampling_of(settings, model())
    assert words in str(error.value)
    assert str(entry) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_default_works_on_the_default_grid() -> None:
    for steps in (2, 5, 18, 100):
        settings = generation_settings({"name": "restart", "steps": steps})
        sampling_of(settings, model())
