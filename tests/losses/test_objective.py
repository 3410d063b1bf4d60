"""The objective against hand computations; its draws are data and its evaluation is pure."""

import math

import pytest
import torch

import losses
from diffusion import preconditioning, schedules
from diffusion.denoiser import Denoiser
from losses.batch import Batch, Draws, Generators, LossTerms
from losses.levels import LogUniform, VPTime
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
    _, (c_out,) = preconditioning.create("edm").coefficients(sigma)
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


def test_published_objectives_of_vp_and_ve() -> None:
    u = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert VPTime().sigma(u)[0].item() == pytest.approx(152.167, abs=1e-3)
    assert LogUniform().sigma(u).tolist() == pytest.approx([0.02, math.sqrt(2), 100.0])
    assert losses.create(weight="snr").weight(torch.tensor(4.0)).item() == 1 / 16


def test_a_term_over_part_of_the_batch_is_averaged_over_that_part() -> None:
    whole, part = torch.ones(4, 1, 2, 2), torch.full([2, 1, 2, 2], 3.0)
    terms = LossTerms({"whole": whole, "part": part}, torch.ones(4), "sum")
    assert terms.total().item() == 4 + 12


def test_the_loss_per_element_has_the_mean_of_the_total() -> None:
    whole, part = torch.rand(4, 1, 2, 2), torch.rand(1, 1, 2, 2)
    terms = LossTerms({"whole": whole, "part": part}, torch.ones(4), "mean")
    assert terms.elements().shape == whole.shape
    assert terms.elements().mean().item() == pytest.approx(terms.total().item(), rel=1e-6)


def test_a_factor_scales_its_term_and_zero_leaves_it_out() -> None:
    data, model = batch(), mixture()
    plain = losses.create()
    terms = ["denoising", {"name": "consistency", "lambda": 0}]
    without = losses.create(terms=terms)
    assert list(without.terms) == ["denoising"]
    draws = plain.draw(generators(3), data)
    again = without.draw(generators(3), data)
    assert torch.equal(draws.noise, again.noise)
    assert not again.terms
    double = losses.create(terms=[{"name": "denoising", "lambda": 2.0}])
    torch.testing.assert_close(
        double(model, data, draws).total(), 2 * plain(model, data, draws).total()
    )


def test_a_term_added_does_not_change_what_the_others_draw() -> None:
    data, level = batch(), {"name": "discrete", "schedule": "beta_linear"}
    more = ["denoising", "sequence_aware", "consistency"]
    plain = losses.create(noise_level=level).draw(generators(3), data)
    whole = losses.create(noise_level=level, terms=more).draw(generators(3), data)
    assert torch.equal(plain.sigma, whole.sigma)
    assert torch.equal(plain.noise, whole.noise)
    assert set(whole.terms) == {"sequence_aware", "consistency"}


def test_the_first_evaluation_is_shared() -> None:
    calls = []

    class Counted(GaussianMixture):
        def forward(self, x, sigma, *labels, **conditions):  # type: ignore[no-untyped-def]
            calls.append(len(x))
            return super().forward(x, sigma, *labels, **conditions)

    model = Counted(torch.randn(3, 2, 4, 6, dtype=torch.float64), 0.4)
    terms = [
        "denoising",
        {"name": "sequence_aware", "K": 3, "grid": {"name": "rho", "steps": 18}},
        {"name": "consistency", "batch_fraction": 0.5},
    ]
    objective, data = losses.create(terms=terms), batch(8)
    found = objective(model, data, objective.draw(generators(0), data))
    assert calls == [4] + [8] * 4 + [16] + [8, 8]  # rollout of 2 x 4; first, with its ends; K - 1
    assert {name: len(values) for name, values in found.values.items()} == {
        "denoising": 8,
        "sequence_aware": 8,
        "consistency": 4,
    }


def test_the_perturbation_reaches_the_input_and_not_the_target() -> None:
    data, model = batch(), mixture()
    objective = losses.create(input_perturbation=0.1)
    draws = objective.draw(generators(0), data)
    assert draws.perturbation is not None
    assert draws.perturbation.std().item() == pytest.approx(0.1, rel=0.3)
    sigma = draws.sigma.double().reshape(-1, 1, 1, 1)
    x = data.images + sigma * (draws.noise + draws.perturbation)
    expected = objective.weight(sigma) * (model(x, sigma) - data.images) ** 2
    torch.testing.assert_close(objective(model, data, draws).values["denoising"], expected)


def test_with_the_perturbation_a_network_is_told_the_noise_alone() -> None:
    class Recorder(torch.nn.Module):
        """A network that answers with its input, which it was given unscaled."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, c_noise, *conditions):  # type: ignore[no-untyped-def]
            return x * self.scale

    scalings = preconditioning.create("edm", output="eps", input_scale="identity")
    model = Denoiser(Recorder(), scalings, img_resolution=(4, 6), img_channels=2)
    y, n, extra = (torch.randn(2, 2, 4, 6) for _ in range(3))
    _, difference = model.residual(y + 0.5 * (n + extra), y, n, 0.5)
    torch.testing.assert_close(difference, -0.5 * ((y + 0.5 * (n + extra)) - n))


def test_the_learned_uncertainty_is_least_at_the_logarithm_of_the_loss() -> None:
    objective, data, model = losses.create(uncertainty=True), batch(16), mixture()
    plain = losses.create()
    draws = objective.draw(generators(0), data)
    draws = Draws(torch.full_like(draws.sigma, 0.7), draws.noise)
    head = objective.uncertainty
    assert head is not None
    start = objective(model, data, draws).values["denoising"]
    torch.testing.assert_close(start, plain(model, data, draws).values["denoising"])
    target = start.mean().log().item()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        objective(model, data, draws).total().backward()
        optimizer.step()
    assert head(torch.tensor([0.7])).item() == pytest.approx(target, abs=0.02)
    again = losses.create(uncertainty=True).uncertainty
    assert again is not None
    assert torch.equal(again.frequencies, head.frequencies)


def test_the_features_of_the_uncertainty_have_about_unit_norm() -> None:
    head = losses.create(uncertainty=True).uncertainty
    assert head is not None
    head(torch.tensor([0.7])).sum().backward()  # linear in the weight: its gradient is the features
    assert head.weight.grad is not None
    assert head.weight.grad.square().sum().item() == pytest.approx(1, abs=0.25)


NAMES = [(level, weight) for level in losses.NOISE_LEVELS for weight in losses.WEIGHTS]


@pytest.mark.parametrize(("level", "weight"), NAMES)
@pytest.mark.parametrize("sampling", losses.SAMPLINGS)
def test_any_level_goes_with_any_weight(level: str, weight: str, sampling: str) -> None:
    schedule = schedules.create("beta_linear")
    entry = {"name": level, "sampling": sampling}
    if (level, weight) == ("discrete", "vlb"):
        with pytest.raises(UserError, match="density"):
            losses.create(noise_level=entry, weight=weight, schedule=schedule)
        return
    objective = losses.create(noise_level=entry, weight=weight, schedule=schedule)
    data = batch()
    draws = objective.draw(generators(1), data)
    assert draws.sigma.shape == (6,)
    assert (draws.sigma > 0).all()
    assert objective(mixture(), data, draws).total().isfinite()


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
        ({"noise_level": {"name": "lognormal", "P_mean": "a"}}, "must be a finite number"),
        ({"noise_level": {"P_mean": 0.0}}, "a mapping with a name"),
        ({"weight": {"name": "edm", "sigma_data": -1}}, "positive"),
        ({"noise_level": {"name": "vp", "epsilon_t": 1.0}}, "epsilon_t"),
        ({"noise_level": {"name": "log_uniform", "sigma_min": 5, "sigma_max": 2}}, "below"),
        ({"noise_level": {"name": "lognormal", "sampling": "stratfied"}}, "'stratified'"),
        ({"noise_level": "discrete"}, "the model has no schedule"),
        ({"noise_level": {"name": "discrete", "schedule": "vp"}}, "take uniform_time"),
        ({"noise_level": {"name": "uniform_time", "schedule": "vp", "num_steps": -1}}, "least 0"),
        ({"weight": {"name": "min_snr", "gamma": 0.0}}, "gamma"),
        ({"input_perturbation": -0.1}, "at least 0"),
        ({"terms": [{"name": "denoising", "lambda": 0}]}, "nothing is left"),
        ({"terms": [{"name": "denoising", "lambda": -1}]}, "lambda is -1"),
        ({"terms": [{"name": "consistency", "lambda": -1}]}, "lambda is -1"),
        ({"terms": [{"name": "consistency", "num_steps": 1}]}, "from 2 to 10000"),
        ({"terms": [{"name": "consistency", "num_steps": 10**9}]}, "from 2 to 10000"),
        ({"terms": [{"name": "consistency", "batch_fraction": 0}]}, "batch_fraction"),
        ({"terms": [{"name": "consistency", "epsilon_min": 0.05}]}, "must be below"),
        ({"terms": [{"name": "consistency", "rollout": "em"}]}, "did you mean 'ema'"),
        ({"terms": [{"name": "consistency", "step": "euler"}]}, "euler_maruyama"),
        ({"terms": [{"name": "sequence_aware", "K": 1}]}, "from 2 to 10000"),
        ({"terms": [{"name": "sequence_aware", "K": 10**9}]}, "from 2 to 10000"),
        (
            {"terms": [{"name": "sequence_aware", "grid": {"name": "rho", "steps": 10**9}}]},
            "from 1 to 65536",
        ),
        ({"terms": ["sequence_aware"]}, "name the sampler's grid"),
        ({"terms": [{"name": "sequence_aware", "grid": "rh"}]}, "did you mean 'rho'"),
        ({"terms": [{"name": "sequence_aware", "normaliser": "K3"}]}, "normaliser"),
        ({"terms": ["vlb"]}, "num_steps: N"),
        ({"terms": ["consistency"], "uncertainty": True}, "of the term denoising"),
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
