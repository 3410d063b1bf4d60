"""Writing a model: as a snapshot of ours, or as a plain state dict."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from importers.opening import FoundModel
from models.snapshot import SnapshotInfo, save_snapshot
from torch_utils.errors import UserError
from torch_utils.files import prepare_folder, replacing, writing

FORMS = ("driftless", "state-dict")


def check_destination(dest: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Check before the work that a model can be written there.

    Args:
        dest: the file.
        overwrite: whether what is there may be replaced.

    Raises:
        UserError: there is something that must not be replaced, or the name does not fit.
    """
    path = Path(dest)
    if path.suffix != ".safetensors":
        raise UserError(f"--dest={dest}: give the name of a .safetensors file")
    if os.path.lexists(path):
        if not overwrite:
            raise UserError(f"--dest={dest} exists: give --overwrite to replace it")
        if path.is_dir():
            raise UserError(f"--dest={dest} is a folder, which is not replaced: give another name")
    prepare_folder(path.parent)
    return path


def write_weights(dest: Path, weights: Mapping[str, Tensor], info: SnapshotInfo) -> None:
    """Write a snapshot of ours, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with writing(dest):
        save_snapshot(dest, weights, info)


def convert(model: FoundModel, dest: Path, form: str) -> list[str]:
    """Write a model in a form of FORMS, whole or not at all.

    Args:
        model: the model.
        dest: of `check_destination`.
        form: of FORMS.

    Returns:
        Lines about what the form does not hold.

    Raises:
        UserError: the form cannot hold the model, or it cannot be written.
    """
    return _WRITERS[form](model, dest)


def _to_ours(model: FoundModel, dest: Path) -> list[str]:
    write_weights(dest, model.denoiser().state_dict(), model.info)
    return []


def _to_state_dict(model: FoundModel, dest: Path) -> list[str]:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    weights = model.denoiser().state_dict()
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    with writing(dest), replacing(dest) as temporary:
        try:
            save_file(tensors, temporary)
        except SafetensorError as error:
            raise OSError(str(error)) from None
    return ["a plain state dict: config, labels and sampler settings are not in it"]


_WRITERS: dict[str, Callable[[FoundModel, Path], list[str]]] = {
    "driftless": _to_ours,
    "state-dict": _to_state_dict,
}
