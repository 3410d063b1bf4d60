"""The containers in which the DDPM families publish weights: where they lie, and what is beside.

Known are a bare state dict, mappings of torch.save with weights and averages, a list of SA-DPM's
predecessor, and the folder of files that the DDPM implementation writes. Nothing is executed.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from torch_utils import torch_files
from torch_utils.bounded import open_regular
from torch_utils.errors import UserError
from torch_utils.pickle_rules import inert
from torch_utils.safetensors_files import is_safetensors

# where each kind of weights lies in the containers that are known, outermost key first
PLACES: dict[str, tuple[tuple[str, ...], ...]] = {
    "ema": (("model",), ("state_dict",), ()),  # unless there is a key `ema`
    "raw": (("model_dict",), ("model",), ("state_dict",), ()),
}
# the DDPM implementation's folder of a training step: kind of weights -> file
FOLDER_FILES = {"ema": "ema_model.pt", "raw": "model.pt"}
FOLDER_PROGRESS = "meta.pt"
# SA-DPM keeps its command line beside the weights, which is kept as a record without behaviour
_RECORDS = {"argparse Namespace": inert("argparse Namespace")}
_LIST_LENGTHS = (4, 5)  # weights, optimizer, epoch, step and, if there is one, the average


@dataclass(frozen=True)
class Contents:
    """What a container holds.

    Attributes:
        state: foreign name -> tensor.
        is_average: whether these are averaged weights; None if the container does not say it.
        decay: of the average, if known.
        steps: optimizer steps taken; 0 if unknown.
        epochs: epochs of training; None if unknown.
    """

    state: dict[str, Tensor]
    is_average: bool | None = None
    decay: float | None = None
    steps: int = 0
    epochs: int | None = None


def is_step_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the folder that the DDPM implementation writes at a training step."""
    return any((Path(path) / name).is_file() for name in FOLDER_FILES.values())


def read_container(path: str | os.PathLike[str], weights: str) -> Contents:
    """Read a checkpoint file or folder.

    Args:
        path: the file, or a folder of the DDPM implementation.
        weights: ema or raw. Averages without names cannot be used, and the weights beside them are
            not taken for averages.

    Raises:
        UserError: it cannot be read, or has no such weights.
    """
    file, steps = Path(path), 0
    if file.is_dir():
        file = Path(path) / FOLDER_FILES[weights]
        if not file.is_file():
            raise UserError(f"{path} has no {weights} weights: there is no {file.name} in it")
        steps = _steps_of_folder(file.parent)
    container = _load(file)
    found = _contents(container, weights)
    if found is None:
        said = "averages without names" if _has_nameless_average(container) else "no state dict"
        raise UserError(
            f"{path} has no {weights} weights, or is not a checkpoint of a known family: it has"
            f" {said}{_advice(file, container, weights)}"
        )
    is_average = found.is_average
    if is_average is None:
        is_average = _said_by_name(file.name, is_folder=Path(path).is_dir())
    if is_average and weights == "raw":
        raise UserError(f"{path} has averaged weights only: leave out {weights!r}")
    return Contents(found.state, is_average, found.decay, steps or found.steps, found.epochs)


def _said_by_name(name: str, *, is_folder: bool) -> bool | None:
    """What the published names of files with one set of weights say of it."""
    if "ema" in Path(name).stem.split("_"):  # model_12_ema.pth, ema_model.pt
        return True
    return False if is_folder else None


def _advice(file: Path, container: Any, weights: str) -> str:
    if not _has_nameless_average(container):
        return ""
    beside = file.with_name(FOLDER_FILES["ema"])
    if weights == "ema" and beside.is_file():
        return f"; give {beside}"
    return ""


def _has_nameless_average(container: Any) -> bool:
    ema = container.get("ema") if isinstance(container, Mapping) else None
    return isinstance(ema, Mapping) and isinstance(ema.get("shadow"), list | tuple)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    if is_safetensors(path):
        return _tensors(path)
    try:
        return torch_files.load(path, "it", rules=_RECORDS)
    except UserError as error:
        raise UserError(f"{path} cannot be read as plain tensors: {error}") from None


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with open_regular(path):
            pass
        # clones: the tensors are mapped to the file, and would change with it
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _contents(container: Any, weights: str) -> Contents | None:
    """The weights of that kind, with what the container says of them; None if it has none."""
    if isinstance(container, list) and len(container) in _LIST_LENGTHS:
        return _of_list(container, weights)
    progress = _progress(container)
    if weights == "ema" and isinstance(container, Mapping):
        if "ema" in container:
            ema = container["ema"]
            shadow = _as_state(ema.get("shadow")) if isinstance(ema, Mapping) else None
            if shadow is None:
                return None
            decay = _number(ema.get("decay"))
            return Contents(shadow, True, decay, _count(ema.get("num_updates")), progress.epochs)
        if "model_dict" in container:
            shadows = _shadows_of_optimizer(container)
            if shadows is not None:
                return Contents(shadows, True, None, progress.steps, progress.epochs)
            return None
    for place in PLACES[weights]:
        inner = container
        for key in place:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        state = _as_state(inner)
        if state is not None:
            has_average = isinstance(container, Mapping) and {"ema", "optimizer"} & {*container}
            is_average = False if weights == "raw" and has_average else None
            return Contents(state, is_average, None, progress.steps, progress.epochs)
    return None


def _of_list(container: list[Any], weights: str) -> Contents | None:
    """The list that the DDIM code saves in training."""
    has_average = len(container) == max(_LIST_LENGTHS)
    if weights == "ema" and not has_average:
        return None
    state = _as_state(container[-1] if weights == "ema" else container[0])
    if state is None:
        return None
    epochs, steps = container[2], container[3]
    return Contents(state, weights == "ema", None, _count(steps), _count(epochs))


def _shadows_of_optimizer(container: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The averages that SA-DPM keeps in the state of its optimizer, by number of the parameter."""
    state, optimizer = _as_state(container["model_dict"]), container.get("optimizer")
    by_number = optimizer.get("state") if isinstance(optimizer, Mapping) else None
    if state is None or not isinstance(by_number, Mapping) or len(by_number) != len(state):
        return None
    shadows = {}
    for number, (name, tensor) in enumerate(state.items()):
        entry = by_number.get(number)
        shadow = entry.get("ema") if isinstance(entry, Mapping) else None
        if not isinstance(shadow, Tensor) or shadow.shape != tensor.shape:
            return None
        shadows[name] = shadow
    return shadows


def _progress(container: Any) -> Contents:
    """How far training was, if the container says it."""
    if not isinstance(container, Mapping):
        return Contents({})
    epochs = container.get("epoch")
    is_count = type(epochs) is int and epochs >= 0
    return Contents({}, steps=_count(container.get("step")), epochs=epochs if is_count else None)


def _steps_of_folder(folder: Path) -> int:
    """The steps that the file about progress tells: it has the number of the last one, from 0."""
    file = folder / FOLDER_PROGRESS
    if not file.is_file():
        return 0
    meta = _load(file)
    step = meta.get("step") if isinstance(meta, Mapping) else None
    return step + 1 if type(step) is int and step >= 0 else 0


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) else None


def _as_state(tree: Any) -> dict[str, Tensor] | None:
    """A state dict, if it is one."""
    if not isinstance(tree, Mapping) or not tree:
        return None
    is_state = all(isinstance(k, str) and isinstance(v, Tensor) for k, v in tree.items())
    return dict(tree) if is_state else None
