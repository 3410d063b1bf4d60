"""Parameters that are joined in one tensor: they stay what they are, and averages follow them."""

import copy

import pytest
import torch
from torch import nn

from tests.training.runs import CPU, tiny_config, tiny_data
from training.ema import average_of, update_average
from training.joined import JoinedParameters
from training.setup import create_trainer, model_of
from training.source import MicroBatches


def network() -> nn.Module:
    """Parameters of sizes that fill no cache line, one with channels last."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.GroupNorm(1, 5), nn.Conv2d(5, 7, 1))
    net[0].to(memory_format=torch.channels_last)
    return net


def test_values_and_layouts_stay_and_memory_is_one() -> None:
    plain, net = network(), network()
    (joined,) = JoinedParameters(net).tensors()
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.stride() == theirs.stride()
        assert ours.data_ptr() % 64 == 0
        assert ours.requires_grad
        assert ours.untyped_storage().data_ptr() == joined.untyped_storage().data_ptr()
    assert not torch.equal(net[0].weight, net[0].weight.flip(0))


def test_an_average_moves_as_one_of_parameters_that_are_apart() -> None:
    net = network()
    average = average_of(net)
    apart = copy.deepcopy(average)
    parts = JoinedParameters(average), JoinedParameters(net)
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters()):
            parameter.add_(number + 1)
    update_average(parts[0].tensors(), parts[1].tensors(), 0.75)
    weights = [parameter.detach() for parameter in net.parameters()]
    update_average([*apart.parameters()], weights, 0.75)
    for ours, theirs in zip(average.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_trainer_updates_what_is_joined() -> None:
    config, data = tiny_config("optimizer.clip_norm=1"), tiny_data()
    trainer = create_trainer(config, model_of(config, data), CPU)
    source = MicroBatches(config, data, trainer.objective, CPU)
    for index in range(4):
        before = copy.deepcopy(trainer.average)
        pairs = [(batch, draws) for batch, draws, _ in source.at(trainer.seen)]
        if index == 1:
            pairs[0][0].images.fill_(float("nan"))
        trainer.step(pairs)
    assert (int(trainer.guard.skipped), int(trainer.guard.in_a_row)) == (1, 0)
    moved = zip(before.parameters(), trainer.average.parameters(), strict=True)
    assert not any(torch.equal(old, new) for old, new in moved)


def test_parameters_of_other_kinds_stay_apart() -> None:
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    found = JoinedParameters(mixed).tensors()
    pointers = [parameter.data_ptr() for parameter in mixed.parameters()]
    assert [tensor.data_ptr() for tensor in found] == pointers


def test_a_parameter_that_was_moved_is_not_forgotten() -> None:
    net = network()
    part = JoinedParameters(net)
    net[0].weight.data = net[0].weight.data.clone()
    with pytest.raises(AssertionError, match="another memory"):
        part.tensors()
