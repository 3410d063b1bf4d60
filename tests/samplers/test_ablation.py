"""EDM's ablation sampler: what it shares with others, its orders, its published options."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.grids import rho_grid
from samplers import SAMPLERS
from samplers.levels import solver_of, visited_levels
from samplers.settings import generation_settings
from tests.closed_form import GaussianMixture
from torch_utils.errors import UserError

STD = 0.5
SHAPE = (1, 2, 3)


def gaussian() -> GaussianMixture:
    return GaussianMixture(torch.full((1, *SHAPE), 0.3, dtype=torch.float64), STD)


def normals(seed: int, num: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, *SHAPE, generator=generator, dtype=torch.float64)


def noise_from(seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def run(name: str, x: Tensor, sigmas: Any, **options: Any) -> Tensor:
    result: Tensor = SAMPLERS[name].load()(
        gaussian(), x, list(sigmas), noise=noise_from(0), **options
    )
    return result


def sigmas_of(**options: Any) -> list[float]:
    return visited_levels(
        generation_settings({"name": "ablation", "steps": 12, **options}), 0, math.inf, float
    )[0]


@pytest.mark.parametrize("S_churn", [0.0, 2.0, 10.0])  # none, some, more than a step may have
def test_without_time_or_scale_it_is_edms_sampler(S_churn: float) -> None:
    sigmas = sigmas_of()
    x = normals(0) * sigmas[0]
    churn = {"S_churn": S_churn, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003}
    torch.testing.assert_close(run("ablation", x, sigmas, **churn), run("heun", x, sigmas, **churn))


def test_eulers_method_in_sigma_is_the_sampler_euler() -> None:
    sigmas = sigmas_of()
    x = normals(1) * sigmas[0]
    torch.testing.assert_close(run("ablation", x, sigmas, solver="euler"), run("euler", x, sigmas))


@pytest.mark.parametrize("scaling", ["none", "vp"])
@pytest.mark.parametrize("schedule", ["linear", "ve", "vp"])
@pytest.mark.parametrize(
    ("solver", "alpha", "order"), [("euler", 1.0, 1), ("heun", 1.0, 2), ("heun", 0.5, 2)]
)
def test_every_time_and_scale_has_the_order_of_its_solver(
    solver: str, alpha: float, order: int, schedule: str, scaling: str
) -> None:
    """The exact flow scales x - mean by the ratio of standard deviations."""
    first, last = 10.0, 0.1
    x = 0.3 + normals(2) * math.hypot(first, STD)
    exact = 0.3 + (x - 0.3) * math.hypot(last, STD) / math.hypot(first, STD)
    counts = [160, 320, 640]
    errors = []
    for n in counts:
        options = {"solver": solver, "alpha": alpha, "schedule": schedule, "scaling": scaling}
        found = run("ablation", x, rho_grid(n + 1, last, first), **options)
        errors.append((found - exact).abs().max().item())
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -slope > order - 0.2, errors  # the midpoint method has order 3 here in some times
    if solver == "euler":
        assert -slope < 1.2, errors


def test_the_solver_stays_inside_the_levels_that_the_model_knows() -> None:
    seen: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        seen.append(sigma)
        return torch.zeros_like(x)

    def to_tenths(sigma: float) -> float:
        return max(round(sigma, 1), 0.1)

    settings = generation_settings(
        {"name": "ablation", "schedule": "vp", "scaling": "vp", "S_churn": 4}
    )
    sigmas = visited_levels(settings, 0.1, 60.0, to_tenths)[0]
    solver_of(settings, 0.1, 60.0)(
        denoise, normals(3) * sigmas[0], sigmas, noise=noise_from(1), round_sigma=to_tenths
    )
    assert all(sigma == to_tenths(sigma) for sigma in seen)


def test_published_options_choose_the_grid() -> None:
    for published, ours in [("edm", "rho"), ("vp", "vp"), ("ve", "ve"), ("iddpm", "iddpm")]:
        settings = generation_settings({"name": "ablation", "discretization": published})
        assert settings.grid_name == ours
        assert generation_settings(settings.as_mapping()) == settings
    both = generation_settings({"name": "ablation", "discretization": "ve", "grid": "ve"})
    assert both.grid_name == "ve"
    with pytest.raises(UserError, match="differ"):
        generation_settings({"name": "ablation", "discretization": "ve", "grid": "rho"})
    with pytest.raises(UserError, match="unknown grid"):
        generation_settings({"name": "ablation", "discretization": "edn"})


def test_the_range_and_epsilon_are_shared_with_the_grid() -> None:
    settings = generation_settings(
        {"name": "ablation", "grid": "vp", "sigma_min": 0.02, "epsilon_s": 0.01}
    )
    assert settings.options["sigma_min"] == settings.grid["sigma_min"] == 0.02
    assert settings.options["epsilon_s"] == settings.grid["epsilon_s"] == 0.01
    keywords = solver_of(settings, 0.0, 50.0).keywords  # type: ignore[attr-defined]
    assert (keywords["sigma_min"], keywords["sigma_max"]) == (0.02, 50.0)
    on_steps = generation_settings({"name": "ablation", "grid": "steps"})
    assert solver_of(on_steps, 0.0, 50.0).keywords["sigma_min"] is None  # type: ignore[attr-defined]


def test_wrong_values_are_refused() -> None:
    for wrong, message in [
        ({"solver": "huen"}, "did you mean 'heun'"),
        ({"schedule": "cosine"}, "unknown schedule of sampler ablation"),
        ({"scaling": "ve"}, "unknown scaling"),
        ({"alpha": 0}, "alpha is 0"),
        ({"grid": "steps", "sigma_min": "x"}, "sigma_min is 'x': it must be a number"),
    ]:
        with pytest.raises(UserError, match=message):
            generation_settings({"name": "ablation", **wrong})


def test_calls_follow_the_solver() -> None:
    row = SAMPLERS["ablation"]
    assert row.num_calls(5, row.options, True) == 9
    assert row.num_calls(5, {"solver": "euler"}, True) == 5
