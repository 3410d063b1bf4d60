"""Whole chains on real networks against a reference that knows only z, integer t and abar.

It shares nothing with Driftless but the raw network: DDPM and DDIM as in Ho et al. 2020 and Song
et al. 2021, v-diffusion as in Salimans and Ho 2022, written in variance-preserving coordinates.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion.denoiser import Denoiser
from diffusion.guidance import clipped, conditional
from diffusion.preconditioning import create
from samplers.levels import solver_of, visited_levels
from samplers.settings import generation_settings
from tests.networks.small import small_net

HEIGHT, WIDTH = 8, 4
T = 1000
TIMES = [7, 130, 131, 402, 750, 999]  # ascending

SAMPLERS = [
    ("ddim", {"eta": 0.0}),
    ("ddim", {"eta": 0.6}),
    ("ddim", {"eta": 1.0}),
    ("ddpm", {"variance": "small"}),
    ("ddpm", {"variance": "large"}),
]


def network(name: str, **options: Any) -> nn.Module:
    """A small network in float64, so that chains agree beyond the noise of float32."""
    return small_net(name, (HEIGHT, WIDTH), **options).double()


def draws(num: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (2, 2, HEIGHT, WIDTH)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(num)]


def chain(
    predict: Callable[[Tensor, int], tuple[Tensor, Tensor]],
    abar: np.ndarray,
    times: list[int],
    noises: list[Tensor],
    name: str,
    options: dict[str, Any],
) -> Tensor:
    """The published chain: z at times[-1] is noises[0]; the result is the estimate of x0.

    Args:
        predict: (z, t) -> (estimate of x0, of the noise).
        abar: alpha-bar of every t.
        times: ascending.
        noises: unit normals, the latent first, then one a step.
    """
    z = noises[0]
    for step, position in enumerate(range(len(times) - 1, -1, -1)):
        t = times[position]
        x0, eps = predict(z, t)
        if position == 0:
            return x0
        here, there = abar[t], abar[times[position - 1]]
        b = 1 - here / there
        small = b * (1 - there) / (1 - here)
        if name == "ddim":
            variance = options["eta"] ** 2 * small
            mean = there**0.5 * x0 + (1 - there - variance) ** 0.5 * eps
        else:
            variance = small if options["variance"] == "small" else b
            mean = there**0.5 * b / (1 - here) * x0 + (1 - b) ** 0.5 * (1 - there) / (1 - here) * z
        z = mean + variance**0.5 * noises[1 + step]
    raise AssertionError("no times")


def ours(
    denoiser: Denoiser,
    sigmas: list[float],
    noises: list[Tensor],
    name: str,
    options: dict[str, Any],
    clip: bool = False,
) -> Tensor:
    """The same chain by our sampler."""
    supply = iter(noises[1:])
    denoise = conditional(denoiser, None)
    result: Tensor = solver_of(generation_settings({"name": name, **options}))(
        clipped(denoise) if clip else denoise,
        noises[0] * denoiser.prior_scale(sigmas[0]),
        sigmas,
        noise=lambda like: next(supply),
    )
    return result


def wrapped(net: nn.Module, preset: str, **options: Any) -> Denoiser:
    preconditioning = create(preset, **options)
    return Denoiser(net, preconditioning, img_resolution=(HEIGHT, WIDTH), img_channels=2).eval()


def linear_abar() -> np.ndarray:
    return np.cumprod(1 - np.linspace(1e-4, 0.02, T))


def from_eps(net: nn.Module, abar: np.ndarray, clip: bool) -> Callable[..., Any]:
    """Estimates of a network that predicts noise; clipping re-derives it. DDPM, Eq. 15."""

    def predict(z: Tensor, t: int) -> tuple[Tensor, Tensor]:
        eps = net(z, torch.full([len(z)], float(t), dtype=z.dtype), None, None)[:, :2]
        x0 = (z - (1 - abar[t]) ** 0.5 * eps) / abar[t] ** 0.5
        if clip:
            x0 = x0.clamp(-1, 1)
            eps = (z - abar[t] ** 0.5 * x0) / (1 - abar[t]) ** 0.5
        return x0, eps

    return predict


def agree(found: Tensor, expected: Tensor) -> None:
    """Equal to 1e-9 of the largest value."""
    assert torch.isfinite(expected).all()
    assert expected.std() > 0.01
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * scale)


@torch.no_grad()
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("name", "options"), SAMPLERS)
@pytest.mark.parametrize("net_name", ["ddpm", "ddpmpp", "adm"])
def test_chains_of_discrete_eps_models_agree(
    net_name: str, name: str, options: dict[str, Any], clip: bool
) -> None:
    net = network(net_name, model_channels=32)
    denoiser = wrapped(net, "ddpm")
    abar = linear_abar()
    noises = draws(1 + len(TIMES))
    sigmas = [((1 - abar[t]) / abar[t]) ** 0.5 for t in TIMES[::-1]] + [0.0]
    expected = chain(from_eps(net, abar, clip), abar, TIMES, noises, name, options)
    agree(ours(denoiser, sigmas, noises, name, options, clip), expected)


@torch.no_grad()
def test_levels_of_the_grid_are_those_of_the_integer_times() -> None:
    denoiser = wrapped(network("ddpm", model_channels=32), "ddpm")
    settings = generation_settings({"name": "ddim", "steps": 5, "spacing": "trailing"})
    schedule = denoiser.preconditioning.schedule
    sigmas = visited_levels(settings, denoiser.sigma_min, denoiser.sigma_max, float, schedule)[0]
    abar = linear_abar()
    expected = [((1 - abar[t]) / abar[t]) ** 0.5 for t in (999, 799, 599, 399, 199)]
    assert sigmas == pytest.approx([*expected, 0.0], rel=1e-9)


@torch.no_grad()
@pytest.mark.parametrize(("name", "options"), SAMPLERS)
def test_chains_of_improved_ddpm_agree(name: str, options: dict[str, Any]) -> None:
    """Its abar is a squared cosine with bounded ratios, t counts from the clean end."""
    j = np.arange(T + 1)
    exact = np.sin(np.pi / 2 * j / (T * 1.008)) ** 2  # from pure noise
    abar = np.cumprod(np.maximum(exact[:-1] / exact[1:], 0.001)[::-1])
    net = network("adm", model_channels=32, out_channels=4)
    sigmas = [((1 - abar[t]) / abar[t]) ** 0.5 for t in TIMES[::-1]] + [0.0]
    noises = draws(1 + len(TIMES))
    denoiser = wrapped(net, "iddpm")
    expected = chain(from_eps(net, abar, False), abar, TIMES, noises, name, options)
    # as a preset of EDM it starts from x without data
    scaled = [noises[0] * (1 + sigmas[0] ** 2) ** 0.5 / denoiser.prior_scale(sigmas[0])]
    agree(ours(denoiser, sigmas, scaled + noises[1:], name, options), expected)


@torch.no_grad()
@pytest.mark.parametrize("output", ["v", "eps", "x0"])
@pytest.mark.parametrize(("name", "options"), SAMPLERS)
def test_chains_of_continuous_models_agree(name: str, options: dict[str, Any], output: str) -> None:
    """v-diffusion: even times (i + 1) / N, alpha the cosine of an affine angle, clipped x0."""
    num_steps = 6
    net = network("vdiff", model_channels=32)
    denoiser = wrapped(net, "vdiff", output=output)
    first, last = (np.arctan(np.exp(-limit / 2)) for limit in (20.0, -20.0))
    angles = first + (last - first) * np.arange(1, num_steps + 1) / num_steps
    abar = np.cos(angles) ** 2

    def predict(z: Tensor, i: int) -> tuple[Tensor, Tensor]:
        time = torch.full([len(z)], 1000 * (i + 1) / num_steps, dtype=z.dtype)
        raw = net(z, time, None, None)
        alpha, sigma = np.cos(angles[i]), np.sin(angles[i])
        x0 = {"v": alpha * z - sigma * raw, "eps": (z - sigma * raw) / alpha, "x0": raw}[output]
        x0 = x0.clamp(-1, 1)
        return x0, (z - alpha * x0) / sigma

    noises = draws(1 + num_steps)
    settings = generation_settings({"name": name, "steps": num_steps})
    schedule = denoiser.preconditioning.schedule
    sigmas = visited_levels(settings, denoiser.sigma_min, denoiser.sigma_max, float, schedule)[0]
    expected = chain(predict, abar, list(range(num_steps)), noises, name, options)
    agree(ours(denoiser, sigmas, noises, name, options, clip=True), expected)
