"""The consistency term: the martingale property, what it evaluates, and how."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import losses
from losses.batch import Batch, Context, Draws, Generators, NoisedBatch, Points
from losses.consistency import Consistency, Transition, euler_maruyama, posterior
from tests.closed_form import GaussianMixture

SIGMA, SIGMA_END = 0.06, 0.01


def two_modes(right: float = 0.1) -> GaussianMixture:
    """Narrow modes at -0.1 and `right`, of images of one pixel."""
    means = torch.tensor([-0.1, right], dtype=torch.float64)
    return GaussianMixture(means.reshape(2, 1, 1, 1), 0.01)


def exact_transition(model: GaussianMixture) -> Transition:
    """Draw y from its exact posterior, then x_next from the forward process given x and y."""
    generator = torch.Generator().manual_seed(7)

    def step(x: Tensor, _: Tensor, sigma: Tensor, sigma_next: Tensor, noise: Tensor) -> Tensor:
        variance = model.std**2 + sigma.square()
        offsets = x[:, None] - model.means
        logits = -offsets.flatten(2).square().sum(2) / (2 * variance.reshape(-1, 1))
        chosen = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        mean = model.means[chosen]
        fresh = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        y = (
            mean
            + model.std**2 / variance * (x - mean)
            + model.std * sigma / variance.sqrt() * fresh
        )
        q = (sigma_next / sigma).square()
        return q * x + (1 - q) * y + sigma_next * (1 - q).clamp(min=0).sqrt() * noise

    return step


def at_one_point(
    model: GaussianMixture, step: Transition, num_steps: int, *, x: float = 0.02, num: int = 100_000
) -> tuple[Tensor, float]:
    """Values of the term at x between the modes, and the mean of B - A."""
    term = dataclasses.replace(
        Consistency(num_steps=num_steps + 1, epsilon_min=SIGMA - SIGMA_END, epsilon_max=1.0),
        step=step,
    )
    point = torch.full((num, 1, 1, 1), x, dtype=torch.float64)
    sigma = torch.full((num,), SIGMA, dtype=torch.float64)
    last: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor, **_: object) -> Tensor:
        last[:] = [model(x, sigma)]
        return last[0]

    anchor = denoise(point, sigma)
    noised = NoisedBatch(point, point, sigma, point, anchor, point)
    context = Context(denoise, denoise, {}, torch.ones_like)
    generator = torch.Generator().manual_seed(0)
    draws = {
        "window": torch.zeros(num, dtype=torch.float64),
        "noise": torch.randn(num_steps, 2 * num, 1, 1, 1, generator=generator, dtype=torch.float64),
    }
    ends = term.extra_points(Points(point, sigma, {}), context, draws)
    context = dataclasses.replace(context, extra=denoise(ends.x, ends.sigma))
    values = term(noised, context, draws)
    return values, (last[0].mean() - anchor.mean()).item()


def z_score(values: Tensor) -> float:
    return (values.mean() / (values.std() / len(values) ** 0.5)).item()


def test_the_exact_denoiser_is_a_martingale_and_a_perturbed_one_is_not() -> None:
    truth = two_modes()
    values, drift = at_one_point(truth, exact_transition(truth), 5)
    assert abs(z_score(values)) < 4
    assert abs(drift) < 1e-3
    values, drift = at_one_point(two_modes(right=0.13), exact_transition(truth), 5)
    assert z_score(values) > 20
    assert values.mean().item() == pytest.approx(drift**2, rel=0.1)


def test_a_step_of_the_reverse_sde_takes_both_coefficients_at_its_start() -> None:
    x, fresh = torch.full([1, 1, 1, 1], 1.7), torch.full([1, 1, 1, 1], 0.4)
    sigma, after = torch.full([1, 1, 1, 1], 3.0), torch.full([1, 1, 1, 1], 1.0)
    found = euler_maruyama(x, 0.5 * x, sigma, after, fresh)
    # x + 2 (after - sigma) (x - D) / sigma + sqrt(2 (sigma - after) sigma) e
    assert found.item() == pytest.approx(1.7 - 4 * 0.85 / 3 + 12**0.5 * 0.4)


@pytest.mark.parametrize("step", [euler_maruyama, posterior])
def test_the_bias_of_approximate_steps_falls_with_their_number(step: Transition) -> None:
    drifts = [abs(at_one_point(two_modes(), step, num)[1]) for num in (5, 10, 20, 80)]
    assert drifts[0] > 2e-3
    assert drifts[0] > 1.3 * drifts[1] > 1.6 * drifts[2]
    assert drifts[3] < 0.35 * drifts[0]


class Small(nn.Module):
    """A denoiser with weights, dropout and labels, which records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.dropout = nn.Dropout(0.5)
        self.calls: list[dict[str, Any]] = []

    def forward(self, x: Tensor, sigma: Tensor, *_: object, **conditions: Any) -> Tensor:
        gradient = torch.is_grad_enabled()
        self.calls.append({"training": self.training, "gradient": gradient, **conditions})
        return self.dropout(self.weight * x / (1 + sigma.reshape(-1, 1, 1, 1)))


def batch(num: int = 8) -> Batch:
    images = torch.randn(num, 1, 4, 6, generator=torch.Generator().manual_seed(3)).double()
    rows = torch.arange(num)
    return Batch(images, torch.eye(num), rows % 2 == 0, rows[:, None].float())


def drawn(objective: Any, data: Batch) -> Draws:
    made = objective.draw(
        Generators(torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)), data
    )
    assert isinstance(made, Draws)
    return made


def test_rollouts_have_no_dropout_and_no_gradient_and_everything_keeps_its_labels() -> None:
    term = {"name": "consistency", "batch_fraction": 0.25}
    objective, data, model = losses.create(terms=[term]), batch(), Small()
    model.train()
    objective(model, data, drawn(objective, data))
    *rollout, last = model.calls
    assert len(rollout) == 5
    assert last["training"]
    assert last["gradient"]
    for call in rollout:
        assert not call["training"]
        assert not call["gradient"]
    assert model.training
    assert model.dropout.training
    rows = [*range(8), 0, 1, 0, 1]  # the shared point, and where the rollouts end
    assert torch.equal(last["labels"], torch.eye(8)[rows])
    assert last["label_mask"].tolist() == [row % 2 == 0 for row in rows]
    assert last["augment_labels"].flatten().tolist() == rows
    copies = [1, *[2] * 4]  # both start at the same point
    for num, call in zip(copies, rollout, strict=True):
        assert torch.equal(call["labels"], torch.eye(8)[[0, 1] * num])
        assert call["label_mask"].tolist() == [True, False] * num
        assert call["augment_labels"].flatten().tolist() == [0, 1] * num


def test_the_rollout_follows_the_average_if_asked() -> None:
    for rollout in ("online", "ema"):
        objective = losses.create(terms=[{"name": "consistency", "rollout": rollout}])
        data, model, average = batch(), Small(), Small()
        objective(model, data, drawn(objective, data), rollout=average)
        assert (len(model.calls), len(average.calls)) == ((6, 0) if rollout == "online" else (1, 5))


def test_the_gradient_is_that_of_the_product_with_the_rollout_held_fixed() -> None:
    objective = losses.create(terms=[{"name": "consistency", "lambda": 3.0}])
    data, model, fixed = batch(), Small().eval(), Small().eval()
    draws = drawn(objective, data)
    objective(model, data, draws).total().backward()
    found = model.weight.grad

    frozen = losses.create(terms=[{"name": "consistency", "lambda": 3.0, "rollout": "ema"}])

    def value(weight: float) -> float:
        moved = Small().eval()
        moved.weight.data.fill_(weight)
        return frozen(moved, data, draws, rollout=fixed).total().item()

    numeric = (value(0.5 + 1e-5) - value(0.5 - 1e-5)) / 2e-5
    assert found is not None
    assert found.item() == pytest.approx(numeric, rel=1e-6)


def test_the_window_starts_at_its_least_width_and_never_goes_up() -> None:
    term = Consistency(num_steps=4, epsilon_min=0.01, epsilon_max=0.03, rho=1.0)
    sigma = torch.tensor([0.5, 0.5, 0.0215, 0.001], dtype=torch.float64)
    nodes = torch.stack(term.nodes(sigma, torch.tensor([0.0, 0.5, 0.9, 0.5], dtype=torch.float64)))
    assert nodes[-1].tolist() == pytest.approx([0.49, 0.48, 0.002, 0.001])
    assert nodes[:, 1].tolist() == pytest.approx([0.5, 0.5 - 0.02 / 3, 0.5 - 0.04 / 3, 0.48])
    assert (nodes[1:] <= nodes[:-1]).all()
    bent = torch.stack(dataclasses.replace(term, rho=7.0).nodes(sigma, torch.full([4], 0.5)))
    roots = bent[:, 0] ** (1 / 7)
    torch.testing.assert_close(roots[1:] - roots[:-1], (roots[1] - roots[0]).expand(3))


def test_below_the_floor_nothing_moves() -> None:
    objective, data = losses.create(terms=["consistency"]), batch()
    draws = drawn(objective, data)
    low = Draws(torch.full([8], 1e-3), draws.noise, None, draws.terms)
    values = objective(Small().eval(), data, low).values["consistency"]
    torch.testing.assert_close(values, torch.zeros_like(values))


def test_a_part_of_the_batch_has_at_least_one_sample() -> None:
    assert [Consistency(batch_fraction=f).size(16) for f in (1e-6, 0.125, 0.5, 1.0)] == [
        1,
        2,
        8,
        16,
    ]
