"""Adapters from golden cases to Driftless, one function a kind; each returns the case's error."""

import io
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

import networks
from data import augment
from data.archive import ImageArchive
from diffusion.preconditioning import PRESETS
from importers.families import import_network
from importers.published import translate
from losses.batch import Batch, Draws
from models.build import build
from models.config import ModelConfig, PreconditioningConfig
from networks import NETWORKS
from samplers.settings import settings_from
from tests.closed_form import GaussianMixture
from tests.parity.harness import Case, NotBuilt, relative_error
from tests.parity.weights import fill_by_rule
from torch_utils.distributed import World
from training.config import TrainingConfig, resolve
from training.setup import create_objective
from training.trainer import Trainer

ROOT = Path(__file__).parents[2]

PRECONDITIONINGS = {
    "EDMPrecond": "edm",
    "VPPrecond": "vp",
    "VEPrecond": "ve",
    "iDDPMPrecond": "iddpm",
}
NETWORK_OPTIONS = ("model_channels", "channel_mult", "num_blocks", "attn_resolutions", "dropout")


def denoiser_config(spec: dict[str, Any]) -> ModelConfig:
    """Our config for a network under its published names."""
    precond = PRECONDITIONINGS[spec["precond"]]
    if precond not in PRESETS:
        raise NotBuilt(f"preconditioning {precond}")
    if spec["arch"] not in NETWORKS:
        raise NotBuilt(f"network {spec['arch']}")
    keys = ("sigma_min", "sigma_max")
    sigma_range = {key: spec[key] for key in keys if spec.get(key, "inf") != "inf"}
    return ModelConfig(
        network={"name": spec["arch"], **{key: spec[key] for key in NETWORK_OPTIONS}},
        preconditioning=PreconditioningConfig(name=precond, **sigma_range),
        img_resolution=(spec["img_resolution"], spec["img_resolution"]),
        img_channels=spec["img_channels"],
        label_dim=spec["label_dim"],
        augment_dim=spec["augment_dim"],
    )


def networks_edm(case: Case) -> float:
    """The denoiser's output with weights filled by rule."""
    denoiser = build(denoiser_config(case.spec)).eval()
    shapes = {name: list(t.shape) for name, t in denoiser.state_dict().items()}
    if shapes != case.spec["state_shapes"]:
        raise AssertionError("state-dict names or shapes differ from the published ones")
    fill_by_rule(denoiser)
    given = {
        name: torch.from_numpy(case.arrays[f"{case.name}/{name}"])
        for name in ("x", "sigma", "labels", "augment_labels")
        if f"{case.name}/{name}" in case.arrays
    }
    with torch.no_grad():
        denoised = denoiser(**given)
    return relative_error(denoised.numpy(), case.arrays[f"{case.name}/D"])


def networks_ddpm(case: Case) -> float:
    """The raw output of an imported network, its foreign weights filled by rule."""
    spec = case.spec
    weights = {name: torch.zeros(shape) for name, shape in spec["state_shapes"].items()}
    fill_by_rule(weights)
    config = translate(spec["family"], flat(spec["config"]))
    x, c_noise, golden = (
        torch.from_numpy(case.arrays[f"{case.name}/{name}"]) for name in ("x", "t", "out")
    )
    # The raw output does not depend on what it means, but an import has to be told.
    config["schedule"] = "linear"
    if spec["family"] != "v-diffusion" or golden.shape[1] == x.shape[1]:
        config["prediction"] = "eps"
    if not {"num_heads", "head_dim"} & config.keys():
        config["num_heads"] = 1  # the published default
    imported = import_network(weights, config)
    options = dict(imported.network)
    network = networks.create(options.pop("name"), **imported.sizes, **options).eval()
    network.load_state_dict(imported.state_dict)
    if spec["family"] == "v-diffusion":
        c_noise = 1000 * c_noise
    labels = mask = None
    if f"{case.name}/y" in case.arrays:
        labels, mask = published_labels(case.arrays[f"{case.name}/y"], imported.sizes["label_dim"])
    with torch.no_grad():
        output = network(x, c_noise, labels, mask)
    return relative_error(output.numpy(), golden.numpy())


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """The entries of a config and of its sections, under their last names."""
    entries: dict[str, Any] = {}
    for key, value in config.items():
        entries |= flat(value) if isinstance(value, dict) else {key: value}
    return entries


def published_labels(y: np.ndarray, label_dim: int) -> tuple[Tensor, Tensor]:
    """One-hot or multi-hot labels and their mask from classes that start at 1, or from tags."""
    if y.ndim == 1:
        labels = np.eye(label_dim + 1, dtype=np.float32)[y][:, 1:]
    else:
        labels = y.astype(np.float32)
    return torch.from_numpy(labels), torch.from_numpy(labels.any(axis=1))


def mixture(case: Case) -> GaussianMixture:
    """The closed-form denoiser that a file of cases shares."""
    spec = case.document["denoiser"]
    means = torch.from_numpy(case.arrays[spec["means"]]) * spec.get("means_scale", 1.0)
    return GaussianMixture(means, spec["std"])


class Tape:
    """Noise from a fixed tape: call number i returns entry i, around and around."""

    def __init__(self, seed: int, shape: list[int]) -> None:
        self.entries = np.random.RandomState(seed).standard_normal(shape)
        self.calls = 0

    def __call__(self, like: Tensor) -> Tensor:
        entry = self.entries[self.calls % len(self.entries)]
        self.calls += 1
        return torch.from_numpy(entry).to(like)


def samplers(case: Case) -> float:
    """A sampler on the closed-form denoiser, its noise from the tape."""
    ours = {"edm": "heun"}.get(case.spec["sampler"])
    if ours is None:
        raise NotBuilt(f"sampler {case.spec['sampler']}")
    args = dict(case.spec["args"])
    settings = settings_from({"name": ours, "steps": args.pop("num_steps"), **args})
    sigmas = settings.sigmas(0.0, float("inf"), float)
    latents = torch.from_numpy(case.arrays[case.document["latents"]])
    tape = Tape(**case.document["tape"])
    result = settings.bound()(mixture(case), latents * sigmas[0], sigmas, noise=tape)
    return relative_error(result.numpy(), case.arrays[case.name])


LOSSES = {"edm": "edm", "vp": "vp", "ve": "ve"}  # published loss -> preconditioning


def training_losses(case: Case) -> float:
    """An objective on the closed-form denoiser, its draws from the arrays."""
    if case.spec["loss"] not in LOSSES:
        raise NotBuilt(f"loss {case.spec['loss']}")
    config = TrainingConfig.model_validate({"preconditioning": {"name": LOSSES[case.spec["loss"]]}})
    objective = create_objective(config)
    variate = torch.from_numpy(case.arrays[case.spec["noise_level_from"]])
    noise = torch.from_numpy(case.arrays["noise"])
    draws = Draws(objective.noise_level.sigma(variate), noise)
    terms = objective(mixture(case), Batch(torch.from_numpy(case.arrays["y"])), draws)
    return relative_error(terms.values["denoising"].numpy(), case.arrays[f"loss/{case.name}"])


def training(case: Case) -> float:
    """Twenty training steps on the tapes: each loss, then averaged and raw weights on a probe."""
    spec = case.spec
    if spec["loss"] != "edm":
        raise NotBuilt(f"training with loss {spec['loss']}")
    config = resolve(training_config(spec), num_images=1, world_size=1)
    denoiser = build(denoiser_config(spec["network"]))
    fill_by_rule(denoiser)
    trainer = Trainer(denoiser, create_objective(config), config, World(0, 1, torch.device("cpu")))
    tape = training_tape()
    found = [
        float(trainer.step(micro_batches(tape, trainer, step, spec["micro_batch"])))
        for step in range(spec["steps"])
    ]
    probe = {
        "x": tape["probe"],
        "sigma": torch.tensor([0.5, 5.0]),
        "labels": tape["labels"][0, :2],
    }
    denoiser.eval()
    with torch.no_grad():
        average, raw = trainer.average(**probe), denoiser(**probe)
    return max(
        relative_error(np.array(found), case.arrays[f"{case.name}/loss"]),
        relative_error(average.numpy(), case.arrays[f"{case.name}/ema_D"]),
        relative_error(raw.numpy(), case.arrays[f"{case.name}/net_D"]),
    )


def training_config(spec: dict[str, Any]) -> TrainingConfig:
    """Our config for a golden training case."""
    optimizer = spec["optimizer"]
    return TrainingConfig.model_validate(
        {
            "optimizer": {
                **{key: optimizer[key] for key in ("name", "lr", "betas", "eps")},
                "warmup": f"{spec['lr_ramp_images']}img",
            },
            "ema": {
                "halflife": f"{spec['ema']['halflife_images']}img",
                "rampup_ratio": spec["ema"]["ramp_ratio"],
            },
            "run": {
                "batch": spec["batch"],
                "batch_gpu": spec["micro_batch"],
                "duration": f"{spec['steps']}it",
            },
        }
    )


def training_tape() -> dict[str, Tensor]:
    """The tapes of golden/training.json, float32."""

    def normals(seed: int, shape: tuple[int, ...]) -> Tensor:
        values = np.random.RandomState(seed).standard_normal(shape)
        return torch.from_numpy(values.astype(np.float32))

    image = (20, 8, 3, 16, 16)
    classes = np.random.RandomState(45).randint(0, 10, (20, 8))
    raw = np.tanh(np.random.RandomState(41).standard_normal(image)).astype(np.float32)
    return {
        "images": torch.from_numpy(raw),
        "z": normals(42, (20, 8, 1, 1, 1)),
        "noise": normals(43, image),
        "labels": torch.eye(10)[torch.from_numpy(classes)],
        "probe": normals(48, (2, 3, 16, 16)),
    }


def micro_batches(
    tape: dict[str, Tensor], trainer: Trainer, step: int, size: int
) -> list[tuple[Batch, Draws]]:
    """One step's micro-batches, cut from the tapes."""
    level = trainer.objective.noise_level
    cuts = [slice(start, start + size) for start in range(0, tape["images"].shape[1], size)]
    return [
        (
            Batch(tape["images"][step, cut], tape["labels"][step, cut]),
            Draws(level.sigma(tape["z"][step, cut].flatten()), tape["noise"][step, cut]),
        )
        for cut in cuts
    ]


def dataset_tool(case: Case) -> float:
    """The data set that the tool makes of a folder: names, labels and pixels must be equal."""
    with tempfile.TemporaryDirectory() as folder:
        dest = Path(folder) / "dataset.zip"
        command = [sys.executable, str(ROOT / "dataset_tool.py"), *case.spec["args"]]
        source = case.folder / case.spec["source"]
        subprocess.run([*command, f"--source={source}", f"--dest={dest}"], check=True)
        archive = ImageArchive(dest)
        labels = archive.labels()
        pictures = [np.array(PIL.Image.open(io.BytesIO(archive.read(n)))) for n in archive.names]
    golden = case.spec["labels"]
    is_equal = (
        list(archive.names) == case.spec["names"]
        and (labels is None if golden is None else list(labels.items()) == list(map(tuple, golden)))
        and np.array_equal(np.stack(pictures), case.arrays[case.name])
    )
    return 0.0 if is_equal else 1.0


def augmentation(case: Case) -> float:
    """Augmented images and their labels, from given variates whose gates have all passed."""
    params: dict[str, Tensor] = {}
    for name in case.spec["augmentations"]:
        variate = torch.from_numpy(case.arrays[f"param/{name}"])
        in_units_of_pi = name in ("rotate_frac", "hue")
        variate = variate.T if variate.ndim == 2 else variate
        params[name] = math.pi * variate if in_units_of_pi else variate
        if name == "aniso":
            angle = case.arrays["param/aniso_angle"] * case.arrays["param/aniso_rotated"]
            params["aniso_angle"] = math.pi * torch.from_numpy(angle)
    images, labels = augment.apply(torch.from_numpy(case.arrays[case.spec["images"]]), params)
    return max(
        relative_error(images.numpy(), case.arrays[f"{case.name}/out"]),
        relative_error(labels.numpy(), case.arrays[f"{case.name}/labels"]),
    )


KINDS = {
    "augment": augmentation,
    "dataset-tool": dataset_tool,
    "networks-ddpm": networks_ddpm,
    "networks-edm": networks_edm,
    "samplers": samplers,
    "losses": training_losses,
    "training": training,
}
