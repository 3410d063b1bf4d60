"""The files of a diffusers folder: which there are, configs as mappings, and weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from importers.naming import Shapes
from torch_utils import torch_files
from torch_utils.bounded import open_regular, read_file
from torch_utils.errors import UserError
from torch_utils.jsons import parse_json

INDEX, NETWORK_CONFIG, SCHEDULER_CONFIG = "model_index.json", "config.json", "scheduler_config.json"
NETWORK_FOLDER, SCHEDULER_FOLDER = "unet", "scheduler"
STEM = "diffusion_pytorch_model"
# in the order in which they are tried: full precision first
WEIGHTS = tuple(
    f"{STEM}{variant}.{suffix}"
    for variant in ("", ".bf16", ".fp16")
    for suffix in ("safetensors", "safetensors.index.json", "bin")
)
_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_MAX_BYTES = 2**22  # of a config, or of the list of parts
_MAX_VALUES = 2**18
_MAX_INT = 2**63 - 1
_MAX_HEADER = 2**25
_MAX_PARTS = 1000


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON mapping.

    Raises:
        UserError: it does not exist, cannot be read, or is not a mapping.
    """
    if not path.is_file():
        raise UserError(f"there is no {path.name} in {path.parent}: give a whole diffusers folder")
    try:
        tree = parse_json(read_file(path, _MAX_BYTES), _MAX_VALUES, _MAX_INT)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path} is not JSON: {problem}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} is not a mapping of keys to values")
    return tree


def class_of(config: Mapping[str, Any]) -> str:
    """The class that a config is of, as a text; `none` if it does not say."""
    return str(config.get("_class_name", "none"))[:80]


def part(folder: Path, name: str) -> Path:
    """The folder of a part of a pipeline: of that name, or the folder itself as in early ones."""
    return folder / name if (folder / name).is_dir() else folder


def find_weights(folder: Path) -> Path:
    """The file of a network's weights, or the list of its parts.

    Raises:
        UserError: there is none.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"there are no weights in {folder}: {STEM}.safetensors or {STEM}.bin was expected"
    )


def open_weights(path: Path) -> tuple[Shapes, Callable[[], dict[str, Tensor]]]:
    """The shapes of all tensors, and a function that reads them, float32, into their own memory.

    Both raise a UserError if the file is damaged or not of its kind, the function also for tensors
    that are not weights.
    """
    if path.name.endswith(".bin"):
        tensors = _read_bin(path)
        sizes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        return sizes, lambda: _checked(path, tensors)
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _files(path):
        with _opened(file) as content:
            for name in content.keys():  # noqa: SIM118
                if name in shapes:
                    raise UserError(f"{path} has the tensor {name[:80]} twice")
                shapes[name] = tuple(content.get_slice(name).get_shape())
    return shapes, lambda: _checked(path, _read_safetensors(path))


def _read_bin(path: Path) -> dict[str, Tensor]:
    try:
        tree = torch_files.load(path, "it")
    except UserError as error:
        raise UserError(f"{path} cannot be read as plain tensors: {error}") from None
    if not isinstance(tree, dict) or not all(isinstance(v, Tensor) for v in tree.values()):
        raise UserError(f"{path} is not a mapping of names to tensors")
    return {str(name): tensor for name, tensor in tree.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in _files(path):
        with _opened(file) as content:
            found |= {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    return found


def _checked(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name, tensor in tensors.items():
        if tensor.dtype not in _TYPES or tensor.layout != torch.strided:
            raise UserError(f"{name[:80]} of {path} is {tensor.dtype}: it is not a weight")
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{name[:80]} of {path} has values that are not finite")
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with open_regular(path) as raw:
            if int.from_bytes(raw.read(8), "little") > _MAX_HEADER:
                raise UserError(f"{path} is damaged: its header is too long")
        with safe_open(path, framework="pt") as content:
            yield content
    except UserError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from None


def _files(path: Path) -> list[Path]:
    """The file itself, or the parts that it lists, all of them beside it."""
    if not path.name.endswith(".index.json"):
        return [path]
    places = read_config(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f"{path} has no weight_map: it does not say where the tensors are")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        is_beside = name == Path(name).name and name.endswith(".safetensors")
        if not is_beside or not (path.parent / name).is_file() or len(names) > _MAX_PARTS:
            raise UserError(
                f"{path} lists {name[:80]!r}, which is not a safetensors file beside it"
            )
    return [path.parent / name for name in names]
