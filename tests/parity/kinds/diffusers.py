"""Golden cases of folders of the library diffusers: the raw network, and DDIM over given steps."""

import math

import numpy as np
import torch
from torch import Tensor

from importers.diffusers import read_diffusers
from samplers.settings import generation_settings
from samplers.levels import solver_of
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
        told = case.spec["ddim"]
        table = denoiser.preconditioning.table
        assert table is not None
        visited = table.levels[np.sort(told["timesteps"])[::-1]]
        last = float(told.get("final_alpha_cumprod", 1.0))  # of alpha^2 after the last step
        sigmas = [*visited.tolist(), math.sqrt(1 / last - 1)]
        clips = bool(model.info.sampling.get("clip") or model.info.sampling.get("clip_x0"))
        settings = generation_settings(
            {"name": "ddim", "eta": told.get("eta", 0.0), "clip_x0": clips}
        )
        labels = _one_hot(given, denoiser.label_dim)
        with torch.no_grad():
            result = solver_of(settings)(
                lambda x, sigma: denoiser(x, sigma, labels),
                given["latents"].double() * math.hypot(1, sigmas[0]),
                sigmas,
                noise=torch.zeros_like,
            )
        errors.append(relative_error((result * math.sqrt(last)).numpy(), given["ddim"].numpy()))
    assert errors, "the case has neither out nor ddim"
    return max(errors)


def _one_hot(given: dict[str, Tensor], label_dim: int) -> Tensor | None:
    """The labels of a case as rows."""
    classes = given.get("y", given.get("class_labels"))
    return None if classes is None else torch.eye(label_dim)[classes]
