"""The trainer among processes: what DistributedDataParallel makes of it."""

import warnings
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from tests.training.runs import CPU, tiny_config, tiny_data
from torch_utils.distributed import World
from training.setup import create_trainer, model_of
from training.source import MicroBatches
from training.trainer import Trainer


@pytest.fixture
def group() -> Iterator[World]:
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield World(0, 1, torch.device("cpu"), is_group=True)
    dist.destroy_process_group()


def trained(world: World) -> Trainer:
    """A trainer after one step."""
    config, data = tiny_config(), tiny_data()
    trainer = create_trainer(config, model_of(config, data), world)
    parts = list(MicroBatches(config, data, trainer.objective, world).at(0))
    trainer.step([part[:2] for part in parts], [part[2] for part in parts])
    return trainer


def test_a_group_of_one_is_the_plain_process_and_draws_no_warning(group: World) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = trained(group)
    expected = trained(CPU)
    for name, value in expected.denoiser.state_dict().items():
        assert torch.equal(found.denoiser.state_dict()[name], value), name
