"""What follows the gradients on a CPU: joined tensors against PyTorch's optimizer and averages."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.runs import CPU, tiny_config, tiny_data
from training.config import OptimizerConfig
from training.ema import average_of
from training.joined import Joined, can_join
from training.optimizer import create_optimizer
from training.setup import create_trainer, model_of
from training.source import MicroBatches
from training.update import JoinedUpdate, Update, update_for

BETAS = (0.75, 0.5)
GOOD, BAD = torch.tensor(False), torch.tensor(True)


def network() -> nn.Module:
    """Parameters of sizes that fill no cache line, one large, one with channels last."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.Linear(200, 100), nn.GroupNorm(1, 5), nn.Conv2d(5, 7, 3)
    )
    net[3].to(memory_format=torch.channels_last)
    return net


class Pair:
    """The same network, optimizer and averages under an update of each kind.

    Attributes:
        ours, plain: the updates.
    """

    def __init__(self, **options: Any) -> None:
        config = OptimizerConfig(lr=0.1, **options)
        self.nets = [network(), network()]
        # beside it something that is trained and has no average
        self.others = [nn.Linear(3, 2), nn.Linear(3, 2)]
        self.others[1].load_state_dict(self.others[0].state_dict())
        self.averages = [[average_of(net) for _ in BETAS] for net in self.nets]
        self.ours, self.plain = (
            make(create_optimizer(config, [*net.parameters(), *other.parameters()]), net, averages)
            for make, net, other, averages in zip(
                (update_for, Update), self.nets, self.others, self.averages, strict=True
            )
        )
        assert isinstance(self.ours, JoinedUpdate)

    def parameters(self, index: int) -> list[nn.Parameter]:
        """All that are trained."""
        return [*self.nets[index].parameters(), *self.others[index].parameters()]

    def step(self, seed: int, is_bad: Tensor = GOOD, without: Sequence[int] = ()) -> None:
        """A step of both with the same gradients; some parameters may have none."""
        for index, update in enumerate((self.ours, self.plain)):
            random = torch.Generator().manual_seed(seed)
            for number, parameter in enumerate(self.parameters(index)):
                gradient = torch.randn(parameter.shape, generator=random)
                parameter.grad = (
                    None if number in without else gradient.to(memory_format=_layout(parameter))
                )
            update.step(is_bad, BETAS)

    def check(self) -> None:
        """Weights, averages and the optimizers' states are equal."""
        for ours, plain in zip(self.parameters(0), self.parameters(1), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)
            assert ours.stride() == plain.stride()
            mine, theirs = (
                update.optimizer.state[parameter]
                for update, parameter in ((self.ours, ours), (self.plain, plain))
            )
            assert mine.keys() == theirs.keys()
            for name, value in theirs.items():
                torch.testing.assert_close(mine[name], value, rtol=1e-6, atol=1e-6)
        for ours_average, plain_average in zip(*self.averages, strict=True):
            for ours, plain in zip(
                ours_average.parameters(), plain_average.parameters(), strict=True
            ):
                torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)


def _layout(tensor: Tensor) -> torch.memory_format:
    is_last = tensor.ndim == 4 and not tensor.is_contiguous()
    return torch.channels_last if is_last else torch.contiguous_format


@pytest.mark.parametrize(
    "options", [{}, {"name": "adamw", "weight_decay": 0.1}, {"betas": (0.8, 0.95), "eps": 0.1}]
)
def test_steps_are_those_of_pytorch(options: dict[str, Any]) -> None:
    pair = Pair(**options)
    start = [parameter.detach().clone() for parameter in pair.parameters(0)]
    for seed in range(3):
        pair.step(seed)
    pair.check()
    assert not any(map(torch.equal, start, pair.parameters(0)))


def test_a_bad_step_moves_averages_only() -> None:
    pair = Pair()
    pair.step(0)
    weights = [parameter.detach().clone() for parameter in pair.parameters(0)]
    pair.step(1, BAD)
    assert all(map(torch.equal, weights, pair.parameters(0)))
    pair.check()
    pair.step(2)
    pair.check()


@pytest.mark.parametrize("without", [(1,), (2,), (0, 1, 2), (8,)])
def test_parameters_without_gradient_stay_and_count_no_step(without: tuple[int, ...]) -> None:
    pair = Pair()
    for seed, missing in enumerate([(), without, (), without, ()]):
        pair.step(seed, without=missing)
        pair.check()


def test_a_state_that_is_loaded_is_gone_on_with() -> None:
    pair = Pair()
    for seed in range(2):
        pair.step(seed)
    saved = [copy.deepcopy(u.optimizer.state_dict()) for u in (pair.ours, pair.plain)]
    pair.step(2)
    for update, state in zip((pair.ours, pair.plain), saved, strict=True):
        update.optimizer.load_state_dict(state)
        update.note_loaded()
    pair.step(3)
    pair.check()


def test_moments_in_another_layout_are_those_of_the_same_elements() -> None:
    pair = Pair()
    pair.step(0)
    saved = copy.deepcopy(pair.ours.optimizer.state_dict())
    turned = copy.deepcopy(saved)
    num = 0
    for values in turned["state"].values():
        for name in ("exp_avg", "exp_avg_sq"):
            moment = values[name]
            if moment.ndim == 4:
                is_last = _layout(moment) == torch.channels_last
                other = torch.contiguous_format if is_last else torch.channels_last
                values[name] = moment.contiguous(memory_format=other)
                num += values[name].stride() != moment.stride()
    assert num == 4
    # PyTorch keeps the layout that it is given, so it is given that of the weights
    for update, state in ((pair.ours, turned), (pair.plain, saved)):
        update.optimizer.load_state_dict(state)
        update.note_loaded()
    pair.step(1)
    pair.check()


def test_a_state_is_saved_as_pytorch_has_it() -> None:
    pair = Pair()
    pair.step(0)
    ours, plain = (u.optimizer.state_dict() for u in (pair.ours, pair.plain))
    assert ours["param_groups"] == plain["param_groups"]
    for index, values in plain["state"].items():
        assert ours["state"][index].keys() == values.keys()
        for name, value in values.items():
            found = ours["state"][index][name]
            assert (found.shape, found.dtype, found.stride()) == (
                (value.shape, value.dtype, value.stride())
            )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_not_finite_shows_in_the_size(value: float) -> None:
    pair = Pair()
    pair.step(0)
    for index, update in enumerate((pair.ours, pair.plain)):
        assert torch.isfinite(update.size(update.gradients()))
        for parameter in pair.parameters(index):
            last = (slice(-1, None),) * parameter.ndim
            assert parameter.grad is not None
            before = parameter.grad[last].clone()
            parameter.grad[last] = value
            assert not torch.isfinite(update.size(update.gradients()))
            parameter.grad[last] = before


def test_a_parameter_that_was_moved_is_not_forgotten() -> None:
    pair = Pair()
    pair.step(0)
    first = next(pair.nets[0].parameters())
    first.data = first.data.clone()
    with pytest.raises(AssertionError, match="another memory"):
        pair.step(1)


def test_tensors_of_other_kinds_stay_apart() -> None:
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    optimizer = torch.optim.Adam(mixed.parameters(), fused=True)
    assert type(update_for(optimizer, mixed, [average_of(mixed)])) is Update
    assert not can_join(torch.zeros(4, 6)[:, ::2])


def test_joined_tensors_keep_values_and_layouts() -> None:
    tensors = [parameter.detach() for parameter in network().parameters()]
    joined = Joined(tensors)
    for part, tensor in zip(joined.parts, tensors, strict=True):
        assert torch.equal(part, tensor)
        assert part.stride() == tensor.stride()
        assert part.data_ptr() % 64 == 0
        assert part.untyped_storage().data_ptr() == joined.whole.untyped_storage().data_ptr()
    first = joined.first(2)
    assert first.data_ptr() == joined.whole.data_ptr()
    assert first.abs().sum() == tensors[0].abs().sum() + tensors[1].abs().sum()
    assert joined.first(len(tensors)).shape == joined.whole.shape
    assert joined.holds(joined.parts)
    assert not joined.holds(tensors)


@pytest.mark.parametrize("clip", ["null", "1"])
def test_a_trainer_skips_a_bad_step_and_its_averages_move(clip: str) -> None:
    config, data = tiny_config(f"optimizer.clip_norm={clip}"), tiny_data()
    trainer = create_trainer(config, model_of(config, data), CPU)
    source = MicroBatches(config, data, trainer.objective, CPU)
    for index in range(4):
        before = copy.deepcopy(trainer.average)
        weights = copy.deepcopy(trainer.denoiser)
        pairs = [(batch, draws) for batch, draws, _ in source.at(trainer.seen)]
        if index == 1:
            pairs[0][0].images.fill_(float("nan"))
        trainer.step(pairs)
        is_same = map(torch.equal, weights.parameters(), trainer.denoiser.parameters())
        assert all(is_same) == (index < 2)  # the first step only fills the moments
    assert (int(trainer.guard.skipped), int(trainer.guard.in_a_row)) == (1, 0)
    moved = zip(before.parameters(), trainer.average.parameters(), strict=True)
    assert not any(torch.equal(old, new) for old, new in moved)
