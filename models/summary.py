"""What a model is, in a few lines for people."""

from collections.abc import Mapping
from typing import Any

from diffusion.denoiser import Denoiser, device_of
from models.snapshot import SnapshotInfo
from torch_utils.text import some

_KINDS = {None: "classes", "class": "classes", "multi_hot": "tags", "vector": "numbers"}


def summary(denoiser: Denoiser, info: SnapshotInfo, sampler: Mapping[str, Any]) -> str:
    """Network, parameters, image size, labels, progress and sampler of a loaded snapshot."""
    model = info.model
    parameters = sum(parameter.numel() for parameter in denoiser.parameters())
    low, high = denoiser.sigma_min, denoiser.sigma_max
    names = info.label_names or []
    labels = f"{model.label_dim} {_KINDS[info.label_kind]}" if model.label_dim else "none"
    if names:
        labels += f": {some(names)}"
    rows = {
        "network": f"{model.network['name']}, {parameters:,} parameters, on {device_of(denoiser)}",
        "denoiser": f"{model.preconditioning.name}, noise levels {low:g} to {high:g}",
        "images": "x".join(map(str, (model.img_channels, *model.img_resolution))),
        "labels": labels,
        "trained": f"{info.images:,} images",
        "sampler": ", ".join(f"{key} {value}" for key, value in sampler.items()),
    }
    return "\n".join(f"{name:<9} {text}" for name, text in rows.items())
