"""What kinds of golden cases share: published names in ours, and the closed-form denoiser."""

from typing import Any

import torch

from tests.closed_form import GaussianMixture
from tests.parity.harness import Case

VARIANCES = {"fixed_small": "small", "fixed_large": "large", "fixed_medium": "interpolated"}
SCHEDULES = {
    "cosine": "logsnr_cosine",
    "legacy": "logsnr_legacy",
    "linear": "logsnr_alpha2_linear",
    "sigmoid": "logsnr_linear",
}
OUTPUTS = {"both": "x0_eps", "x_0": "x0"}
WEIGHTS = {"alpha2": "snr_1plus", "truncated_snr": "snr_trunc"}


def log_snr_schedule(name: str, bounds: dict[str, float]) -> dict[str, Any]:
    """Our entry for a log-SNR schedule under its published name; legacy has no bounds."""
    return {"name": SCHEDULES[name], **({} if name == "legacy" else bounds)}


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """The entries of a config and of its sections, under their last names."""
    entries: dict[str, Any] = {}
    for key, value in config.items():
        entries |= flat(value) if isinstance(value, dict) else {key: value}
    return entries


def mixture(case: Case) -> GaussianMixture:
    """The closed-form denoiser that a file of cases shares."""
    spec = case.document["denoiser"]
    means = torch.from_numpy(case.arrays[spec["means"]]) * spec.get("means_scale", 1.0)
    return GaussianMixture(means, spec["std"])
