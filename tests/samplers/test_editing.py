"""Interpolation, inversion and inpainting, on the level of tensors."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.integrate import quad

from diffusion.denoiser import Denoiser
from diffusion.grids import log_sigma_grid, rho_grid
from samplers import SAMPLERS
from samplers.generate import solve, to_float, to_uint8
from samplers.inpainting import RULES, inpaint
from samplers.interpolation import slerp
from samplers.inversion import check_upwards, encode, rising
from samplers.labels import LabelSource
from samplers.sampling import Sampling, sampling_of
from samplers.settings import generation_settings
from samplers.solvers.log_snr_steps import kernel_moments
from samplers.starts import Sample, start_of
from tests.closed_form import GaussianMixture
from tests.samplers.test_generate import model
from torch_utils.errors import UserError

STD, CORRELATION = 0.5, 0.9
DETERMINISTIC = [name for name, row in SAMPLERS.items() if not row.is_stochastic(row.options)]


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def correlated() -> Denoiser:
    """The exact denoiser of 2x2 pixels with mean 0 that are all correlated alike."""
    denoiser = model(0, img_resolution=(2, 2))
    covariance = STD**2 * (CORRELATION + (1 - CORRELATION) * torch.eye(4, dtype=torch.float64))

    def forward(x: torch.Tensor, sigma: torch.Tensor | float, *_: Any) -> torch.Tensor:
        gain = covariance @ (covariance + float(sigma) ** 2 * torch.eye(4)).inverse()
        return (x.flatten(1) @ gain).reshape(x.shape)

    denoiser.forward = forward  # type: ignore[method-assign]
    return denoiser


def sampling(denoiser: Denoiser, **settings: Any) -> Sampling:
    return sampling_of(generation_settings(settings), denoiser)


# --- interpolation


def test_an_arc_keeps_the_length_of_latents_and_its_ends_to_the_bit() -> None:
    a, b = normals(4, 1, 3, 5), normals(4, 1, 3, 5, seed=1)
    assert torch.equal(slerp(a, b, torch.zeros(4)), a)
    assert torch.equal(slerp(a, b, torch.ones(4)), b)
    one = a / a.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    other = b / b.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    between = slerp(one, other, torch.tensor([0.1, 0.25, 0.5, 0.8])).flatten(1)
    torch.testing.assert_close(between.norm(dim=1), torch.ones(4, dtype=torch.float64))
    turned = (between * one.flatten(1)).sum(1).acos() / (one * other).flatten(1).sum(1).acos()
    torch.testing.assert_close(turned, torch.tensor([0.1, 0.25, 0.5, 0.8]).double())


def test_each_sample_has_an_angle_of_its_own() -> None:
    a, b, weights = normals(3, 1, 2, 2), normals(3, 1, 2, 2, seed=1), torch.tensor([0.3, 0.5, 0.9])
    whole = slerp(a, b, weights)
    for i in range(3):
        own = slice(i, i + 1)
        assert torch.equal(slerp(a[own], b[own], weights[own]), whole[own])


def test_latents_that_are_parallel_are_joined_by_a_line() -> None:
    a = normals(3, 1, 2, 2)
    b = torch.stack([a[0], 2 * a[1], -a[2]])
    expected = torch.stack([a[0], 1.25 * a[1], 0.5 * a[2]])
    torch.testing.assert_close(slerp(a, b, torch.full([3], 0.25)), expected)


# --- inversion


def test_all_deterministic_solvers_go_up_and_no_others() -> None:
    assert [name for name, row in SAMPLERS.items() if row.goes_up] == DETERMINISTIC


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_way_up_converges_to_the_exact_flow(name: str) -> None:
    """From a positive level to a high one, the exact flow scales x by the ratio of stds.

    Errors of the first steps grow on the way, which hides the order of multistep methods.
    """
    row = SAMPLERS[name]
    gaussian = GaussianMixture(torch.zeros(1, 1, 2, 3, dtype=torch.float64), STD)
    low, high = 0.1, 10.0
    x = normals(4, 1, 2, 3)
    exact = x * math.hypot(high, STD) / math.hypot(low, STD)
    errors = []
    for n in (40, 160):
        levels = (log_sigma_grid if row.grid == "log_sigma" else rho_grid)(n + 1, low, high)
        found = row.load()(gaussian, x, levels.tolist()[::-1], noise=torch.randn_like)
        errors.append(((found - exact).abs().max() / exact.abs().max()).item())
    assert errors[1] < min(errors[0] / 3.5, 0.02), errors


@pytest.mark.parametrize("h", [-4.0, -0.7, -1e-3])
def test_the_integrals_of_a_step_upwards_are_right(h: float) -> None:
    for j, moment in enumerate(kernel_moments(h, 3)):
        exact = quad(lambda u, j=j: h * math.exp(-h * (1 - u)) * u**j, 0, 1, epsabs=0)[0]
        assert moment == pytest.approx(exact, rel=1e-11)


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("preconditioning", ["edm", "ddpm"])
def test_an_image_comes_back_from_its_latent(name: str, preconditioning: str) -> None:
    """To the solver's error, or to the noise of the lowest level if that is larger."""
    errors = []
    denoiser = correlated()
    denoiser.preconditioning = model(0, name=preconditioning).preconditioning
    images = STD * (math.sqrt(CORRELATION) * normals(8, 1, 1, 1) + 0.3 * normals(8, 1, 2, 2))
    for steps in (30, 60):
        setting = sampling(denoiser, name=name, steps=steps, grid="rho", sigma_max=3.0)
        assert check_upwards(setting) == []
        start = start_of(setting, [Sample(i) for i in range(8)], source=LabelSource(0))
        latents = encode(setting, start, images)
        assert 0.5 < latents.std() < 2
        back = solve(setting, replace(start, latents=latents))
        errors.append((back - images).abs().max().item())
    assert errors[1] < max(0.7 * errors[0], 2e-3), errors
    assert errors[1] < 0.15, errors


def test_settings_without_a_way_up_are_refused_or_remarked() -> None:
    denoiser = model(0)
    with pytest.raises(UserError, match=r"sra1 draws noise.*take heun, euler, ddim"):
        check_upwards(sampling(denoiser, name="sra1"))
    with pytest.raises(UserError, match="heun draws noise with these options"):
        check_upwards(sampling(denoiser, S_churn=5.0))
    with pytest.raises(UserError, match="sra1 cannot go from low noise levels to high ones"):
        check_upwards(sampling(denoiser, name="sra1", beta=0.0))
    with pytest.raises(UserError, match="take more steps"):
        check_upwards(sampling(denoiser, steps=1))
    (warning,) = check_upwards(sampling(denoiser, sigma_min=0.3))
    assert "the lowest noise level is 0.3" in warning
    ends_high = sampling(denoiser, steps=3, end="sigma_min")
    assert rising(ends_high) == ends_high.sigmas[::-1]
    assert rising(sampling(denoiser, steps=3)) == sampling(denoiser, steps=3).sigmas[-2::-1]


# --- inpainting


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_known_pixels_are_exact_with_every_sampler(name: str, end: str, rule: str) -> None:
    """And the others are of the seed, whatever the batch."""
    grid = {"grid": "rho", "end": end}
    setting = sampling(correlated(), name=name, steps=3, **grid)
    pictures = torch.randint(256, (3, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    images, is_known = to_float(pictures), torch.tensor([[[[True, False], [True, True]]]])
    found = []
    for seeds in ([0, 1, 2], [1]):
        chosen = images[seeds]
        start = start_of(setting, [Sample(seed) for seed in seeds], source=LabelSource(0))
        found.append(
            inpaint(setting, start, chosen, is_known.expand(len(seeds), 1, 2, 2), rule=rule)
        )
        known = is_known.expand_as(chosen)
        assert torch.equal(found[-1][known], chosen[known])
        assert torch.equal(to_uint8(found[-1])[known].long(), pictures[seeds][known])
        assert found[-1].isfinite().all()
        assert not torch.equal(found[-1], chosen)
    torch.testing.assert_close(found[1][0], found[0][1])


@pytest.mark.parametrize(("rule", "least"), [("model", 0.9), ("fresh", 0.6)])
def test_known_pixels_draw_the_others_towards_them(rule: str, least: float) -> None:
    """Pixels that are correlated by 0.9 with known ones at 1 have the mean 0.95, the std 0.19."""
    setting, num = sampling(correlated(), steps=80, S_churn=40.0), 200
    images, is_known = torch.ones(num, 1, 2, 2, dtype=torch.float64), torch.zeros(num, 1, 2, 2)
    is_known[:, :, 0] = 1
    start = start_of(setting, [Sample(seed) for seed in range(num)], source=LabelSource(0))
    made = inpaint(setting, start, images, is_known.bool(), rule=rule)[:, :, 1]
    exact = 2 * CORRELATION / (1 + CORRELATION)
    assert least < made.mean() < exact + 0.05
    assert 0.15 < made.std() < 0.3


def test_fresh_noise_puts_known_pixels_at_their_level() -> None:
    setting, num = sampling(correlated(), steps=8), 200
    images = torch.full([num, 1, 2, 2], 0.7, dtype=torch.float64)
    is_known = torch.tensor([[[[True, True], [False, False]]]]).expand(num, 1, 2, 2)
    start = start_of(setting, [Sample(seed) for seed in range(num)], source=LabelSource(0))
    spread = []

    def watch(i: int, sigma: float, x: torch.Tensor, denoised: torch.Tensor) -> None:
        spread.append(((x - images)[:, :, 0] / sigma).square().mean().sqrt().item())

    inpaint(setting, start, images, is_known, rule="fresh", callback=watch)
    assert len(spread) == 8
    assert spread == pytest.approx([1] * 8, abs=0.1)


def test_the_rules_differ_and_a_mask_without_known_pixels_is_generation() -> None:
    setting = sampling(correlated(), steps=6)
    start = [start_of(setting, [Sample(3)], source=LabelSource(0)) for _ in range(4)]
    images, is_known = torch.full([1, 1, 2, 2], 0.5, dtype=torch.float64), torch.zeros(1, 1, 2, 2)
    plain = solve(setting, start[0])
    assert torch.equal(inpaint(setting, start[1], images, is_known.bool()), plain)
    is_known[:, :, 0] = 1
    fresh, own = (
        inpaint(setting, start[2 + i], images, is_known.bool(), rule=rule)
        for i, rule in enumerate(RULES)
    )
    assert not torch.equal(fresh, own)


def test_bytes_survive_becoming_floats() -> None:
    pictures = torch.arange(256, dtype=torch.uint8)
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(to_uint8(to_float(pictures).to(dtype)), pictures)
