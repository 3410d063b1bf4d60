"""Foreign checkpoint files of the DDPM and v-diffusion families as models of ours.

Nothing in a file is executed. Facts that its tensors do not tell come from a side file.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from importers.celeba import ATTRIBUTES
from importers.containers import Contents, read_container
from importers.expected import KEYS, everywhere, notes_of, sampling_of
from importers.families import Imported, detect, import_network
from importers.interface import ForeignModel
from importers.side_files import in_our_keys, read_side_file, side_file
from models.config import ModelConfig
from models.snapshot import SnapshotInfo
from torch_utils.errors import UserError
from torch_utils.sections import validated

_PRESETS = {"sa-dpm": "ddpm", "ddpm-xyf": "ddpm", "v-diffusion": "vdiff"}
# how each system averages, unless a config says otherwise
_AVERAGES = {"sa-dpm": "constant", "ddpm-xyf": "ramp", "v-diffusion": "ramp"}


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    model_config: str | os.PathLike[str] | None = None,
    weights: str = "ema",
) -> Imported:
    """Read a foreign checkpoint.

    Args:
        path: a file of torch.save or safetensors: a bare state dict, or one of the published
            containers; or a folder of the DDPM implementation.
        model_config: YAML or JSON file with the facts that the tensors do not tell; None for the
            one that `importers.side_files.side_file` finds, if any.
        weights: ema or raw, if a container has both.

    Returns:
        The model in our terms.

    Raises:
        UserError: the file is not a checkpoint of a known family; or keys are missing (they are
            listed), unknown, or contradict the shapes.
    """
    found, _, _ = _load(path, model_config, weights)
    return found


def read_checkpoint(
    path: str | os.PathLike[str],
    *,
    model_config: str | os.PathLike[str] | None = None,
    weights: str = "ema",
) -> ForeignModel:
    """Read a foreign checkpoint as a model with the sampler that its users expect.

    Args:
        path, model_config, weights: as for `load_checkpoint`.

    Raises:
        UserError: as there.
    """
    found, contents, side = _load(path, model_config, weights)
    said = everywhere(side)
    try:
        sampling = sampling_of(found.family, found, said)
        notes = [*notes_of(found.family, found, said)]
    except (TypeError, ValueError) as error:
        raise UserError(f"the description of {path} cannot be used: {error}") from None
    state, sizes = found.state_dict, dict(found.sizes)
    outputs = sizes.pop("out_channels")
    prediction = found.settings["prediction"]
    if outputs == 2 * sizes["img_channels"] and prediction != "x0_eps":
        state = _without_variance(state, sizes["img_channels"])
        notes.append("the network's estimate of the variance is left out")
    preconditioning = {"name": _PRESETS[found.family], "output": prediction}
    preconditioning |= {"schedule": found.settings["schedule"]}
    tree = {"network": found.network, "preconditioning": preconditioning, **sizes}
    model: ModelConfig = validated(ModelConfig, tree, f"{path}: model")
    batch = said.get("batch_size")
    is_global = type(batch) is int and found.family != "sa-dpm"  # there it is one process's
    images = contents.steps * batch if is_global and batch is not None else 0
    info = SnapshotInfo(
        model=model,
        sampling=sampling,
        label_names=_label_names(found),
        label_kind=_label_kind(found),
        label_dropout=_label_dropout(said) if model.label_dim else None,
        images=images,
        ema=_average(found.family, contents, said),
    )
    if not images:
        notes += _progress(contents)
    return ForeignModel(
        family=found.family,
        info=info,
        state_dict={f"model.{name}": tensor for name, tensor in state.items()},
        notes=tuple(notes),
    )


def _load(
    path: str | os.PathLike[str], model_config: str | os.PathLike[str] | None, weights: str
) -> tuple[Imported, Contents, dict[str, Any]]:
    """The network, what its container says, and what its side file says."""
    contents = read_container(path, weights)
    side = side_file(path) if model_config is None else Path(model_config)
    given = {} if side is None else read_side_file(side)
    try:
        family = detect({name.removeprefix("module."): None for name in contents.state})
        config = in_our_keys(family, given, KEYS[family])
        return import_network(contents.state, config), contents, given
    except UserError as error:
        wanted = Path(path).with_suffix(".yaml")
        hint = "" if side is not None else f" (write it to {wanted}, or give --model-config)"
        raise UserError(f"{path}: {error}{hint}") from None


def _without_variance(state: Mapping[str, Tensor], num: int) -> dict[str, Tensor]:
    """The weights with the first output channels alone; the variance comes behind them."""
    last = ("out_conv.weight", "out_conv.bias")
    return {name: t[:num] if name in last else t for name, t in state.items()}


def _label_kind(found: Imported) -> str | None:
    if not found.sizes["label_dim"]:
        return None
    return "multi_hot" if found.network.get("multi_tags") else "class"


def _label_names(found: Imported) -> list[str] | None:
    """The tags of v-diffusion's only such data set; classes have no published names."""
    has_tags = bool(found.network.get("multi_tags"))
    return [*ATTRIBUTES] if has_tags and found.sizes["label_dim"] == len(ATTRIBUTES) else None


def _label_dropout(said: Mapping[str, Any]) -> float | None:
    """How often the null label was trained, if a config says it."""
    value = said.get("p_uncond")
    return float(value) if type(value) in (int, float) and value is not None else None


def _average(family: str, contents: Contents, said: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the weights were averaged; None for raw ones, and where nothing says it."""
    if not contents.is_average:
        return None
    decay = contents.decay
    if decay is None:
        decay = said.get("ema_rate", said.get("ema_decay"))
    kind = "constant" if said.get("ema_gradual") is False else _AVERAGES[family]
    return {"kind": kind} if decay is None else {"kind": kind, "decay": decay}


def _progress(contents: Contents) -> list[str]:
    """A line about training, if the container counts in something else than images."""
    parts = [f"{contents.steps:,} steps"] if contents.steps else []
    parts += [f"{contents.epochs:,} epochs"] if contents.epochs else []
    return [f"trained for {' and '.join(parts)}; images were not counted"] if parts else []
