"""The variational bound against numerical integrals and torch's own distributions."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

import losses
from diffusion import schedules
from diffusion.steps import posterior_mean, variance_large, variance_small
from losses.batch import Batch, Draws
from losses.vlb import log_likelihood
from tests.closed_form import GaussianMixture

STEPS = 8


COSINE = {"name": "logsnr_cosine"}
NOISY = {"name": "logsnr_linear", "logsnr_min": -6.0, "logsnr_max": 0.0}  # its sigma(0) is 1


def bits(
    step: int, variance: str, fraction: float = 0.0, chain: dict = COSINE
) -> tuple[torch.Tensor, dict]:
    """The term at one step, and what it was made of."""
    generator = torch.Generator().manual_seed(0)
    y, n = (torch.randn(5, 1, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    y = y.clamp(-1, 1)
    model = GaussianMixture(0.5 * y[:2], 0.3)
    schedule = schedules.create(chain)
    objective = losses.create(
        noise_level={"name": "uniform_time", "num_steps": STEPS},
        terms=[{"name": "vlb", "variance": variance, "fraction": fraction}],
        reduction="mean",
        schedule=schedule,
    )
    sigma, below = (float(schedule.sigma(i / STEPS)) for i in (step, step - 1))
    draws = Draws(torch.full([5], sigma, dtype=torch.float64), n)
    x = y + sigma * n
    parts = {"y": y, "x": x, "denoised": model(x, sigma), "sigma": sigma, "below": below}
    return objective(model, Batch(y), draws).values["vlb"], parts


@pytest.mark.parametrize("step", [2, 5, 8])
@pytest.mark.parametrize(
    ("variance", "fraction"), [("small", 0.0), ("large", 0.0), ("interpolated", 0.3)]
)
def test_a_step_is_the_divergence_of_two_normals(step: int, variance: str, fraction: float) -> None:
    found, p = bits(step, variance, fraction)
    levels = p["sigma"], p["below"]
    small, large = variance_small(*levels), variance_large(*levels)
    chosen = {"small": small, "large": large, "interpolated": small**0.7 * large**0.3}[variance]
    truth = Normal(posterior_mean(p["x"], p["y"], *levels), math.sqrt(small))
    model = Normal(posterior_mean(p["x"], p["denoised"], *levels), math.sqrt(chosen))
    expected = kl_divergence(truth, model) / math.log(2)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("chain", [COSINE, NOISY], ids=["clean", "noisy"])
def test_the_first_step_is_the_likelihood_of_the_bin(chain: dict) -> None:
    found, p = bits(1, "large", chain=chain)
    std = math.sqrt(variance_large(p["sigma"], p["below"]) / (1 + p["below"] ** 2))
    normal = Normal(p["denoised"], std)
    above, below = normal.cdf(p["y"] + 1 / 255), normal.cdf(p["y"] - 1 / 255)
    above = torch.where(p["y"] > 0.999, 1.0, above)
    below = torch.where(p["y"] < -0.999, 0.0, below)
    expected = -(above - below).log2()
    likely = expected < 12  # further out the published approximation differs
    assert likely.double().mean() > 0.4
    torch.testing.assert_close(found[likely], expected[likely], rtol=0.03, atol=0.02)


def test_probabilities_of_all_bins_sum_to_one() -> None:
    values = torch.arange(256, dtype=torch.float64) * 2 / 255 - 1
    for mean, std in ((0.1, 0.05), (-0.9, 0.4), (0.0, 3.0)):
        probability = log_likelihood(values, values - mean, torch.tensor(std)).exp()
        assert probability.sum().item() == pytest.approx(1, abs=1e-9)


def test_with_many_steps_the_sum_tends_to_the_continuous_bound() -> None:
    # half the integral of SNR |D - y|^2 over log-SNR, for D = 0, y = 1
    schedule, num = schedules.create({"name": "logsnr_linear", "logsnr_min": -4.0,
                                      "logsnr_max": 2.0}), 2000  # fmt: skip
    objective = losses.create(
        noise_level={"name": "uniform_time", "num_steps": num},
        terms=[{"name": "vlb", "variance": "small"}],
        reduction="mean",
        schedule=schedule,
    )
    times = torch.arange(2, num + 1, dtype=torch.float64) / num
    y = torch.ones(num - 1, 1, 1, 1, dtype=torch.float64)
    draws = Draws(schedule.sigma(times), torch.zeros_like(y))
    found = objective(lambda x, sigma, **_: torch.zeros_like(x), Batch(y), draws)  # type: ignore[arg-type]
    total = found.per_sample("vlb").sum().item() * math.log(2)
    assert total == pytest.approx((math.exp(2) - math.exp(-4)) / 2, rel=5e-3)
