"""Golden cases of folders of the library diffusers: the raw network, and DDIM over given steps."""

import math

import numpy as np
import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from importers.diffusers import read_diffusers
from importers.interface import ForeignModel
from samplers.levels import solver_of
from samplers.settings import generation_settings
from tests.parity.harness import Case, relative_error


def diffusers(case: Case) -> float:
    """The larger error of the raw output and of DDIM's final state, as far as the case has them."""
    model = read_diffusers(case.folder / case.spec["folder"])
    denoiser = model.denoiser()
    given = {
        key: torch.from_numpy(case.arrays[f"{case.name}/{key}"])
        for key in ("x", "t", "out", "latents", "ddim", "y", "class_labels")
        if f"{case.name}/{key}" in case.arrays
    }
    errors = []
    if "out" in given:
        labels = _one_hot(given, denoiser.label_dim)
        with torch.no_grad():
            output = denoiser.model(given["x"], given["t"], labels)
        errors.append(relative_error(output.numpy(), given["out"].numpy()))
    if "ddim" in given:
        errors.append(relative_error(_ddim(case, model, denoiser, given), given["ddim"].numpy()))
    assert errors, "the case has neither out nor ddim"
    return max(errors)


def _ddim(
    case: Case, model: ForeignModel, denoiser: Denoiser, given: dict[str, Tensor]
) -> np.ndarray:
    """The final state z, step by step: the library counts each step's end from its start."""
    told = case.spec["ddim"]
    table = denoiser.preconditioning.table
    assert table is not None
    visited = sorted(told["timesteps"], reverse=True)
    stride = table.num_steps // told.get("steps", len(visited))
    last = float(told.get("final_alpha_cumprod", 1.0))  # alpha^2 after the last step
    clips = bool(model.info.sampling.get("clip") or model.info.sampling.get("clip_x0"))
    settings = generation_settings({"name": "ddim", "eta": told.get("eta", 0.0), "clip_x0": clips})
    labels = _one_hot(given, denoiser.label_dim)
    z = given["latents"].double()
    for index in visited:
        sigma, end = float(table.levels[index]), index - stride
        end_sigma = float(table.levels[end]) if end >= 0 else math.sqrt(1 / last - 1)
        with torch.no_grad():
            x = solver_of(settings)(
                lambda x, level: denoiser(x, level, labels),
                z * math.hypot(1, sigma),
                [sigma, end_sigma],
                noise=torch.zeros_like,
            )
        z = x / math.hypot(1, end_sigma)
    return z.numpy()


def _one_hot(given: dict[str, Tensor], label_dim: int) -> Tensor | None:
    """The labels of a case as rows."""
    classes = given.get("y", given.get("class_labels"))
    return None if classes is None else torch.eye(label_dim)[classes]
