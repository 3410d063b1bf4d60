"""A small model of every family in every published container, made on the spot."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from importers.diffusers import write_diffusers
from models.build import build
from models.config import ModelConfig, PreconditioningConfig
from models.snapshot import SnapshotInfo
from tests.importers import edm_files
from tests.importers.foreign import Shapes, ddpm_xyf, sa_dpm, v_diffusion
from tests.parity.weights import fill_by_rule

LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SA_DPM = sa_dpm(32, [1, 2], 1, [False, True])
V_DIFFUSION = v_diffusion(32, [1, 2], 1, [False, True], classes=4)
DDPM_XYF = ddpm_xyf(32, [1, 2], 1, [False, True], num_classes=4)
SIDE: dict[str, dict[str, Any]] = {
    "sa-dpm": {"image_size": 8, "num_diffusion_timesteps": 1000, **LINEAR},
    "v-diffusion": {
        **{"resolution": 8, "num_heads": 1, "model_out_type": "v"},
        **{"logsnr_schedule": "cosine", "logsnr_min": -20.0, "logsnr_max": 20.0},
    },
    "ddpm-xyf": {
        **{"resolution": 8, "num_heads": 1, "objective": "pred_eps", "total_steps": 1000},
        **LINEAR,
    },
}


def drawn(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep the size of what passes through them; norms have weights around 1."""
    random = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        fan_in = int(np.prod(shape[1:]))
        scale = 0.1 if len(shape) == 1 else fan_in**-0.5
        values = scale * random.standard_normal(shape)
        is_norm = len(shape) == 1 and name.endswith("weight")
        tensors[name] = torch.from_numpy(values + is_norm).float()
    return tensors


def prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": tensor for name, tensor in state.items()}


def _write(path: Path, content: object, side: dict[str, Any] | None) -> Path:
    torch.save(content, path)
    if side is not None:
        path.with_suffix(".yaml").write_text(yaml.safe_dump(side))
    return path


def sa_dpm_average(folder: Path) -> Path:
    """model_N_ema.pth: a bare state dict of averages."""
    return _write(folder / "model_1475_ema.pth", prefixed(drawn(SA_DPM)), SIDE["sa-dpm"])


def sa_dpm_training(folder: Path) -> Path:
    """ckpt.pth: raw weights, averages in the optimizer; the run's own config.yml beside it."""
    raw, ema = prefixed(drawn(SA_DPM, 1)), drawn(SA_DPM)
    slots = {i: {"step": 7, "ema": tensor} for i, tensor in enumerate(ema.values())}
    container = {
        "model_dict": raw,
        "epoch": 3,
        "args": argparse.Namespace(config="afhq.yml", lamda=0.2),
        "optimizer": {"state": slots, "param_groups": [{"lr": 2e-4, "params": list(slots)}]},
        "scheduler": {"last_epoch": 0},
        "step": 40,
    }
    tag = "!!python/object:argparse.Namespace"
    (folder / "config.yml").write_text(
        f"data: {tag}\n  dataset: AFHQ\n  image_size: 8\n  channels: 3\n"
        f"model: {tag}\n  ch: 32\n  ch_mult: [1, 2]\n  var_type: fixedlarge\n  ema_rate: 0.9999\n"
        f"diffusion: {tag}\n  beta_schedule: linear\n  beta_start: 0.0001\n  beta_end: 0.02\n"
        f"  num_diffusion_timesteps: 1000\ntraining: {tag}\n  batch_size: 32\n"
    )
    return _write(folder / "ckpt.pth", container, None)


def ddim_list(folder: Path) -> Path:
    """The .ckpt of the DDIM code: weights, optimizer, epoch, step, average."""
    raw, ema = prefixed(drawn(SA_DPM, 1)), drawn(SA_DPM)
    return _write(folder / "celeba.ckpt", [raw, {"state": {}}, 2, 900, ema], SIDE["sa-dpm"])


def ddim_bare(folder: Path) -> Path:
    """The .ckpt of the ported weights: a bare state dict, here in the older format."""
    path = folder / "diffusion_cifar10.ckpt"
    torch.save(drawn(SA_DPM), path, _use_new_zipfile_serialization=False)
    path.with_suffix(".yaml").write_text(yaml.safe_dump(SIDE["sa-dpm"]))
    return path


def v_diffusion_run(folder: Path) -> Path:
    """ckpts/ckpt_N.pt with the run's config.json above, which names a data set of 32x32."""
    (folder / "ckpts").mkdir()
    raw, ema = prefixed(drawn(V_DIFFUSION, 1)), prefixed(drawn(V_DIFFUSION))
    container = {
        **{"model": raw, "optimizer": {"state": {}}, "epoch": 16, "scheduler": {"last_epoch": 50}},
        "ema": {"decay": 0.9999, "shadow": ema, "num_updates": 50},
        "rng": {0: torch.zeros(16, dtype=torch.uint8)},
    }
    config = {
        "data": {"name": "cifar10", "root": "~/datasets"},
        "model": {"hid_channels": 32, "ch_multipliers": [1, 2], "num_heads": 1},
        "diffusion": {
            **{"logsnr_schedule": "cosine", "logsnr_min": -20.0, "logsnr_max": 20.0},
            **{"model_out_type": "v", "model_var_type": "fixed_medium", "intp_frac": 0.3},
            **{"sample_timesteps": 128, "train_timesteps": 0, "allow_rescale": False},
        },
        "conditional": {"use_cfg": True, "w_guide": 0.1, "p_uncond": 0.1},
        "train": {"batch_size": 128, "ema_decay": 0.9999},
    }
    (folder / "config.json").write_text(yaml.safe_dump(config, default_flow_style=True, width=9999))
    return _write(folder / "ckpts" / "ckpt_16.pt", container, None)


def ddpm_xyf_folder(folder: Path) -> Path:
    """ckpt/stepN with its files, and the run's config above."""
    step = folder / "ckpt" / "step009999"
    step.mkdir(parents=True)
    raw, ema = drawn(DDPM_XYF, 1), drawn(DDPM_XYF)
    shadow = {"decay": 0.9999, "shadow": [*ema.values()], "num_updates": 10_000}
    for name, content in {
        "model.pt": {"model": raw},
        "ema_model.pt": {"model": ema},
        "ema.pt": {"ema": shadow},
        "optimizer.pt": {"optimizer": {"state": {}}},
        "meta.pt": {"step": 9999},
    }.items():
        torch.save(content, step / name)
    params = {"dim": 32, "dim_mults": [1, 2], "num_res_blocks": 1, "n_heads": 1}
    config = {
        "seed": 2022,
        "data": {"target": "x", "params": {"img_size": 8, "img_channels": 3}, "num_classes": 10},
        "model": {"target": "x", "params": params},
        "diffusion": {
            "target": "x",
            "params": {"total_steps": 1000, "objective": "pred_eps", "var_type": "fixed_small"}
            | LINEAR,
        },
        "train": {"batch_size": 64, "p_uncond": 0.2, "ema_decay": 0.9999, "ema_gradual": True},
    }
    (folder / "config-2023-08-01-00-00-00.yaml").write_text(yaml.safe_dump(config))
    return step


def ddpm_xyf_safetensors(folder: Path) -> Path:
    """The same weights in safetensors, which that system reads too."""
    path = folder / "model.safetensors"
    save_file(drawn(DDPM_XYF), path)
    path.with_suffix(".yaml").write_text(yaml.safe_dump(SIDE["ddpm-xyf"]))
    return path


def _edm_network() -> Any:
    config = edm_files.foreign_config("EDMPrecond", "ddpmpp")
    return edm_files.denoiser_of(config.model_copy(update={"img_channels": 3}))


def edm_snapshot(folder: Path) -> Path:
    """network-snapshot-N.pkl."""
    content = edm_files.whole(edm_files.snapshot(_edm_network(), "EDMPrecond", "ddpmpp"))
    path = folder / "network-snapshot-000012.pkl"
    return edm_files.write(path, edm_files.pickled(content))


def diffusers_folder(folder: Path) -> Path:
    """A pipeline's folder whose sampler is DDIM, so that few steps are all of them."""
    config = ModelConfig(
        network={"name": "ddpm", "model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1}
        | {"attn_resolutions": [4]},
        preconditioning=PreconditioningConfig(name="ddpm"),
        img_resolution=(8, 8),
        img_channels=3,
    )
    denoiser = build(config)
    fill_by_rule(denoiser)
    told = {"name": "ddim", "grid": "steps", "steps": 50, "spacing": "leading", "clip_x0": True}
    write_diffusers(folder / "model", denoiser, SnapshotInfo(config, sampling=told))
    return folder / "model"


FILES: dict[str, Callable[[Path], Path]] = {
    "sa-dpm-average": sa_dpm_average,
    "sa-dpm-training": sa_dpm_training,
    "ddim-list": ddim_list,
    "ddim-bare": ddim_bare,
    "v-diffusion": v_diffusion_run,
    "ddpm-xyf-folder": ddpm_xyf_folder,
    "ddpm-xyf-safetensors": ddpm_xyf_safetensors,
    "edm": edm_snapshot,
    "diffusers": diffusers_folder,
}
FAMILIES = {
    **dict.fromkeys(("sa-dpm-average", "sa-dpm-training", "ddim-list", "ddim-bare"), "sa-dpm"),
    **{"v-diffusion": "v-diffusion", "edm": "edm", "diffusers": "diffusers"},
    **dict.fromkeys(("ddpm-xyf-folder", "ddpm-xyf-safetensors"), "ddpm-xyf"),
}
