"""The objective against hand computations; its draws are data and its evaluation is pure."""

import math

import pytest
import torch

import losses
from diffusion.preconditioning import PRESETS
from losses.batch import Batch, Draws, Generators, LossTerms
from losses.levels import LogNormal, LogUniform, NoiseLevel, VPTime
from tests.closed_form import GaussianMixture
from torch_utils.errors import UserError


def generators(seed: int) -> Generators:
    return Generators(torch.Generator().manual_seed(99), torch.Generator().manual_seed(seed))


def batch(n: int = 6) -> Batch:
    values = torch.randn(n, 2, 4, 6, generator=torch.Generator().manual_seed(1))
    return Batch(values.double())


def mixture() -> GaussianMixture:
    return GaussianMixture(torch.randn(3, 2, 4, 6, dtype=torch.float64), 0.4)


def test_the_denoising_term_is_the_weighted_square() -> None:
    objective, model, data = losses.create(), mixture(), batch()
    draws = objective.draw(generators(0), data)
    terms = objective(model, data, draws)
    sigma = draws.sigma.double().reshape(-1, 1, 1, 1)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    expected = weight * (model(data.images + sigma * draws.noise, sigma) - data.images) ** 2
    torch.testing.assert_close(terms.values["denoising"], expected)
    torch.testing.assert_close(terms.total(), expected.sum() / 6)
    mean = losses.create(reduction="mean")(model, data, draws)
    torch.testing.assert_close(mean.total(), expected.mean())


def test_the_edm_weight_makes_the_network_error_count_equally_at_all_levels() -> None:
    sigma = torch.logspace(-3, 2, 20, dtype=torch.float64)
    _, c_out = PRESETS["edm"].coefficients(sigma)
    weight = losses.create().weight(sigma)
    torch.testing.assert_close(weight * c_out**2, torch.ones_like(sigma))


def test_equal_generators_draw_equal_numbers_and_the_evaluation_repeats() -> None:
    objective, data = losses.create(), batch()
    first, second = (objective.draw(generators(5), data) for _ in range(2))
    assert torch.equal(first.sigma, second.sigma)
    assert torch.equal(first.noise, second.noise)
    assert not torch.equal(first.noise, objective.draw(generators(6), data).noise)
    model = mixture()
    a, b = (objective(model, data, first).total() for _ in range(2))
    assert torch.equal(a, b)


def test_lognormal_levels_follow_their_density_in_log_snr() -> None:
    level = LogNormal(-0.7, 0.9)
    sigma = level.draw(torch.Generator().manual_seed(0), 200_000).double()
    log_snr = -2 * sigma.log()
    assert log_snr.mean().item() == pytest.approx(1.4, abs=0.02)
    assert log_snr.std().item() == pytest.approx(1.8, abs=0.02)
    grid = torch.linspace(-12, 15, 4001, dtype=torch.float64)
    density = level.log_density(grid).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-6)
    inside = ((log_snr > 0) & (log_snr < 2)).double().mean().item()
    part = grid[(grid >= 0) & (grid <= 2)]
    expected = torch.trapezoid(level.log_density(part).exp(), part).item()
    assert inside == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("level", [VPTime(), VPTime(1e-3), LogUniform(), LogUniform(0.1, 3.0)])
def test_uniform_levels_follow_their_density_in_log_snr(level: NoiseLevel) -> None:
    sigma = level.sigma(torch.linspace(0, 1, 200_001, dtype=torch.float64)[:-1])
    log_snr = -2 * sigma.log()
    grid = torch.linspace(log_snr.min() - 2, log_snr.max() + 2, 400_001, dtype=torch.float64)
    density = level.log_density(grid).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-3)
    middle = log_snr.median()
    below = grid[grid <= middle]
    found = torch.trapezoid(level.log_density(below).exp(), below).item()
    assert found == pytest.approx(0.5, abs=2e-3)
    drawn = level.draw(torch.Generator().manual_seed(0), 50_000)
    assert drawn.dtype == torch.float32
    assert (-2 * drawn.log()).median().item() == pytest.approx(middle.item(), abs=0.1)


def test_published_objectives_of_vp_and_ve() -> None:
    u = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert VPTime().sigma(u)[0].item() == pytest.approx(152.167, abs=1e-3)
    assert LogUniform().sigma(u).tolist() == pytest.approx([0.02, math.sqrt(2), 100.0])
    assert losses.create(weight="snr").weight(torch.tensor(4.0)).item() == 1 / 16


def test_a_term_over_part_of_the_batch_is_averaged_over_that_part() -> None:
    whole, part = torch.ones(4, 1, 2, 2), torch.full([2, 1, 2, 2], 3.0)
    terms = LossTerms({"whole": whole, "part": part}, torch.ones(4), "sum")
    assert terms.total().item() == 4 + 12


def test_labels_reach_the_denoiser_and_masked_ones_do_not() -> None:
    model, objective = mixture(), losses.create()
    images = batch(4).images
    labels = torch.eye(3)[[0, 1, 2, 0]]
    draws = Draws(torch.full([4], 5.0).double(), torch.randn(4, 2, 4, 6).double())

    def value(**conditions: torch.Tensor) -> torch.Tensor:
        return objective(model, Batch(images, **conditions), draws).per_sample("denoising")

    assert not torch.allclose(value(labels=labels), value())
    masked = value(labels=labels, label_mask=torch.tensor([True, False, True, False]))
    torch.testing.assert_close(masked[1::2], value()[1::2])
    torch.testing.assert_close(masked[::2], value(labels=labels)[::2])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"noise_level": "log_normal"}, "did you mean 'lognormal'"),
        ({"weight": "emd"}, "did you mean 'edm'"),
        ({"terms": ["denoisin"]}, "did you mean 'denoising'"),
        ({"terms": []}, "empty"),
        ({"terms": ["denoising", "denoising"]}, "twice"),
        ({"reduction": "max"}, "sum, mean"),
        ({"noise_level": {"name": "lognormal", "P_std": 0.0}}, "P_std"),
        ({"noise_level": {"name": "lognormal", "P_men": 0.0}}, "did you mean 'P_mean'"),
        ({"noise_level": {"name": "lognormal", "P_mean": "a"}}, "must be a number"),
        ({"noise_level": {"P_mean": 0.0}}, "a mapping with a name"),
        ({"weight": {"name": "edm", "sigma_data": -1}}, "positive"),
        ({"noise_level": {"name": "vp", "epsilon_t": 1.0}}, "epsilon_t"),
        ({"noise_level": {"name": "log_uniform", "sigma_min": 5, "sigma_max": 2}}, "below"),
    ],
)
def test_bad_objectives_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        losses.create(**wrong)


def test_the_weight_assumes_the_models_sigma_data_unless_it_says() -> None:
    one = torch.ones(1)
    assert losses.create(sigma_data=1.0).weight(one).item() == pytest.approx(2)
    told = losses.create(sigma_data=1.0, weight={"name": "edm", "sigma_data": 0.5})
    assert told.weight(one).item() == pytest.approx(5)
    assert math.isfinite(told.weight(torch.tensor([1e-6])).item())
