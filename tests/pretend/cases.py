"""Small training steps and sampling runs, for a device to be given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from models.build import build
from models.config import ModelConfig
from samplers import SAMPLERS
from samplers.generate import generate
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from samplers.starts import Sample
from torch_utils.distributed import World
from training.config import resolve
from training.data import load_training_data
from training.recipes import load_config
from training.setup import create_trainer, model_of
from training.source import MicroBatches
from training.trainer import Trainer

# name -> overrides of the tiny recipe
STEPS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "fp16": ("run.precision=fp16",),
    "everything": (
        "augment.p=0.5",
        "network.dropout=0.1",
        "run.label_dropout=0.2",
        "run.batch_gpu=8",
        "run.remat=true",
        "optimizer.clip_norm=1",
        "loss.uncertainty=true",
        "loss.input_perturbation=0.1",
        "loss.terms=[denoising, {name: consistency, batch_fraction: 0.25, num_steps: 3},"
        " {name: sequence_aware, grid: {name: rho, steps: 18}}]",
    ),
    "data on the host": ("run.data_device=cpu", "data.xflip=true"),
    "discrete": (
        "preconditioning={name: ddpm}",
        "loss.noise_level=null",
        "loss.terms=[denoising, sequence_aware]",
    ),
    "stratified": ("loss.noise_level={name: lognormal, sampling: stratified}",),
    "antithetic": (
        "preconditioning={name: ddpm}",
        "loss.noise_level={name: discrete, sampling: antithetic}",
    ),
    "vlb": (
        "preconditioning={name: vdiff}",
        "loss.noise_level={name: uniform_time, num_steps: 100}",
        "loss.terms=[denoising, vlb]",
    ),
}


def training(device: str, *overrides: str) -> tuple[Trainer, Callable[[], Tensor]]:
    """A trainer of the tiny recipe, and its next step with all that a step draws and reads."""
    config = load_config("configs/digits-tiny.yaml", {}, overrides)
    data = load_training_data(config.data)
    config = resolve(config, num_images=len(data), world_size=1)
    world = World(0, 1, torch.device(device))
    data = data.placed(world.device, config.run.data_device)
    trainer = create_trainer(config, model_of(config, data), world)
    source = MicroBatches(config, data, trainer.objective, world)

    def step() -> Tensor:
        parts = list(source.at(trainer.seen))
        return trainer.step([(batch, draws) for batch, draws, _ in parts], [s for *_, s in parts])

    return trainer, step


@dataclass(frozen=True)
class Sampling:
    """One way of sampling.

    Attributes:
        options: of the sampler, as a snapshot has them.
        preconditioning: name of a preset.
        label_dim: classes of the model.
        has_guide: whether a second model guides the first.
        rng_device: where random numbers are drawn; None for the device of the model.
    """

    options: dict[str, Any]
    preconditioning: str = "edm"
    label_dim: int = 0
    has_guide: bool = False
    rng_device: str | None = "cpu"


def _churned(**more: Any) -> dict[str, Any]:
    return {"name": "heun", "steps": 3, "S_churn": 8, **more}


PRESETS = ("ddpm", "vdiff", "vp", "ve", "iddpm", "flow")
SAMPLING = [
    *(Sampling({"name": name, "steps": 3}) for name in SAMPLERS),
    *(Sampling({"name": "ddim", "steps": 2, "eta": 1.0}, preset) for preset in PRESETS),
    Sampling(_churned(guidance=2.0), label_dim=10),
    Sampling(_churned(guidance=2.0), label_dim=10, has_guide=True),
    Sampling(
        _churned(guidance={"scale": 2.0, "batch": "split", "interval": [0.1, 10]}, clip=True),
        label_dim=10,
    ),
    Sampling(_churned(), label_dim=10, rng_device=None),
]


def model_config(preset: str = "edm", label_dim: int = 0) -> ModelConfig:
    """A small model with attention, for images of 8x16."""
    network = {
        "name": "ddpmpp",
        "model_channels": 16,
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "attn_resolutions": [4],
    }
    return ModelConfig.model_validate(
        {
            "img_resolution": [8, 16],
            "img_channels": 3,
            "label_dim": label_dim,
            "network": network,
            "preconditioning": {"name": preset},
        }
    )


def model(device: str, preset: str = "edm", label_dim: int = 0, seed: int = 0) -> Denoiser:
    """The denoiser of `model_config`."""
    torch.manual_seed(seed)
    return build(model_config(preset, label_dim)).eval().requires_grad_(False).to(device)


def sampling(device: str, case: Sampling) -> Callable[[], Tensor]:
    """The next batch of three images, of two."""
    denoiser = model(device, case.preconditioning, case.label_dim)
    guide = model(device, case.preconditioning, case.label_dim, 1) if case.has_guide else None
    batches = generate(
        sampling_of(generation_settings(case.options), denoiser, guide),
        [Sample(seed) for seed in range(6)],
        batch_size=3,
        rng_device=case.rng_device or device,
    )
    return lambda: next(batches).images
