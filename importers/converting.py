"""Writing a model: as a snapshot of ours, as a plain state dict, or as a folder of diffusers."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import mkdtemp

from torch import Tensor

from importers.opening import FoundModel
from models.snapshot import SnapshotInfo, save_snapshot
from torch_utils.errors import UserError
from torch_utils.files import prepare_folder, replacing, writing

FORMS = ("driftless", "state-dict", "diffusers")
_FOLDERS = ("diffusers",)  # forms that are folders
_MARKS = ("model_index.json", "config.json")  # of such a folder


def check_destination(dest: str | os.PathLike[str], form: str, *, overwrite: bool) -> Path:
    """Check before the work that a model can be written there.

    Args:
        dest: the file or folder.
        form: of FORMS.
        overwrite: whether what is there may be replaced.

    Raises:
        UserError: there is something that must not be replaced, or the name does not fit.
    """
    path, is_folder = Path(dest), form in _FOLDERS
    if not is_folder and path.suffix != ".safetensors":
        raise UserError(f"--dest={dest}: give the name of a .safetensors file")
    if is_folder and path.suffix == ".safetensors":
        raise UserError(f"--dest={dest}: a model of {form} is a folder: give the name of one")
    _check_replaced(path, is_folder, overwrite=overwrite)
    prepare_folder(path.parent)
    return path


def _check_replaced(path: Path, is_folder: bool, *, overwrite: bool) -> None:
    """Refuse to replace what is there, unless it is meant and is of the same kind."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise UserError(f"--dest={path} exists: give --overwrite to replace it")
    if is_folder != path.is_dir():
        kind = "a folder" if path.is_dir() else "a file"
        raise UserError(f"--dest={path} is {kind}, which is not replaced: give another name")
    if is_folder and any(path.iterdir()) and not any((path / mark).exists() for mark in _MARKS):
        raise UserError(f"--dest={path} is a folder of other files, which is not replaced")


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


def _to_diffusers(model: FoundModel, dest: Path) -> list[str]:
    from importers.diffusers import write_diffusers

    with writing(dest):
        dest.parent.mkdir(parents=True, exist_ok=True)
        work = Path(mkdtemp(prefix=f".{dest.name}.tmp-", dir=dest.parent))
        try:
            notes = write_diffusers(work / "new", model.denoiser(), model.info)
            _put(work / "new", dest, work / "old")
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return notes


def _put(new: Path, dest: Path, aside: Path) -> None:
    """Move a folder to its place; what was there goes aside, and comes back if that fails."""
    had_one = dest.exists()
    if had_one:
        dest.rename(aside)
    try:
        new.rename(dest)
    except OSError:
        if had_one:
            aside.rename(dest)
        raise


_WRITERS: dict[str, Callable[[FoundModel, Path], list[str]]] = {
    "driftless": _to_ours,
    "state-dict": _to_state_dict,
    "diffusers": _to_diffusers,
}
