"""DDPM, DDIM and Euler: identities between them, draws, spacings, and the oracle of one image."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion import GRIDS
from diffusion.denoiser import Denoiser
from diffusion.guidance import conditional
from diffusion.preconditioning import create
from diffusion.schedules import VPSchedule
from diffusion.tables import beta_linear
from samplers import SAMPLERS
from samplers.levels import solver_of, visited_levels
from samplers.settings import generation_settings
from tests.closed_form import GaussianMixture
from torch_utils.errors import UserError

SHAPE = (1, 2, 3)


class Source:
    """Unit normals, counted."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.calls = 0

    def __call__(self, like: Tensor) -> Tensor:
        self.calls += 1
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def mixture() -> GaussianMixture:
    means = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return GaussianMixture(means, 0.3)


def start(sigma: float, num: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return sigma * torch.randn(num, *SHAPE, generator=generator, dtype=torch.float64)


def run(name: str, sigmas: list[float], source: Source | None = None, **options: Any) -> Tensor:
    result: Tensor = SAMPLERS[name].load()(
        mixture(), start(sigmas[0]), sigmas, noise=source or Source(), **options
    )
    return result


def levels(steps: int = 20) -> list[float]:
    return visited_levels(
        generation_settings({"name": "ddim", "steps": steps}), 0.0, math.inf, float
    )[0]


def test_ancestral_sampling_with_the_small_variance_is_ddim_with_eta_1() -> None:
    torch.testing.assert_close(run("ddpm", levels()), run("ddim", levels(), eta=1.0))


def test_ddim_without_noise_is_eulers_method() -> None:
    torch.testing.assert_close(run("ddim", levels()), run("euler", levels()))


def test_interpolation_runs_from_the_small_to_the_large_variance() -> None:
    small, large = run("ddpm", levels()), run("ddpm", levels(), variance="large")
    between = [run("ddpm", levels(), variance="interpolated", fraction=f) for f in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(between[0], small)
    torch.testing.assert_close(between[2], large)
    assert not torch.allclose(between[1], small)
    assert not torch.allclose(small, large)


@pytest.mark.parametrize(
    ("name", "options", "draws"),
    [
        ("ddim", {}, 0),
        ("ddim", {"eta": 0.3}, 19),
        ("ddpm", {}, 19),
        ("euler", {}, 0),
    ],
)
def test_noise_is_drawn_once_a_step_but_not_in_the_last_one(
    name: str, options: dict[str, Any], draws: int
) -> None:
    source = Source()
    run(name, levels(20), source, **options)
    assert source.calls == draws
    to_a_positive_end = Source()
    run(name, levels(20)[:-1], to_a_positive_end, **options)
    assert to_a_positive_end.calls == draws


@pytest.mark.parametrize(
    ("name", "options"),
    [("ddim", {"eta": 0.0}), ("ddim", {"eta": 1.0})]
    + [("ddpm", {"variance": v, "fraction": 0.4}) for v in ("small", "large", "interpolated")],
)
def test_a_repeated_level_changes_nothing_but_draws(name: str, options: dict[str, Any]) -> None:
    once, source = levels(6), Source()
    seen: list[Tensor] = []
    repeated = [*once[:3], once[2], *once[3:]]
    run(name, repeated, source, callback=lambda i, sigma, x, d: seen.append(x), **options)
    torch.testing.assert_close(seen[3], seen[2], rtol=1e-12, atol=1e-12)
    assert source.calls == (0 if options.get("eta") == 0 else 6)


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_many_steps_keep_the_distribution(name: str) -> None:
    std = 0.5
    model = GaussianMixture(torch.zeros(1, *SHAPE, dtype=torch.float64), std)
    options = {"eta": 1.0} if name == "ddim" else {"variance": "large"}
    sigmas = levels(300)
    x = start(math.hypot(1, sigmas[0]), 4000)
    found = SAMPLERS[name].load()(model, x, sigmas, noise=Source(), **options)
    assert found.std().item() == pytest.approx(std, rel=0.03)


def test_wrong_values_are_refused_before_work() -> None:
    for wrong, message in [
        ({"name": "ddpm", "variance": "smal"}, "did you mean 'small'"),
        ({"name": "reverse_sde", "corrector": "heun"}, "unknown corrector"),
        ({"name": "reverse_sde", "last_step": "none"}, "unknown last_step"),
        ({"name": "ito_taylor", "scheme": "strong"}, "did you mean 'strong1.5'"),
        ({"name": "ito_taylor", "derivative": "jpv"}, "did you mean 'jvp'"),
        ({"name": "ito_taylor", "beta": -1.0}, "beta is -1: it must be at least 0"),
        ({"name": "sra1", "beta": math.nan}, "beta is nan: give a number"),
        ({"name": "sra1", "beta": -0.1}, "beta is -0.1: it must be at least 0"),
        ({"name": "ddpm", "fraction": 1.5}, "fraction is 1.5: it must be from 0 to 1"),
        ({"name": "ddim", "eta": -1}, "eta is -1: it must be from 0 to 1"),
        ({"name": "ddim", "eta": 1.5}, "eta is 1.5: it must be from 0 to 1"),
        ({"name": "ddim", "spacing": "leeding"}, "did you mean 'leading'"),
        ({"name": "ddim", "levels": "bet_linear"}, "did you mean 'beta_linear'"),
        ({"name": "ddim", "levels": {"name": "beta_quad", "x": 1}}, "option of schedule"),
        ({"name": "ddim", "levels": 3}, "give a name"),
        ({"name": "ddim", "rho": 3.0}, "rho is an option of grid rho, .*, not of sampler ddim on"),
        ({"name": "ddim", "grid": "roh"}, "did you mean 'rho'"),
    ]:
        with pytest.raises(UserError, match=message):
            generation_settings(wrong)


# ------------------------------------------------------------------- grids and notes


def test_another_grid_has_its_own_options_and_is_written_down() -> None:
    settings = generation_settings(
        {"name": "ddim", "steps": 4, "grid": "rho", "rho": 3, "eta": 0.5}
    )
    assert settings.as_mapping()["grid"] == "rho"
    assert generation_settings(settings.as_mapping()) == settings
    assert visited_levels(settings, 0.0, math.inf, float)[0][0] == pytest.approx(80.0)
    heun = generation_settings({"steps": 4, "grid": "steps", "spacing": "linspace"})
    assert visited_levels(heun, 0.0, math.inf, float)[0][0] == beta_linear().levels[-1]
    assert "grid" not in generation_settings({"name": "ddim"}).as_mapping()


def test_the_steps_are_those_of_the_models_schedule_unless_another_is_named() -> None:
    schedule = VPSchedule()
    plain, named = (generation_settings({"name": "ddim", "steps": 3, **extra}) for extra in (
        {}, {"levels": {"name": "beta_linear", "num_steps": 100}},
    ))  # fmt: skip
    assert visited_levels(plain, 0, math.inf, float, schedule)[0][0] == float(schedule.sigma(1.0))
    assert visited_levels(plain, 0, math.inf, float)[0][0] == beta_linear().levels[-1]
    assert visited_levels(named, 0, math.inf, float, schedule)[0][0] == beta_linear(100).levels[-1]


def test_notes_tell_what_differs_from_what_was_asked() -> None:
    table = beta_linear(10)
    heun = generation_settings({"steps": 30})
    sigmas, notes = visited_levels(heun, 0.01, 1.5, table.round)
    assert notes == [
        "sigma_min 0.002 cut to the model's 0.01",
        "sigma_max 80 cut to the model's 1.5",
        "30 steps asked for, 10 taken: repeated noise levels left out",
    ]
    assert len(sigmas) == 11
    leading = generation_settings({"name": "ddpm", "steps": 300, "spacing": "leading"})
    assert visited_levels(leading, 0.0, math.inf, float)[1] == ["300 steps asked for, 334 taken"]
    quad = generation_settings({"name": "ddpm", "steps": 50, "spacing": "quad"})
    assert visited_levels(quad, 0.0, math.inf, float)[1] == [
        "50 steps asked for, 49 taken: repeated noise levels left out"
    ]
    assert (
        visited_levels(generation_settings({"name": "ddim", "steps": 37}), 0.0, math.inf, float)[1]
        == []
    )


# ------------------------------------------------------------------------- the oracle

IMAGE = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2 - 1


class NoiseOracle(nn.Module):
    """A network that returns the noise in z = sqrt(abar) y + sqrt(1 - abar) e exactly.

    It knows one image and, from its own betas, abar of a time; between integer times ln(sigma) is
    linear, for solvers that look there.
    """

    def __init__(self) -> None:
        super().__init__()
        abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
        self.log_sigma = nn.Parameter(((1 - abar) / abar).log() / 2, requires_grad=False)

    def forward(self, z: Tensor, t: Tensor, *conditions: Any) -> Tensor:
        assert (t >= 0).all()
        assert (t <= 999).all()
        left = t.floor().clamp(max=998).long()
        low, high = self.log_sigma[left], self.log_sigma[left + 1]
        sigma = (low + (t - left) * (high - low)).exp().reshape(-1, 1, 1, 1)
        abar = 1 / (1 + sigma**2)
        return (z - abar.sqrt() * IMAGE) / (1 - abar).sqrt()


def oracle() -> Denoiser:
    return Denoiser(
        NoiseOracle(), create("ddpm"), img_resolution=(SHAPE[1], SHAPE[2]), img_channels=SHAPE[0]
    ).eval()


# all levels are what 1000 steps are in every spacing but quad; tests/diffusion/test_spacing.py
SPACED = [
    (spacing, steps)
    for spacing in ("exact", "leading", "linspace", "trailing", "quad")
    for steps in (1, 2, 10, 50)
] + [("quad", 1000), ("all", 1000)]


@torch.no_grad()
@pytest.mark.parametrize(("spacing", "steps"), SPACED)
@pytest.mark.parametrize("name", SAMPLERS)
def test_with_an_oracle_every_sampler_returns_the_image_on_every_spacing(
    name: str, spacing: str, steps: int
) -> None:
    model = oracle()
    settings = generation_settings(
        {"name": name, "grid": "steps", "steps": steps, "spacing": spacing}
    )
    sigmas, _ = visited_levels(
        settings,
        model.sigma_min,
        model.sigma_max,
        model.round_sigma,
        model.preconditioning.schedule,
    )
    x = start(model.prior_scale(sigmas[0]), 2)
    options: dict[str, Any] = {"noise": Source(), "round_sigma": model.round_sigma}
    if name == "restart":  # within the model's levels, however few are visited
        options["restarts"] = [[3, 2, sigmas[-2], 2 * sigmas[-2]]]
    found = solver_of(settings)(conditional(model, None), x, sigmas, **options)
    assert (found - IMAGE).abs().max() < 1e-4


@pytest.mark.parametrize("steps", [1, 2, 10, 50])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_works_on_every_grid(name: str, grid: str, steps: int) -> None:
    settings = generation_settings({"name": name, "grid": grid, "steps": steps})
    sigmas = visited_levels(settings, 0.0, math.inf, float)[0]
    assert len(sigmas) == steps + 1
    found = solver_of(settings)(
        lambda x, sigma: IMAGE.expand_as(x), start(sigmas[0]), sigmas, noise=Source()
    )
    assert (found - IMAGE).abs().max() < 1e-9


def test_clip_x0_clips_the_image_but_not_the_direction_of_the_noise() -> None:
    x, sigmas = torch.tensor([[[[3.0, -0.5]]]], dtype=torch.float64), [2.0, 1.0, 0.0]
    solver = solver_of(generation_settings({"name": "ddim", "clip_x0": True}))
    seen: list[Tensor] = []

    def denoise(state: Tensor, sigma: float | Tensor) -> Tensor:
        seen.append(state)
        return state * 0.6  # 1.8 and -0.3: the first is clipped

    last = solver(denoise, x, sigmas, noise=torch.zeros_like)
    eps = (x - 0.6 * x) / 2.0
    middle = (0.6 * x).clamp(-1, 1) + 1.0 * eps
    torch.testing.assert_close(seen[1], middle)
    torch.testing.assert_close(last, (0.6 * middle).clamp(-1, 1))
