"""Golden cases of networks: denoisers under EDM's names, raw networks through the importer."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

import networks
from diffusion.preconditioning import PRESETS
from importers.families import import_network
from importers.published import translate
from models.build import build
from models.config import ModelConfig, PreconditioningConfig
from networks import NETWORKS
from tests.parity.harness import Case, NotBuilt, relative_error
from tests.parity.kinds.common import flat
from tests.parity.weights import fill_by_rule

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
    config["schedule"] = "logsnr_legacy"
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


def published_labels(y: np.ndarray, label_dim: int) -> tuple[Tensor, Tensor]:
    """One-hot or multi-hot labels and their mask from classes that start at 1, or from tags."""
    if y.ndim == 1:
        labels = np.eye(label_dim + 1, dtype=np.float32)[y][:, 1:]
    else:
        labels = y.astype(np.float32)
    return torch.from_numpy(labels), torch.from_numpy(labels.any(axis=1))
