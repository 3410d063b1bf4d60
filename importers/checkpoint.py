"""Foreign checkpoint files of the DDPM and v-diffusion families: containers and side files.

Read with `weights_only=True`: nothing in a file is executed. What its tensors cannot tell comes
from a side file, a YAML or JSON mapping of our keys or of the family's published ones.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from importers.families import Imported, detect, import_network
from importers.published import KEYS, RULES, translate
from torch_utils.errors import UserError

# where each kind of weights lies in the containers that are known, outermost key first
PLACES: dict[str, tuple[tuple[str, ...], ...]] = {
    "ema": (("ema", "shadow"), ("model",), ("state_dict",), ()),
    "raw": (("model_dict",), ("model",), ("state_dict",), ()),
}
SIDE_SUFFIXES = (".yaml", ".yml", ".json")


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    model_config: str | os.PathLike[str] | None = None,
    weights: str = "ema",
) -> Imported:
    """Read a foreign checkpoint.

    Args:
        path: a file of torch.save: a bare state dict, or one of the published containers.
        model_config: YAML or JSON file with what the tensors do not tell; None for the file beside
            the checkpoint with the same name and another suffix, if there is one.
        weights: ema or raw, where a container has both.

    Returns:
        The model in our terms.

    Raises:
        UserError: the file is no checkpoint of a known family, keys are missing (they are listed),
            unknown or contradict the shapes.
    """
    state = find_weights(_load(path), weights)
    if state is None:
        raise UserError(
            f"{path}: no {weights} weights in it; it is no checkpoint of a known family"
        )
    side = side_file(path) if model_config is None else Path(model_config)
    given = {} if side is None else read_side_file(side)
    family = detect({name.removeprefix("module."): None for name in state})
    try:
        return import_network(state, _in_our_keys(family, given))
    except UserError as error:
        wanted = Path(path).with_suffix(".yaml")
        hint = "" if side is not None else f" (write it to {wanted}, or give --model-config)"
        raise UserError(f"{path}: {error}{hint}") from None


def _load(path: str | os.PathLike[str]) -> Any:
    if not Path(path).is_file():
        raise UserError(f"no checkpoint at {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is none can fail in any way
        first_line = (str(error).splitlines() or [""])[0]
        raise UserError(f"{path} cannot be read as plain tensors: {first_line}") from None


def find_weights(container: Any, weights: str) -> dict[str, Tensor] | None:
    """The state dict inside a container; None if there is none of that kind.

    Args:
        container: what torch.load returned.
        weights: key of PLACES.
    """
    for place in PLACES[weights]:
        inner = container
        for key in place:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        is_state = isinstance(inner, Mapping) and bool(inner)
        if is_state and all(isinstance(value, Tensor) for value in inner.values()):
            return dict(inner)
    return None


def side_file(path: str | os.PathLike[str]) -> Path | None:
    """The description beside a checkpoint, if there is one."""
    beside = (Path(path).with_suffix(suffix) for suffix in SIDE_SUFFIXES)
    return next((candidate for candidate in beside if candidate.is_file()), None)


def read_side_file(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON mapping.

    Raises:
        UserError: it cannot be read, or is no mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UserError(f"cannot read {path}: {problem}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} is no mapping of keys to values")
    return tree


def _in_our_keys(family: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Published spellings in ours, beside keys that are ours already."""
    published = {key: value for key, value in given.items() if key in KEYS[family]}
    published |= {key: value for key, value in given.items() if key in RULES[family]}
    ours = {key: value for key, value in given.items() if key not in published}
    return {**translate(family, published), **ours}
