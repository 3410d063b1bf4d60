"""Snapshots: one set of weights and, as JSON in the metadata, all that is needed to sample it.

The file is safetensors, so reading one executes nothing.
"""

import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from models.build import build
from models.config import ModelConfig, validated
from torch_utils.errors import UserError
from torch_utils.files import replacing

FORMAT_VERSION = 1
METADATA_KEY = "driftless"


@dataclass(frozen=True)
class SnapshotInfo:
    """What a snapshot says of itself.

    Attributes:
        model: the model's config.
        sampling: default sampler settings, the flat mapping of samplers.settings.
        label_names: a name for each class or tag, or None.
        label_kind: what labels are: class, multi_hot (tags) or vector; None without labels.
        present_classes: the classes that some training image has; None for all of them.
        label_examples: labels of training images, for tags and vectors: what to draw from.
        label_dropout: probability of the null label in training; None if that is not known.
        images: training images seen.
        ema: how the weights were averaged, e.g. {"halflife": 500000}; None for raw weights.
        versions: format and software versions.
    """

    model: ModelConfig
    sampling: dict[str, Any] = field(default_factory=dict)
    label_names: list[str] | None = None
    label_kind: str | None = None
    present_classes: list[int] | None = None
    label_examples: list[list[float]] | None = None
    label_dropout: float | None = None
    images: int = 0
    ema: dict[str, Any] | None = None
    versions: dict[str, Any] = field(default_factory=dict)


def snapshot_path(folder: str | os.PathLike[str], images: int, ema_name: str = "") -> Path:
    """Where the snapshot taken after so many images lies."""
    suffix = f"-{ema_name}" if ema_name else ""
    return Path(folder) / f"network-snapshot-{images:010d}{suffix}.safetensors"


def find_snapshot(path: str | os.PathLike[str]) -> Path:
    """The snapshot at a path; the newest one if the path is a run directory.

    Raises:
        UserError: a directory without snapshots.
    """
    if not Path(path).is_dir():
        return Path(path)
    snapshots = sorted(Path(path).glob("network-snapshot-*.safetensors"))
    if not snapshots:
        raise UserError(f"no network-snapshot-*.safetensors in {path}")
    return snapshots[-1]


def _strict(tree: Any) -> Any:
    """Infinity, which strict JSON lacks and an option may have, as the text "inf"."""
    if isinstance(tree, dict):
        return {key: _strict(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_strict(value) for value in tree]
    return "inf" if tree == math.inf else tree


def save_snapshot(
    path: str | os.PathLike[str], weights: Mapping[str, Tensor], info: SnapshotInfo
) -> None:
    """Write a snapshot, whole or not at all.

    Args:
        path: the file.
        weights: the denoiser's state dict.
        info: the rest.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    record = asdict(info) | {
        "model": info.model.model_dump(mode="json"),
        "versions": {
            "format": FORMAT_VERSION,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    text = json.dumps(_strict(record), allow_nan=False)
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={METADATA_KEY: text})
        except SafetensorError as error:
            raise OSError(f"{path}: {error}") from None


def load_snapshot(
    path: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[Denoiser, SnapshotInfo]:
    """Read a snapshot and build its denoiser, in evaluation mode, without gradients.

    Raises:
        UserError: no such file, not a snapshot of ours, of a newer format, or tensors that do
            not match its config.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    info = read_info(path)
    denoiser = build(info.model)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    expected = {name: tuple(t.shape) for name, t in denoiser.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if expected != found:
        wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        raise UserError(f"{path}: {len(wrong)} tensors do not match its config, first {wrong[0]}")
    denoiser.load_state_dict(tensors)
    return denoiser.eval().requires_grad_(False).to(device), info


def read_info(path: str | os.PathLike[str]) -> SnapshotInfo:
    """Read what a snapshot says of itself, without its weights.

    Raises:
        UserError: as `load_snapshot`.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UserError(f"no snapshot at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        record = json.loads(metadata[METADATA_KEY])
        version = record["versions"]["format"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{path} is not a snapshot of Driftless: give a network-snapshot-*.safetensors"
        ) from None
    if version != FORMAT_VERSION:
        raise UserError(f"{path} has format {version}, this version reads {FORMAT_VERSION}")
    try:
        model = validated(ModelConfig, record.pop("model"), f"{path}: model")
        return SnapshotInfo(model=model, **record)
    except (KeyError, TypeError):
        raise UserError(f"{path}: its description is incomplete or has unknown entries") from None
