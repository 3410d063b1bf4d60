"""The sequence-aware term against its oracles."""

from typing import Any

import pytest
import torch

import losses
from diffusion import schedules
from diffusion.grids import rho_grid
from diffusion.tables import Table
from losses.batch import Batch, Draws, Generators, LossTerms
from losses.objective import Objective
from losses.sequence_aware import SequenceAware
from tests.closed_form import GaussianMixture

SHAPE = (3, 4, 2)  # C, H, W
SIZE = 24
LINEAR = schedules.create("beta_linear")
assert isinstance(LINEAR, Table)


def objective(lam: float = 1.0, **options: Any) -> Objective:
    term = {"name": "sequence_aware", "lambda": lam, **options}
    return losses.create(
        noise_level={"name": "discrete", "sampling": "antithetic"},
        weight="snr",
        terms=["denoising", term],
        schedule=LINEAR,
    )


def at_steps(steps: list[int], num_extra: int, seed: int = 0) -> tuple[Batch, Draws]:
    """Random data at given steps of the linear schedule."""
    generator = torch.Generator().manual_seed(seed)

    def normals(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, *SHAPE, generator=generator, dtype=torch.float64)

    assert isinstance(LINEAR, Table)
    sigma = torch.from_numpy(LINEAR.levels[steps])
    batch = Batch(normals(len(steps)))
    extra = {"sequence_aware": {"noise": normals(num_extra, len(steps))}}
    return batch, Draws(sigma, normals(len(steps)), terms=extra)


def predicts_no_noise(x: torch.Tensor, sigma: object, *_: object, **__: object) -> torch.Tensor:
    """The denoiser of a network whose output is zero: D = x."""
    return x


def mixture() -> GaussianMixture:
    generator = torch.Generator().manual_seed(5)
    means = torch.randn(3, *SHAPE, generator=generator, dtype=torch.float64)
    return GaussianMixture(means, 0.4)


@pytest.mark.parametrize("K", [2, 3, 4])
def test_a_network_that_predicts_nothing_has_the_expected_loss(K: int) -> None:
    # E L_simple = C H W; E L_sa = C H W (mean number of surviving terms) / K^2
    steps = [0, 1, 2, 3, 500] * 4000
    batch, draws = at_steps(steps, K - 1)
    terms = objective(K=K)(predicts_no_noise, batch, draws)
    surviving = sum(min(step + 1, K) for step in steps) / len(steps)
    assert terms.per_sample("denoising").mean().item() == pytest.approx(SIZE, rel=0.01)
    expected = SIZE * surviving / K**2
    assert terms.per_sample("sequence_aware").mean().item() == pytest.approx(expected, rel=0.02)


def test_at_the_first_step_only_the_first_residual_survives() -> None:
    batch, draws = at_steps([0, 0, 0], 2)
    terms = objective(lam=0.7, K=3)(mixture(), batch, draws)
    simple = terms.per_sample("denoising")
    torch.testing.assert_close(terms.per_sample("sequence_aware"), 0.7 / 9 * simple)


def test_masked_terms_are_as_if_they_had_been_skipped() -> None:
    model, steps = mixture(), [0, 1, 2, 7]
    batch, draws = at_steps(steps, 3)
    found = objective(K=4)(model, batch, draws).per_sample("sequence_aware")
    noises = torch.cat([draws.noise[None], draws.terms["sequence_aware"]["noise"]])
    assert isinstance(LINEAR, Table)
    for i, step in enumerate(steps):
        total = torch.zeros(1, *SHAPE, dtype=torch.float64)
        for k in range(min(step + 1, 4)):
            sigma, y = float(LINEAR.levels[step - k]), batch.images[i : i + 1]
            denoised = model(y + sigma * noises[k, i], sigma)
            total += (denoised - y) / sigma
        assert found[i].item() == pytest.approx(total.square().sum().item() / 16, rel=1e-6)


def test_float32_levels_count_the_same_neighbours() -> None:
    steps = [0, 1, 2, 3, 100, 999]
    _, draws = at_steps(steps, 2)
    term = objective(K=3).terms["sequence_aware"][1]
    assert isinstance(term, SequenceAware)
    exact, inside = term._levels(draws.sigma)
    rounded, same = term._levels(draws.sigma.float())
    assert torch.equal(inside, same)
    assert inside[:3].sum(0).tolist() == [1, 2, 3, 3, 3, 3]
    torch.testing.assert_close(rounded.double(), exact, rtol=1e-5, atol=0)


def test_normaliser_and_shared_noise() -> None:
    batch, draws = at_steps([10, 300], 1)
    model = mixture()
    published = objective()(model, batch, draws).per_sample("sequence_aware")
    other = objective(normaliser="K")(model, batch, draws).per_sample("sequence_aware")
    torch.testing.assert_close(other, 2 * published)
    shared = objective(shared_noise=True)
    assert not shared.draw(generators(), batch).terms
    again = Draws(draws.sigma, draws.noise, None,
                  {"sequence_aware": {"noise": draws.noise[None]}})  # fmt: skip
    torch.testing.assert_close(
        shared(model, batch, draws).per_sample("sequence_aware"),
        objective()(model, batch, again).per_sample("sequence_aware"),
    )


def generators() -> Generators:
    return Generators(torch.Generator().manual_seed(0), torch.Generator().manual_seed(1))


def test_trajectory_weights_are_what_ancestral_steps_make_of_an_error() -> None:
    # the published recursion in z: gap_s = w_s g_s + rho_s gap_{s+1}, from its alpha_bar
    assert isinstance(LINEAR, Table)
    signal = 1 / (1 + LINEAR.levels**2)
    step, K = 40, 3
    weights = []
    for k in range(K):
        s = step - k
        kept = signal[s] / signal[s - 1]
        w = (1 - kept) / (kept * (1 - signal[s])) ** 0.5
        for r in range(s - 1, step - K, -1):
            ratio = signal[r] / signal[r - 1]
            w *= ratio**0.5 * (1 - signal[r - 1]) / (1 - signal[r])
        weights.append(w)
    expected = torch.tensor(weights, dtype=torch.float64) * K / sum(weights)
    built = objective(K=K, weights="trajectory")
    term = built.terms["sequence_aware"][1]
    assert isinstance(term, SequenceAware)
    _, draws = at_steps([step], 2)
    sigmas, inside = term._levels(draws.sigma)
    model = type("M", (), {"weight": staticmethod(built.weight)})
    found = term._factors(sigmas, inside, model)[:K, 0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("steps", [[0], [1], [5]])
def test_trajectory_weights_sum_to_the_number_of_terms(steps: list[int]) -> None:
    built = objective(K=3, weights="trajectory")
    batch, draws = at_steps(steps, 2)
    term = built.terms["sequence_aware"][1]
    assert isinstance(term, SequenceAware)
    model = type("M", (), {"weight": staticmethod(built.weight)})
    found = term._factors(*term._levels(draws.sigma), model)
    assert found.sum().item() == pytest.approx(min(steps[0] + 1, 3))
    assert built(mixture(), batch, draws).total().isfinite()


def test_on_a_sampling_grid_the_neighbours_of_a_node_are_the_next_nodes() -> None:
    grid = {"name": "rho", "steps": 18, "sigma_min": 0.002, "sigma_max": 80}
    built = losses.create(terms=[{"name": "sequence_aware", "K": 3, "grid": grid}])
    term = built.terms["sequence_aware"][1]
    assert isinstance(term, SequenceAware)
    nodes = torch.from_numpy(rho_grid(18, 0.002, 80.0))
    levels, inside = term._levels(nodes)
    torch.testing.assert_close(levels[1, :-1], nodes[1:])
    torch.testing.assert_close(levels[2, :-2], nodes[2:])
    assert inside[:3, -1].tolist() == [True, False, False]
    between = (nodes[3] * nodes[4]).sqrt()[None]
    torch.testing.assert_close(term._levels(between)[0][1], (nodes[4] * nodes[5]).sqrt()[None])


def test_a_grid_of_steps_counts_in_the_models_schedule() -> None:
    for schedule in ("logsnr_cosine", "beta_linear"):
        term = {"name": "sequence_aware", "grid": {"name": "steps", "steps": 50}}
        built = losses.create(
            noise_level="uniform_time", terms=[term], schedule=schedules.create(schedule)
        )
        found = built.terms["sequence_aware"][1]
        assert isinstance(found, SequenceAware)
        assert found.table.num_steps == 50


def test_the_gradient_flows_through_all_evaluations() -> None:
    model = torch.nn.Linear(2, 2).double()

    def denoise(x: torch.Tensor, sigma: object, *_: object, **__: object) -> torch.Tensor:
        return model(x)

    batch, draws = at_steps([10, 20], 1)
    only = losses.create(noise_level="discrete", weight="snr", schedule=LINEAR,
                         terms=["sequence_aware"])  # fmt: skip
    terms = only(denoise, batch, draws)
    assert isinstance(terms, LossTerms)
    terms.total().backward()
    numeric = []
    for i in range(2):
        with torch.no_grad():
            model.bias[i] += 1e-6
            above = only(denoise, batch, draws).total()
            model.bias[i] -= 2e-6
            below = only(denoise, batch, draws).total()
            model.bias[i] += 1e-6
        numeric.append(((above - below) / 2e-6).item())
    assert model.bias.grad is not None
    assert model.bias.grad.tolist() == pytest.approx(numeric, rel=1e-5)
