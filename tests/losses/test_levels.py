"""Noise levels follow their densities, batches are spread, weightings are what they say."""

import math

import pytest
import torch

import losses
from diffusion import preconditioning, schedules
from diffusion.outputs import OUTPUTS
from losses import weights
from losses.batch import Batch, Generators
from losses.levels import Discrete, LogNormal, LogUniform, NoiseLevel, UniformTime, VPTime
from losses.sampling import variates
from torch_utils.seeding import Stream, derive_seed

CONTINUOUS = [
    VPTime(),
    VPTime(1e-3),
    VPTime(0.3),
    LogUniform(),
    LogUniform(0.1, 3.0),
    *(
        UniformTime(schedules.create(name))
        for name in ("logsnr_cosine", "logsnr_alpha2_linear", "logsnr_legacy", "vp", "flow", "edm")
    ),
]


def generators(first: int = 0, total: int | None = None) -> Generators:
    """Sources of a step; the micro-batch's own depends on its place."""
    step = torch.Generator().manual_seed(derive_seed(1, Stream.STEP, 0))
    micro = torch.Generator().manual_seed(derive_seed(1, Stream.MICRO, 0, first))
    return Generators(step, micro, first, total)


def test_lognormal_levels_follow_their_density_in_log_snr() -> None:
    level = LogNormal(-0.7, 0.9)
    sigma = level.sigma(variates("independent", generators(), 200_000, normal=True)).double()
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


@pytest.mark.parametrize("level", CONTINUOUS, ids=str)
def test_uniform_levels_follow_their_density_in_log_snr(level: NoiseLevel) -> None:
    sigma = level.sigma(torch.linspace(0, 1, 200_001, dtype=torch.float64)[:-1])
    log_snr = -2 * sigma.log()
    grid = torch.linspace(log_snr.min() - 2, log_snr.max() + 2, 400_001, dtype=torch.float64)
    density = level.log_density(grid).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=2e-3)
    middle = log_snr.median()
    below = grid[grid <= middle]
    found = torch.trapezoid(level.log_density(below).exp(), below).item()
    assert found == pytest.approx(0.5, abs=2e-3)


def test_discrete_levels_are_the_steps_of_the_schedule_each_as_often() -> None:
    table = schedules.create({"name": "beta_linear", "num_steps": 10})
    level = Discrete(table)
    uniform = torch.arange(1000, dtype=torch.float64) / 1000
    found, counts = level.sigma(uniform).unique(return_counts=True)
    assert counts.tolist() == [100] * 10
    torch.testing.assert_close(found, torch.from_numpy(level.table.levels))


def test_even_times_end_at_the_noisiest_and_leave_out_the_clean_one() -> None:
    schedule = schedules.create("logsnr_cosine")
    level = UniformTime(schedule, num_steps=4)
    found = level.sigma(torch.tensor([0.0, 0.24, 0.26, 0.6, 0.99], dtype=torch.float64))
    times = torch.tensor([0.25, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    torch.testing.assert_close(found, schedule.sigma(times))


@pytest.mark.parametrize("normal", [True, False])
@pytest.mark.parametrize("total", [8, 9])
def test_antithetic_batches_mirror_their_first_half(normal: bool, total: int) -> None:
    found = variates("antithetic", generators(), total, normal=normal)
    half = total // 2 + 1
    mirrored = -found[: total - half] if normal else 1 - found[: total - half]
    torch.testing.assert_close(found[half:], mirrored)
    assert found[:half].unique().numel() == half


@pytest.mark.parametrize("normal", [True, False])
def test_stratified_batches_have_one_sample_in_each_part(normal: bool) -> None:
    total = 64
    found = variates("stratified", generators(), total, normal=normal).double()
    uniform = torch.special.ndtr(found) if normal else found
    assert sorted((uniform * total).long().tolist()) == list(range(total))
    assert (uniform * total).long().tolist() != list(range(total))  # in random order


@pytest.mark.parametrize("normal", [True, False])
def test_a_stratified_sample_is_uniform_in_its_part(normal: bool) -> None:
    total = 4096
    found = variates("stratified", generators(), total, normal=normal).double()
    place = (torch.special.ndtr(found) if normal else found) * total % 1
    assert place.mean().item() == pytest.approx(0.5, abs=0.02)
    assert place.std().item() == pytest.approx(12**-0.5, abs=0.02)


@pytest.mark.parametrize("sampling", ["antithetic", "stratified"])
@pytest.mark.parametrize("normal", [True, False])
def test_micro_batches_cut_the_same_global_batch(sampling: str, normal: bool) -> None:
    whole = variates(sampling, generators(0, 12), 12, normal=normal)
    parts = [variates(sampling, generators(first, 12), 4, normal=normal) for first in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), whole)


def test_mirrored_steps_are_the_steps_counted_from_the_other_end() -> None:
    table = schedules.create("beta_linear")
    objective = losses.create(noise_level={"name": "discrete", "sampling": "antithetic"},
                              schedule=table)  # fmt: skip
    level = objective.noise_level
    assert isinstance(level, Discrete)
    draws = objective.draw(generators(), Batch(torch.zeros(32, 1, 2, 2)))
    index = level.table.nearest(draws.sigma)
    assert torch.equal(index[17:], 999 - index[:15])


# weighting -> the quantity whose plain squared error it is
IDENTITIES = {"constant": "x0", "snr": "eps", "snr_1plus": "v", "flow": "flow", "edm": "edm"}


@pytest.mark.parametrize(("weight", "output"), IDENTITIES.items())
@pytest.mark.parametrize("predicted", OUTPUTS)
def test_weightings_are_errors_of_a_prediction_whatever_is_predicted(
    weight: str, output: str, predicted: str
) -> None:
    sigma = torch.logspace(-3, 2, 11, dtype=torch.float64).reshape(-1, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)
    y, n = (torch.randn(11, 2, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    model = preconditioning.create("edm", output=predicted)
    raw = torch.cat(model.target(y, n, sigma), 1)
    raw = raw + 0.1 * torch.randn(raw.shape, generator=generator, dtype=torch.float64)
    # D - y of a model that predicts something else
    _, error = model.denoised_and_error(y + sigma * n, raw, y, n, sigma)
    _, (c_out,) = preconditioning.create("edm", output=output).coefficients(sigma)
    value = losses.create(weight=weight).weight(sigma) * error.square()
    torch.testing.assert_close(value, (error / c_out).square())


def test_truncated_weightings() -> None:
    sigma = torch.tensor([0.1, 0.5, 1.0, 4.0], dtype=torch.float64)
    assert weights.snr_trunc()(sigma).tolist() == pytest.approx([100, 4, 1, 1])
    assert weights.min_snr(5.0)(sigma).tolist() == pytest.approx([5, 4, 1, 1 / 16])
    assert weights.min_snr(50.0)(sigma).tolist() == pytest.approx([50, 4, 1, 1 / 16])


@pytest.mark.parametrize(
    "level", [LogNormal(0.3, 1.1), UniformTime(schedules.create("logsnr_cosine"))], ids=str
)
def test_the_bound_does_not_depend_on_what_training_draws_from(level: NoiseLevel) -> None:
    # D = 0 for y = 1 at every noise level in a range: 1/2 of the integral of SNR over log-SNR
    num = 400_001
    if isinstance(level, LogNormal):
        share = torch.linspace(1e-7, 1 - 1e-7, num, dtype=torch.float64)
        variate = math.sqrt(2) * torch.erfinv(2 * share - 1)
    else:
        variate = torch.linspace(0, 1, num, dtype=torch.float64)[:-1]
    sigma = level.sigma(variate)
    log_snr = -2 * sigma.log()
    inside = ((log_snr > -1) & (log_snr < 2)).double()  # not symmetric: signs count
    estimate = (weights.vlb(level)(sigma) * inside).nan_to_num().mean().item()
    assert estimate == pytest.approx((math.exp(2) - math.exp(-1)) / 2, rel=1e-3)
