"""What every registered sampler must satisfy, on closed-form denoisers in float64."""

import math

import numpy as np
import pytest
import torch

from diffusion.guidance import conditional
from samplers import GRIDS, SAMPLERS
from samplers.levels import visited_levels
from samplers.settings import generation_settings
from samplers.stability import is_unstable
from tests.closed_form import GaussianMixture
from tests.samplers.orders import graded_grid
from torch_utils.errors import UserError

STD = 0.5


def gaussian(mean: float = 0.0) -> GaussianMixture:
    """N(mean, STD^2) in every pixel."""
    return GaussianMixture(torch.full([1, 1, 2, 3], mean, dtype=torch.float64), STD)


def normals(seed: int, n: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 2, 3, generator=generator, dtype=torch.float64)


def forbidden(like: torch.Tensor) -> torch.Tensor:
    raise AssertionError("a deterministic sampler must not draw")


def run(name: str, denoise, x, sigmas, noise=None, **options):  # type: ignore[no-untyped-def]
    """Run a sampler; one that is deterministic with these options must not draw."""
    row = SAMPLERS[name]
    if noise is None:
        noise = torch.randn_like if row.is_stochastic({**row.options, **options}) else forbidden
    return row.load()(denoise, x, list(sigmas), noise=noise, **options)


DETERMINISTIC = [name for name, row in SAMPLERS.items() if not row.is_stochastic(row.options)]


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_row_states_the_order_of_the_solver(name: str) -> None:
    """To a positive end, on a grid on which lower orders of the first and last steps do not count.

    The exact flow scales x - mean by the ratio of standard deviations.
    """
    row = SAMPLERS[name]
    start, end = 10.0, 0.1
    x = normals(0) * math.hypot(start, STD)
    exact = x * math.hypot(end, STD) / math.hypot(start, STD)
    steps = [320, 640, 1280]
    errors = []
    for n in steps:
        found = run(name, gaussian(), x, graded_grid(n + 1, end, start))
        errors.append((found - exact).abs().max().item())
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert -slope == pytest.approx(row.order, abs=0.15), errors


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_point_mass_is_found_exactly(name: str) -> None:
    point = torch.randn(1, 2, 3, dtype=torch.float64)
    sigmas = visited_levels(generation_settings({"name": name, "steps": 7}), 0, math.inf, float)[0]
    found = run(name, lambda x, sigma: point.expand_as(x), normals(1) * sigmas[0], sigmas)
    torch.testing.assert_close(found, point.expand_as(found), rtol=0, atol=1e-12)


@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 5, 18])
def test_the_row_states_the_number_of_calls(name: str, steps: int, end: str) -> None:
    calls = []
    model = gaussian()

    def counted(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(sigma)
        assert sigma > 0
        return model(x, sigma)

    settings = generation_settings({"name": name, "steps": steps, "grid": "rho", "end": end})
    sigmas = visited_levels(settings, 0, math.inf, float)[0]
    result = run(name, counted, normals(2) * sigmas[0], sigmas)
    assert len(calls) == settings.num_calls
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_row_states_the_least_number_of_steps(name: str) -> None:
    row = SAMPLERS[name]
    tried = range(1, row.least_steps + 12)
    unstable = [
        n
        for n in tried
        if is_unstable(generation_settings({"name": name, "steps": n}), (0.002, 80.0, float, None))
    ]
    assert max(unstable, default=0) + 1 == row.least_steps


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_callback_sees_every_step_and_the_projection_has_the_last_word(name: str) -> None:
    seen = []
    sigmas = visited_levels(generation_settings({"name": name, "steps": 5}), 0, math.inf, float)[0]
    result = run(
        name,
        gaussian(),
        normals(3) * sigmas[0],
        sigmas,
        callback=lambda i, sigma, x, denoised: seen.append((i, sigma, x.shape, denoised.shape)),
        project=lambda x, sigma: torch.full_like(x, sigma),
    )
    steps = [entry[0] for entry in seen]
    assert steps == sorted(steps), "a step may be seen again, but none before it"
    first = [seen[steps.index(i)][1] for i in range(5)]
    assert first == pytest.approx(sigmas[:-1])
    assert (result == 0).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_labels_choose_the_component(name: str) -> None:
    means = torch.stack([torch.full([1, 2, 3], m, dtype=torch.float64) for m in (-5.0, 5.0)])
    model = GaussianMixture(means, 0.1)
    sigmas = visited_levels(generation_settings({"name": name, "steps": 30}), 0, math.inf, float)[0]
    labels = torch.eye(2)[[0, 1, 1, 0]]
    found = run(name, conditional(model, labels), normals(4) * sigmas[0], sigmas)
    assert torch.equal(found.mean((1, 2, 3)).sign(), torch.tensor([-1.0, 1, 1, -1]).double())


def test_churn_draws_once_a_step_and_keeps_the_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = []

    def noise(like: torch.Tensor) -> torch.Tensor:
        drawn.append(1)
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    sigmas = visited_levels(generation_settings({"steps": 60}), 0, math.inf, float)[0]
    x = normals(5, 5000) * sigmas[0]
    options = {"S_churn": 30.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.0}
    found = run("heun", gaussian(), x, sigmas, noise=noise, **options)
    assert len(drawn) == 60
    assert found.std().item() == pytest.approx(STD, rel=0.03)
    still = run("heun", gaussian(), x, sigmas)
    assert (found - still).std().item() > 0.1 * STD  # the noise does something


def test_noise_outside_the_churn_window_changes_nothing() -> None:
    sigmas = visited_levels(generation_settings({"steps": 9}), 0, math.inf, float)[0]
    x = normals(6) * sigmas[0]
    outside = run("heun", gaussian(), x, sigmas, noise=torch.ones_like, S_churn=9.0, S_min=1e3)
    assert torch.equal(outside, run("heun", gaussian(), x, sigmas))


def test_settings_read_what_they_write_and_refuse_the_rest() -> None:
    settings = generation_settings({"name": "heun", "steps": 40, "rho": 5, "S_churn": 3})
    assert generation_settings(settings.as_mapping()) == settings
    assert (settings.grid["rho"], settings.options["S_churn"]) == (5.0, 3.0)
    for wrong, message in [
        ({"name": "huen"}, "did you mean 'heun'"),
        ({"steps": 0}, "at least 1"),
        ({"steps": 10**9}, "at most 100000"),
        ({"grid": "iddpm", "M": 10**9}, "from 2 to 65536"),
        ({"steps": True}, "give a number"),
        ({"S_chrun": 1}, "did you mean 'S_churn'"),
        ({"rho": "x"}, "must be a positive, finite number"),
        ({"S_noise": float("nan")}, "nan"),
    ]:
        with pytest.raises(UserError, match=message):
            generation_settings(wrong)


@pytest.mark.parametrize(("S_churn", "gamma"), [(0.6, 0.2), (9.0, math.sqrt(2) - 1)])
def test_churn_adds_the_published_noise_to_levels_of_its_interval(
    S_churn: float, gamma: float
) -> None:
    """EDM, Algorithm 2, line 5 and 6, with a denoiser that sees only black."""
    seen: list[tuple[float, torch.Tensor]] = []
    run(
        "heun",
        lambda x, sigma: torch.zeros_like(x),
        normals(0),
        [4.0, 2.0, 1.0, 0.0],
        noise=torch.ones_like,
        callback=lambda i, sigma, x, denoised: seen.append((sigma, x)),
        **{"S_churn": S_churn, "S_min": 2.0, "S_max": 3.0, "S_noise": 1.5},
    )
    assert [sigma for sigma, _ in seen] == [4.0, pytest.approx(2 * (1 + gamma)), 1.0]
    added = seen[1][1] - normals(0) / 2  # with D = 0 the state shrinks as its noise level
    expected = torch.full_like(added, 1.5 * 2 * math.sqrt((1 + gamma) ** 2 - 1))
    torch.testing.assert_close(added, expected)


def test_every_row_is_complete() -> None:
    for name, row in SAMPLERS.items():
        assert row.grid in GRIDS
        assert row.paper
        assert row.summary
        assert callable(row.load()), name
        assert row.is_stochastic(row.options) in (True, False)
