"""Parameters that are joined in one tensor are updated as each by itself would be."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.runs import CPU, tiny_config, tiny_data
from training.config import OptimizerConfig
from training.joined import JoinedParameters, load_optimizer_state, optimizer_state
from training.optimizer import create_optimizer
from training.setup import create_trainer, model_of
from training.source import MicroBatches

ADAM = OptimizerConfig(lr=1e-2)
ADAMW = OptimizerConfig(lr=1e-2, name="adamw", weight_decay=0.1)


def networks() -> nn.ModuleList:
    """Two modules with parameters of sizes that fill no cache line, one with channels last."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 5, 3), nn.GroupNorm(1, 5), nn.Conv2d(5, 7, 1))
    first[0].to(memory_format=torch.channels_last)
    return nn.ModuleList([first, nn.Linear(3, 1)])


def fill_gradients(module: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)


def joined(module: nn.ModuleList, config: OptimizerConfig) -> tuple[list[JoinedParameters], Any]:
    parts = [JoinedParameters(child) for child in module]
    return parts, create_optimizer(config, [t for part in parts for t in part.tensors])


def step(parts: list[JoinedParameters], optimizer: torch.optim.Optimizer) -> None:
    for part in parts:
        part.gradients()
    optimizer.step()


def assert_close(a: nn.Module, b: nn.Module) -> None:
    for (name, ours), (_, theirs) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7, msg=name)


def test_values_and_layouts_stay_and_memory_is_one() -> None:
    plain, module = networks(), networks()
    parts, _ = joined(module, ADAM)
    assert [len(part.tensors) for part in parts] == [1, 1]
    for ours, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.stride() == theirs.stride()
        assert ours.data_ptr() % 64 == 0
        assert ours.requires_grad
    for part in parts:
        assert {p.untyped_storage().data_ptr() for p in part.parameters} == {
            part.tensors[0].untyped_storage().data_ptr()
        }


@pytest.mark.parametrize("config", [ADAM, ADAMW], ids=["adam", "adamw"])
def test_steps_are_those_of_parameters_that_are_apart(config: OptimizerConfig) -> None:
    plain, module = networks(), networks()
    theirs = create_optimizer(config, plain.parameters())
    parts, ours = joined(module, config)
    for seed in range(3):
        fill_gradients(plain, seed)
        fill_gradients(module, seed)
        theirs.step()
        step(parts, ours)
    assert_close(module, plain)
    assert not torch.equal(plain[0][0].weight, networks()[0][0].weight)


def test_gradients_are_joined_each_in_its_place_and_are_zero_where_there_are_none() -> None:
    module = networks()
    part = JoinedParameters(module[0])
    fill_gradients(module, 1)
    part.gradients()
    module.zero_grad(set_to_none=True)
    weight = module[0][0].weight
    weight.grad = torch.arange(float(weight.numel())).reshape(weight.shape)
    with torch.no_grad():
        weight.zero_()
    (gradient,) = part.gradients()
    assert part.tensors[0].grad is gradient
    torch.optim.SGD(part.tensors, lr=1.0).step()
    assert torch.equal(weight, -weight.grad)
    assert gradient.count_nonzero() == weight.numel() - 1


def test_a_parameter_without_a_gradient_stays_where_it_is() -> None:
    module = networks()
    parts, optimizer = joined(module, ADAM)
    fill_gradients(module, 1)
    unused = module[0][1].bias
    unused.grad = None
    before = unused.detach().clone()
    step(parts, optimizer)
    assert torch.equal(unused, before)
    assert not torch.equal(module[0][2].bias, networks()[0][2].bias)


def test_the_state_is_the_one_of_an_optimizer_of_all_parameters() -> None:
    plain, module = networks(), networks()
    theirs = create_optimizer(ADAM, plain.parameters())
    parts, ours = joined(module, ADAM)
    assert optimizer_state(ours, parts) == theirs.state_dict()
    for each in (plain, module):
        fill_gradients(each, 5)
    theirs.step()
    step(parts, ours)
    found, expected = optimizer_state(ours, parts), theirs.state_dict()
    assert found["param_groups"] == expected["param_groups"]
    assert found["state"].keys() == expected["state"].keys()
    for number, state in expected["state"].items():
        assert found["state"][number].keys() == state.keys()
        for name, tensor in state.items():
            torch.testing.assert_close(found["state"][number][name], tensor, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("is_joined", [True, False])
def test_going_on_from_a_state_is_going_on(is_joined: bool) -> None:
    """Also from a state of parameters that were apart, as states of a GPU are."""
    module = networks()
    parts, optimizer = joined(module, ADAM)
    if not is_joined:
        optimizer = create_optimizer(ADAM, module.parameters())
    fill_gradients(module, 1)
    step(parts, optimizer) if is_joined else optimizer.step()
    state = optimizer_state(optimizer, parts) if is_joined else optimizer.state_dict()
    later = networks()
    new_parts, new = joined(later, ADAM)
    with torch.no_grad():
        for to, value in zip(later.parameters(), module.parameters(), strict=True):
            to.copy_(value)
    load_optimizer_state(new, new_parts, copy.deepcopy(state))
    for each in (module, later):
        fill_gradients(each, 2)
    step(parts, optimizer) if is_joined else optimizer.step()
    step(new_parts, new)
    assert_close(later, module)
    if is_joined:
        for ours, theirs in zip(later.parameters(), module.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_parameters_of_other_kinds_stay_apart() -> None:
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    part = JoinedParameters(mixed)
    assert part.tensors == [*mixed.parameters()]
    mixed[0].weight.grad = torch.ones(2, 2)
    (gradient,) = part.gradients()
    assert gradient is mixed[0].weight.grad


def test_a_parameter_that_was_moved_is_not_forgotten() -> None:
    module = networks()
    part = JoinedParameters(module[0])
    module[0][0].weight.data = module[0][0].weight.data.clone()
    with pytest.raises(AssertionError, match="another memory"):
        part.gradients()


def test_a_step_that_is_not_finite_spoils_no_later_one_by_what_lies_between_parameters() -> None:
    config, data = tiny_config("optimizer.clip_norm=1"), tiny_data()
    trainer = create_trainer(config, model_of(config, data), CPU)
    source = MicroBatches(config, data, trainer.objective, CPU)
    joined = trainer.optimizer.param_groups[0]["params"][0]
    assert joined.numel() > sum(p.numel() for p in trainer.denoiser.parameters())
    for index in range(4):
        pairs = [(batch, draws) for batch, draws, _ in source.at(trainer.seen)]
        if index == 1:
            pairs[0][0].images.fill_(float("nan"))
        trainer.step(pairs)
    assert (int(trainer.guard.skipped), int(trainer.guard.in_a_row)) == (1, 0)
    assert joined.isfinite().all()
