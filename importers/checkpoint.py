"""Foreign checkpoint files of the DDPM and v-diffusion families: containers and side files.

Nothing in a file is executed. Facts that its tensors do not tell come from a side file: a YAML or
JSON mapping of our keys, or of the family's published ones.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from importers.families import Imported, detect, import_network
from importers.published import flattened, published_keys, translate
from importers.reading import SETTINGS
from networks import NETWORKS, SIZES
from torch_utils import torch_files
from torch_utils.errors import UserError
from torch_utils.pickle_rules import inert
from torch_utils.yaml_files import read_yaml

# where each kind of weights lies in the containers that are known, outermost key first
PLACES: dict[str, tuple[tuple[str, ...], ...]] = {
    "ema": (("model",), ("state_dict",), ()),  # unless there is a key `ema`
    "raw": (("model_dict",), ("model",), ("state_dict",), ()),
}
# SA-DPM keeps its command line beside the weights, which is kept as a record without behaviour
_RECORDS = {"argparse Namespace": inert("argparse Namespace")}
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
        model_config: YAML or JSON file with the facts that the tensors do not tell; None for the
            file of the same name and another suffix beside the checkpoint, if there is one.
        weights: ema or raw, if a container has both.

    Returns:
        The model in our terms.

    Raises:
        UserError: the file is not a checkpoint of a known family; or keys are missing (they are
            listed), unknown, or contradict the shapes.
    """
    state = find_weights(_load(path), weights)
    if state is None:
        raise UserError(
            f"{path} has no {weights} weights, or is not a checkpoint of a known family"
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
        return torch_files.load(path, "it", rules=_RECORDS)
    except UserError as error:
        raise UserError(f"{path} cannot be read as plain tensors: {error}") from None


def find_weights(container: Any, weights: str) -> dict[str, Tensor] | None:
    """The state dict inside a container; None if it has no weights of that kind.

    Args:
        container: what `torch_utils.torch_files.load` returned.
        weights: key of PLACES. Averages without names cannot be used, and the weights beside them
            are not taken for averages.
    """
    if weights == "ema" and isinstance(container, Mapping) and "ema" in container:
        ema = container["ema"]
        shadow = ema.get("shadow") if isinstance(ema, Mapping) else None
        return _as_state(shadow)
    for place in PLACES[weights]:
        inner = container
        for key in place:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        state = _as_state(inner)
        if state is not None:
            return state
    return None


def _as_state(tree: Any) -> dict[str, Tensor] | None:
    """A state dict, if it is one."""
    if not isinstance(tree, Mapping) or not tree:
        return None
    is_state = all(isinstance(k, str) and isinstance(v, Tensor) for k, v in tree.items())
    return dict(tree) if is_state else None


def side_file(path: str | os.PathLike[str]) -> Path | None:
    """The description beside a checkpoint, if there is one."""
    beside = (Path(path).with_suffix(suffix) for suffix in SIDE_SUFFIXES)
    return next((candidate for candidate in beside if candidate.is_file()), None)


def read_side_file(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON mapping.

    Raises:
        UserError: it cannot be read, or is not a mapping.
    """
    try:
        tree = read_yaml(path, str(path))
    except (OSError, UnicodeDecodeError) as error:
        problem = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UserError(f"cannot read {path}: {problem}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} is not a mapping of keys to values")
    for key in tree:
        if not isinstance(key, str):
            raise UserError(f"{path}: the key {key!r} is not a name")
    return tree


def _in_our_keys(family: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Published spellings translated to ours, together with keys that are ours already."""
    flat, known = flattened(given), published_keys(family)
    is_whole = flat != given  # a published file, which also has keys that are not about the model
    options = (option for row in NETWORKS.values() for option in row.options)
    own = {*SETTINGS, *options, *SIZES, "img_resolution"}
    ours = {k: v for k, v in flat.items() if k not in known and (k in own or not is_whole)}
    return translate(family, {k: v for k, v in flat.items() if k in known}, ours)
