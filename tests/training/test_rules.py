"""Learning rate, averages of weights, data order, statistics: each rule against its definition."""

import math

import numpy as np
import pytest
import torch

from losses.batch import LossTerms
from torch_utils.distributed import World
from torch_utils.seeding import Stream, derive_seed
from training.config import OptimizerConfig, TrainingConfig, resolve
from training.data import TrainingData
from training.ema import average_of, decay_at, update_average
from training.optimizer import create_optimizer, learning_rate
from training.order import image_indices
from training.precision import GROWTH_INTERVAL, StepGuard
from training.tally import Tally

CPU = World(0, 1, torch.device("cpu"))


def rate(seen: int, **options: object) -> float:
    config = TrainingConfig.model_validate({"optimizer": {"lr": 1.0, **options}})
    rule = resolve(config, num_images=1, world_size=1).optimizer
    return learning_rate(rule, seen=seen, batch=10, duration=1000)


def test_warmup_is_linear_in_images_and_may_count_the_step_itself() -> None:
    assert [rate(k, warmup="100img") for k in (0, 50, 100, 900)] == [0, 0.5, 1, 1]
    inclusive = {"warmup": "100img", "warmup_inclusive": True}
    assert [rate(k, **inclusive) for k in (0, 50, 90, 900)] == pytest.approx([0.1, 0.6, 1, 1])


def test_decays() -> None:
    assert rate(250, warmup=0, decay="cosine") == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert rate(1000, warmup=0, decay="cosine") == pytest.approx(0)
    root = {"warmup": 0, "decay": "inverse_sqrt", "decay_reference": "100img"}
    assert [rate(k, **root) for k in (0, 100, 400, 900)] == pytest.approx([1, 1, 1 / 2, 1 / 3])


def test_adamw_decays_weights_apart_from_the_gradient() -> None:
    config = OptimizerConfig(name="adamw", lr=0.1, weight_decay=0.5)
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = create_optimizer(config, [weight])
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5))


def beta(seen: int = 0, update: int = 1, **options: object) -> float:
    config = TrainingConfig.model_validate({"ema": options})
    rule = resolve(config, num_images=1, world_size=1).ema
    return decay_at(rule, seen=seen, batch=8, update=update)


def test_ema_rules() -> None:
    assert beta(seen=10**9, halflife="40img") == pytest.approx(0.5 ** (8 / 40))
    ramped = {"halflife": "40img", "rampup_ratio": 0.05}
    assert beta(seen=0, **ramped) == 0
    assert beta(seen=400, **ramped) == pytest.approx(0.5 ** (8 / 20))
    assert beta(seen=4000, **ramped) == pytest.approx(0.5 ** (8 / 40))
    assert beta(kind="constant", decay=0.9) == 0.9
    assert beta(kind="constant", decay=0.9, starts="first_step") == 0
    assert beta(kind="constant", decay=0.9, starts="first_step", update=2) == 0.9
    assert [beta(kind="ramp", decay=0.5, update=n) for n in (1, 2, 100)] == [2 / 11, 3 / 12, 0.5]


def test_the_average_moves_in_place_and_leaves_the_weights_alone() -> None:
    net = torch.nn.Linear(3, 2)
    average = average_of(net)
    pointers = [p.data_ptr() for p in average.parameters()]
    before = average.weight.clone()
    with torch.no_grad():
        net.weight += 1
    update_average([*average.parameters()], [p.detach() for p in net.parameters()], 0.75)
    torch.testing.assert_close(average.weight, before + 0.25)
    assert [p.data_ptr() for p in average.parameters()] == pointers
    assert not any(p.requires_grad for p in average.parameters())


def test_an_epoch_shows_every_image_once_and_another_order_each_time() -> None:
    first = image_indices(5, 0, 7, 7)
    second = image_indices(5, 7, 7, 7)
    assert sorted(first) == sorted(second) == list(range(7))
    assert list(first) != list(second)
    assert list(image_indices(6, 0, 7, 7)) != list(first)


def test_the_order_does_not_depend_on_how_it_is_cut() -> None:
    whole = image_indices(1, 3, 40, 11)
    parts = np.concatenate([image_indices(1, 3 + i, 4, 11) for i in range(0, 40, 4)])
    np.testing.assert_array_equal(whole, parts)


def test_seeds_differ_in_every_coordinate() -> None:
    seeds = {
        derive_seed(seed, stream, k, m)
        for seed in (0, 1)
        for stream in Stream
        for k in (0, 1, 2**40)
        for m in (0, 1)
    }
    assert len(seeds) == 2 * len(Stream) * 3 * 2


def test_batches_are_scaled_mirrored_and_masked() -> None:
    images = torch.arange(24, dtype=torch.uint8).reshape(2, 1, 3, 4)
    data = TrainingData(images, torch.eye(2), "x", xflip=True)
    assert len(data) == 4
    batch = data.batch(np.array([0, 3]), torch.Generator().manual_seed(0), label_dropout=0.5)
    torch.testing.assert_close(batch.images[0], images[0] / 127.5 - 1)
    torch.testing.assert_close(batch.images[1], images[1].flip(2) / 127.5 - 1)
    assert torch.equal(batch.labels, torch.eye(2))  # type: ignore[arg-type]
    many = data.batch(np.zeros(4000, dtype=np.int64), torch.Generator(), label_dropout=0.2)
    assert many.label_mask.float().mean().item() == pytest.approx(0.8, abs=0.03)  # type: ignore[union-attr]
    assert data.batch(np.array([1]), torch.Generator()).label_mask is None


def test_statistics_match_numpy_and_write_no_nan() -> None:
    values = torch.randn(3, 2, 4, 4).double()
    tally = Tally(CPU)
    for part in values.split(1):
        tally.report_loss(LossTerms({"denoising": part}, torch.ones(1)))
    found = tally.flush()
    for name in ("Loss/loss", "Loss/denoising"):
        assert found[name]["num"] == values.numel()
        assert found[name]["mean"] == pytest.approx(values.mean().item())
        assert found[name]["std"] == pytest.approx(values.numpy().std())
    assert tally.flush() == found  # nothing new: the last values stay
    tally.report("Loss/loss", torch.tensor([float("nan"), 1.0]))
    assert tally.flush()["Loss/loss"] == {"num": 2, "mean": None, "std": None}


def test_the_loss_scale_halves_on_overflow_and_doubles_after_good_steps() -> None:
    guard = StepGuard("fp16", 8.0, torch.device("cpu"))
    good, bad = torch.tensor(False), torch.tensor(True)
    guard.update(bad)
    guard.update(bad)
    assert (guard.scale.item(), guard.recent_bad_steps(), guard.skipped.item()) == (2.0, 2, 2)
    for _ in range(GROWTH_INTERVAL):
        guard.update(good)
    assert (guard.scale.item(), guard.recent_bad_steps(), guard.skipped.item()) == (4.0, 0, 2)
    fp32 = StepGuard("fp32", 8.0, torch.device("cpu"))
    fp32.update(bad)
    assert (fp32.scale.item(), fp32.skipped.item()) == (1.0, 1)


def test_the_loss_is_logged_in_bands_of_noise_levels() -> None:
    tally = Tally(CPU)
    sigma = torch.tensor([0.02, 0.02, 0.5, 100.0])
    values = torch.tensor([1.0, 3.0, 5.0, 7.0]).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    tally.report_loss(LossTerms({"denoising": values}, sigma))
    found = tally.flush()
    assert found["Loss/sigma/0.01_0.03"] == {"num": 2, "mean": 2.0, "std": 1.0}
    assert found["Loss/sigma/0.3_1"]["mean"] == 5
    assert found["Loss/sigma/above_30"]["mean"] == 7
    assert sum(name.startswith("Loss/sigma/") for name in found) == 3  # empty bands say nothing


def test_a_part_of_the_batch_counts_in_the_whole_loss() -> None:
    tally = Tally(CPU)
    terms = {"denoising": torch.ones(4, 1, 2, 2), "consistency": torch.full((1, 1, 2, 2), 3.0)}
    tally.report_loss(LossTerms(terms, torch.ones(4)))
    found = tally.flush()
    assert found["Loss/loss"]["mean"] == 4
    assert found["Loss/consistency"] == {"num": 4, "mean": 3.0, "std": 0.0}
