"""A training run small enough for tests, with everything random switched on.

Its images are in memory and in no file. `training.launch.run` reads a data set, so that the loop is
called here; tests of the whole road from a config to a run call `launch.run` or a program.
"""

import os
import threading
from pathlib import Path
from typing import Any

import torch

from torch_utils.distributed import World
from training.choice import Wanted, checked
from training.config import ResolvedConfig, TrainingConfig, resolve
from training.data import TrainingData
from training.loop import train
from training.recipes import load_config
from training.state import newest_state

CPU = World(0, 1, torch.device("cpu"))

# 12 steps of 16 images in micro-batches of 8; dropout, label dropout, mirroring, augmentation,
# levels spread over the global batch, three terms and the learned uncertainty on
OVERRIDES = [
    "data.max_size=100",
    "data.xflip=true",
    "augment.p=0.3",
    "network.channel_mult=[1]",
    "network.dropout=0.2",
    "loss.noise_level.sampling=stratified",
    "loss.terms=[denoising,{name: sequence_aware,lambda: 0.1,grid: {name: rho,steps: 6}},"
    "{name: consistency,lambda: 1.0,batch_fraction: 0.5,num_steps: 3,rollout: ema}]",
    "loss.input_perturbation=0.1",
    "loss.uncertainty=true",
    "optimizer.decay=constant",
    "optimizer.lr=2e-3",
    "run.label_dropout=0.3",
    "run.batch=16",
    "run.batch_gpu=8",
    "run.duration=12it",
    "run.tick=2it",
    "run.snap=4it",
    "run.dump=2it",
    "sampler.steps=2",
]
ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "configs" / "digits-tiny.yaml"


class SlowFolder(os.PathLike[str]):
    """A folder on a disk that answers only when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = threading.Event()
        self.answers = threading.Event()

    def __fspath__(self) -> str:
        self.asked.set()
        assert self.answers.wait(60)
        return str(self.folder)


def tiny_recipe(*overrides: str) -> TrainingConfig:
    """The config of the small run, as read."""
    return load_config(RECIPE, {}, [*OVERRIDES, *overrides])


def tiny_config(*overrides: str) -> ResolvedConfig:
    """The resolved config of the small run."""
    return resolve(tiny_recipe(*overrides), num_images=200, world_size=1)


def tiny_wish(*overrides: str, allow_config_change: bool = False) -> Wanted:
    """The small run, as somebody wants it who has its data."""
    config = tiny_recipe(*overrides)
    return checked(config, tiny_data(), CPU, allow_config_change=allow_config_change)


def tiny_data(num: int = 100, xflip: bool = True) -> TrainingData:
    """Random images 8x6 with ten classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (num, 1, 8, 6), generator=generator, dtype=torch.uint8)
    labels = torch.eye(10)[torch.arange(num) % 10]
    return TrainingData(images, labels, "tiny", xflip=xflip)


def train_tiny(folder: Path, *overrides: str, resume: bool = False) -> dict[str, Any]:
    """Train in this process; the state at the end."""
    folder.mkdir(exist_ok=True)
    state = newest_state(folder)[1] if resume else None
    config = tiny_config(*overrides)
    train(config, tiny_data(xflip=config.data.xflip), folder, CPU, state=state)
    final = newest_state(folder)[1]
    assert final is not None
    return final


def assert_equal_states(a: Any, b: Any, path: str = "") -> None:
    """Two states agree bit for bit, timings aside."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a.keys() - {"seconds", "last", "config"}:
            assert_equal_states(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal_states(x, y, f"{path}[{index}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path
