"""The likelihood by the ODE against closed forms: Gaussians, labels, a mixture, real networks."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import networks
from diffusion import preconditioning
from diffusion.denoiser import Denoiser
from diffusion.guidance import conditional
from models.build import build
from models.config import ModelConfig
from samplers.likelihood import denoised_and_trace, log_likelihood
from tests.closed_form import GaussianMixture
from tests.networks.small import small_net, small_variant
from tests.parity.weights import fill_by_rule
from tests.samplers.orders import Mixture, fitted_order

SHAPE = (1, 2, 3)
NUM_VALUES = math.prod(SHAPE)
LOW, HIGH = 0.002, 80.0
RANGE = {"sigma_min": LOW, "sigma_max": HIGH, "prior_scale": HIGH}


class Gaussian:
    """Data N(mean, Q diag(variances) Q^T), whose D and whose flow are known.

    Args:
        variances: along the columns of Q.
        is_turned: take a random rotation as Q, so that pixels are correlated; else Q = 1.
    """

    def __init__(self, variances: Tensor, *, is_turned: bool) -> None:
        generator = torch.Generator().manual_seed(1)
        normal = torch.randn(NUM_VALUES, NUM_VALUES, generator=generator, dtype=torch.float64)
        self.axes = torch.linalg.qr(normal)[0] if is_turned else torch.eye(NUM_VALUES).double()
        self.variances = variances
        self.mean = torch.linspace(-0.5, 0.7, NUM_VALUES, dtype=torch.float64)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """D(x, sigma)."""
        along = (x.flatten(1) - self.mean) @ self.axes
        kept = along * (self.variances / (self.variances + sigma**2))
        return (kept @ self.axes.T + self.mean).reshape(x.shape)

    def sampled(self, x: Tensor, low: float, high: float, prior_scale: float) -> Tensor:
        """Log density at `low` of what the flow makes of N(0, prior_scale^2) at `high`."""
        along = (x.flatten(1) - self.mean) @ self.axes
        growth = ((self.variances + high**2) / (self.variances + low**2)).sqrt()
        end = (along * growth) @ self.axes.T + self.mean
        return normal(end, prior_scale) + growth.log().sum()

    def data(self, x: Tensor, sigma: float) -> Tensor:
        """Log density of the data with noise of level `sigma`."""
        along = (x.flatten(1) - self.mean) @ self.axes
        stds = (self.variances + sigma**2).sqrt()
        return normal(along / stds, 1.0) - stds.log().sum()

    def typical(self, sigma: float, num: int = 4) -> Tensor:
        """Data with noise of level `sigma`."""
        draws = torch.randn(num, NUM_VALUES, generator=torch.Generator().manual_seed(2)).double()
        along = draws * (self.variances + sigma**2).sqrt()
        return (along @ self.axes.T + self.mean).reshape(num, *SHAPE)


def normal(x: Tensor, std: float) -> Tensor:
    """Log density of N(0, std^2), [N, ...] -> [N]."""
    squares = (x / std).square().flatten(1).sum(1)
    return -squares / 2 - x[0].numel() * math.log(std * math.sqrt(2 * math.pi))


ISOTROPIC = Gaussian(torch.full((NUM_VALUES,), 0.25, dtype=torch.float64), is_turned=False)
ANISOTROPIC = Gaussian(torch.tensor([1e-4, 0.01, 0.1, 0.3, 1.0, 2.0]).double(), is_turned=True)


def images(num: int = 4) -> Tensor:
    return torch.randn(num, *SHAPE, generator=torch.Generator().manual_seed(0)).double() * 0.5


def unit_probes(x: Tensor) -> Tensor:
    """Probes whose mean is the exact trace, [d, N, C, H, W]."""
    num_values = x[0].numel()
    units = math.sqrt(num_values) * torch.eye(num_values, dtype=x.dtype)
    return units.reshape(-1, 1, *x.shape[1:]).expand(-1, *x.shape)


def signs(x: Tensor, num: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(2, (num, *x.shape), generator=generator).double() - 1


@pytest.mark.parametrize("data", [ISOTROPIC, ANISOTROPIC], ids=["isotropic", "anisotropic"])
@pytest.mark.parametrize("prior_scale", [HIGH, math.hypot(1, HIGH)], ids=["edm", "ddpm"])
def test_with_the_exact_trace_it_is_the_closed_form(data: Gaussian, prior_scale: float) -> None:
    x = images()
    how = {**RANGE, "prior_scale": prior_scale}
    found = log_likelihood(data, x, unit_probes(x), steps=48, **how).mean(0)
    exact = data.sampled(x, LOW, HIGH, prior_scale)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)


def test_the_model_is_not_the_data_if_sampling_starts_low() -> None:
    """The start has no data in it: that is part of the likelihood of what is sampled."""
    x = ANISOTROPIC.typical(LOW)
    gaps = []
    for high in (2.0, 80.0):
        how = {"sigma_min": LOW, "sigma_max": high, "prior_scale": high, "steps": 48}
        found = log_likelihood(ANISOTROPIC, x, unit_probes(x), **how).mean(0)
        torch.testing.assert_close(
            found, ANISOTROPIC.sampled(x, LOW, high, high), rtol=1e-5, atol=1e-5
        )
        gaps.append((found - ANISOTROPIC.data(x, LOW)).abs().max().item())
    assert gaps[0] > 0.5
    assert gaps[1] < 0.03  # nats, of six values


def test_random_signs_are_without_bias() -> None:
    x, num = images(2), 400
    exact = log_likelihood(ANISOTROPIC, x, unit_probes(x), steps=8, **RANGE).mean(0)
    found = log_likelihood(ANISOTROPIC, x, signs(x, num), steps=8, **RANGE)
    error = found.std(0) / math.sqrt(num)
    assert found.shape == (num, 2)
    assert error.min() > 0.01  # pixels are correlated, so that probes matter
    assert ((found.mean(0) - exact).abs() < 4 * error).all()
    assert (error < 0.5).all()


def test_signs_are_exact_where_pixels_are_independent() -> None:
    x = images()
    found = log_likelihood(ISOTROPIC, x, signs(x, 1), steps=48, **RANGE)[0]
    exact = ISOTROPIC.sampled(x, LOW, HIGH, HIGH)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)


def test_the_order_is_5() -> None:
    x, steps = ANISOTROPIC.typical(LOW), (24, 32, 48, 64)
    exact = ANISOTROPIC.sampled(x, LOW, HIGH, HIGH)
    errors = [
        (log_likelihood(ANISOTROPIC, x, unit_probes(x), steps=n, **RANGE).mean(0) - exact)
        .abs()
        .max()
        .item()
        for n in steps
    ]
    assert fitted_order(steps, errors) == pytest.approx(5, abs=0.6)


def test_a_label_chooses_the_distribution() -> None:
    means = torch.stack([torch.full(SHAPE, value) for value in (-0.8, 0.1, 0.9)]).double()
    model, x, std = GaussianMixture(means, 0.3), images(3), 0.3
    labels = torch.eye(3)[[2, 0, 1]]
    found = log_likelihood(conditional(model, labels), x, unit_probes(x), steps=48, **RANGE)
    chosen = means[[2, 0, 1]]
    growth = math.sqrt((std**2 + HIGH**2) / (std**2 + LOW**2))
    end = chosen + (x - chosen) * growth
    exact = normal(end, HIGH) + NUM_VALUES * math.log(growth)
    torch.testing.assert_close(found.mean(0), exact, rtol=1e-5, atol=1e-5)
    others = log_likelihood(conditional(model, labels.flip(0)), x, unit_probes(x), **HOW)
    assert (others.mean(0) - exact).abs().max() > 1


HOW = {**RANGE, "steps": 16}


def test_of_a_mixture_it_follows_from_the_quantiles() -> None:
    """In one dimension the flow keeps quantiles, so its Jacobian is a quotient of densities."""
    data, high = Mixture((-1.0, 0.6), 0.2), 10.0
    x = torch.linspace(-1.4, 1.1, 9, dtype=torch.float64).reshape(3, 1, 1, 3)
    ends = data.flow(x.flatten(), LOW, high).reshape(x.shape)
    jacobian = (data.density(x, LOW) / data.density(ends, high)).log().flatten(1).sum(1)
    exact = normal(ends, high) + jacobian
    how = {"sigma_min": LOW, "sigma_max": high, "prior_scale": high}
    found = log_likelihood(data, x, signs(x, 1), steps=96, **how)[0]
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-5)
    coarse = log_likelihood(data, x, signs(x, 1), steps=16, **how)[0]
    bits = (coarse - exact) / (3 * math.log(2))
    assert bits.abs().max() < 0.02


@pytest.mark.parametrize("label_dim", [0, 3])
def test_the_trace_of_a_network_is_that_of_its_jacobian(label_dim: int) -> None:
    config = ModelConfig(
        network={"name": "ddpmpp", "model_channels": 8, "channel_mult": [1], "num_blocks": 1},
        img_resolution=(4, 4),
        img_channels=1,
        label_dim=label_dim,
    )
    denoiser = build(config).eval().requires_grad_(False)
    fill_by_rule(denoiser)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.eye(3)[:2] if label_dim else None
    denoise = conditional(denoiser, labels)
    for sigma in (0.1, 1.3, 20.0):
        denoised, traces = denoised_and_trace(denoise, x, sigma, unit_probes(x))
        torch.testing.assert_close(denoised, denoise(x, sigma))
        assert not denoised.requires_grad
        assert traces.dtype == torch.float64
        jacobian = torch.func.jacrev(lambda y, s=sigma: denoise(y, s))(x)
        for i in range(2):
            exact = jacobian[i, :, :, :, i].reshape(16, 16).trace()
            torch.testing.assert_close(traces[:, i].mean(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_network_has_the_backward_pass(name: str) -> None:
    """e^T (dD/dx) e is the slope of e^T D along e, here by a central difference."""
    options = small_variant(name)
    network = small_net(options.pop("name"), img_channels=1, label_dim=3, **options).double()
    denoiser = Denoiser(
        network, preconditioning.create("edm"), img_resolution=(8, 8), img_channels=1, label_dim=3
    ).requires_grad_(False)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    denoise, probes, step = conditional(denoiser, torch.eye(3)[:2]), signs(x, 2), 1e-5
    _, traces = denoised_and_trace(denoise, x, 0.7, probes)
    for probe, trace in zip(probes, traces, strict=True):
        change = denoise(x + step * probe, 0.7) - denoise(x - step * probe, 0.7)
        slope = (change * probe).flatten(1).sum(1) / (2 * step)
        torch.testing.assert_close(trace, slope, rtol=1e-5, atol=1e-5)


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    x, seen = images(), []
    probes = signs(x, 2)
    together = log_likelihood(ANISOTROPIC, x, probes, watch=seen.append, **HOW)
    alone = log_likelihood(ANISOTROPIC, x[2:3], probes[:, 2:3], **HOW)
    torch.testing.assert_close(together[:, 2:3], alone, rtol=1e-12, atol=0)
    assert seen == list(range(1, 17))


def test_memory_does_not_grow_with_the_steps() -> None:
    """No state keeps the graph of the steps before."""
    kept: list[Tensor] = []

    def watched(denoise: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(x: Tensor, sigma: float) -> Tensor:
            kept.append(x)
            return denoise(x, sigma)

        return call

    x = images().requires_grad_()
    found = log_likelihood(watched(ISOTROPIC), x, signs(x, 1), **HOW)
    assert not found.requires_grad
    assert all(point.is_leaf for point in kept)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sigma_min": 0.0}, "sigma_min=0"),
        ({"sigma_max": 0.001}, "sigma_max=0.001"),
        ({"sigma_max": math.inf}, "sigma_max=inf"),
        ({"steps": 0}, "steps is 0"),
    ],
    ids=["zero", "empty", "infinite", "steps"],
)
def test_a_range_that_cannot_be_is_refused(change: dict[str, float], words: str) -> None:
    x = images()
    with pytest.raises(ValueError, match=words):
        log_likelihood(ISOTROPIC, x, signs(x, 1), **{**HOW, **change})
