"""The one door to models: ours and foreign ones, on the disk or on the network.

What a file is, its content tells. Nothing in a foreign file is executed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from diffusion.denoiser import Denoiser
from importers.interface import ForeignModel
from importers.names import LIMIT, looks_like_a_name, model_address, names_near, row_of_file
from models.snapshot import (
    SNAPSHOTS,
    SnapshotInfo,
    find_snapshot,
    is_snapshot,
    load_snapshot,
    read_info,
)
from torch_utils.addresses import file_name, is_url
from torch_utils.bounded import open_regular
from torch_utils.cache_folder import MODELS, cache_folder
from torch_utils.errors import UserError
from torch_utils.safetensors_files import is_safetensors

OURS = "driftless"
_FORMS = (
    "give a run directory, a network-snapshot-*.safetensors or another checkpoint, a URL, or a "
    "name such as edm:cifar10-32x32-cond-vp"
)
_RUNS = (SNAPSHOTS, "network-snapshot-*.pkl")  # ours, and EDM's


@dataclass(frozen=True)
class FoundModel:
    """A model whose description was read, and whose weights can be put on a device.

    Attributes:
        path: the file or folder.
        family: driftless, or what made it, e.g. edm, sa-dpm, v-diffusion, ddpm-xyf or diffusers.
        info: what it says of itself.
        notes: lines about what was read in a way that one might not expect.
    """

    path: Path
    family: str
    info: SnapshotInfo
    notes: tuple[str, ...] = ()
    _foreign: ForeignModel | None = None

    def denoiser(self, device: torch.device | str = "cpu") -> Denoiser:
        """The model in evaluation mode, without gradients, on a device.

        Raises:
            UserError: a snapshot of ours is damaged.
        """
        if self._foreign is not None:
            return self._foreign.denoiser(device)
        denoiser, _ = load_snapshot(self.path, device)
        return denoiser

    def opened(self, device: torch.device | str = "cpu") -> "OpenModel":
        """The same with its denoiser."""
        return OpenModel(self.denoiser(device), self.info, self.path, self.family, self.notes)


@dataclass(frozen=True)
class OpenModel:
    """A model that can be called.

    Attributes:
        denoiser: in evaluation mode, without gradients.
        info, path, family, notes: as of `FoundModel`.
    """

    denoiser: Denoiser
    info: SnapshotInfo
    path: Path
    family: str
    notes: tuple[str, ...] = ()


def find_model(text: str | os.PathLike[str]) -> Path:
    """The file or folder of a model.

    Args:
        text: a file; a run directory, for its newest snapshot; a folder of diffusers; a URL, also
            with `#sha256=HEX`; or a name such as edm:cifar10-32x32-cond-vp. What a name or a URL
            stands for is fetched once and kept in the cache; its hash is checked at every use.

    Raises:
        UserError: there is nothing there, the name is unknown, or it cannot be fetched.
    """
    given = os.fspath(text)
    address = None if os.path.exists(given) else model_address(given)
    if address is not None:
        return _fetched(*address)
    path = Path(given)
    if not path.is_dir():
        if not path.exists():
            near = names_near(given)
            meant = f"did you mean {' or '.join(near)}?" if near else _FORMS
            raise UserError(f"there is no snapshot at {given}: {meant}")
        return path
    return _newest_in(path)


def _newest_in(folder: Path) -> Path:
    """The model that a folder stands for: its newest snapshot, or the folder itself."""
    ours, others = (sorted(folder.glob(pattern)) for pattern in _RUNS)
    if ours:
        return find_snapshot(folder)
    if others:
        return others[-1]
    if _kind_of_folder(folder) is not None:
        return folder
    return find_snapshot(folder)  # says what was looked for


def _fetched(address: str, sha256: str | None) -> Path:
    from torch_utils.downloads import fetch

    return fetch(
        [address],
        file_name(address),
        cache_folder(MODELS),
        sha256=sha256,
        limit=LIMIT,
        place_hint=", or give the path of a copy in place of its name",
    )


def is_model(text: str | os.PathLike[str]) -> bool:
    """Whether something is meant as a model, not as images: by its form and its content."""
    given = os.fspath(text)
    path = Path(given)
    if not path.exists():
        return is_url(given) or looks_like_a_name(given) or path.suffix == ".safetensors"
    if path.is_dir():
        is_run = any(any(path.glob(pattern)) for pattern in _RUNS)
        return is_run or _kind_of_folder(path) is not None
    return path.suffix in (".safetensors", ".pkl", ".pt", ".pth", ".ckpt") or is_snapshot(path)


def read_model(
    path: str | os.PathLike[str],
    *,
    model_config: str | os.PathLike[str] | None = None,
    weights: str = "ema",
) -> FoundModel:
    """Read what a model says of itself.

    Args:
        path: of `find_model`.
        model_config: for foreign checkpoints, facts that their tensors do not tell.
        weights: ema or raw, for foreign checkpoints that have both.

    Raises:
        UserError: it is no model that is known, is damaged, or does not tell enough.
    """
    file, kind = Path(path), kind_of(path)
    if kind in _SELF_CONTAINED and model_config is not None:
        raise UserError(f"{file} holds its config: leave out the one that is given for it")
    if kind in _ONE_SET and weights != "ema":
        raise UserError(f"{file} has one set of weights: leave out {weights!r}")
    if kind == OURS:
        return FoundModel(file, OURS, read_info(file))
    found = _READERS[kind](file, model_config, weights)
    row = row_of_file(file.name)
    info = found.info if row is None else replace(found.info, sampling=row.sampling)
    return FoundModel(file, found.family, info, found.notes, found)


def read_model_info(
    path: str | os.PathLike[str],
    *,
    model_config: str | os.PathLike[str] | None = None,
    weights: str = "ema",
) -> SnapshotInfo:
    """What a model says of itself; see `read_model`."""
    return read_model(path, model_config=model_config, weights=weights).info


def open_model(
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    *,
    model_config: str | os.PathLike[str] | None = None,
    weights: str = "ema",
) -> OpenModel:
    """A model on a device; see `read_model`."""
    return read_model(path, model_config=model_config, weights=weights).opened(device)


_SELF_CONTAINED = (OURS, "edm", "diffusers")
_ONE_SET = (OURS, "diffusers")


def kind_of(path: str | os.PathLike[str]) -> str:
    """What reads a file or folder, by its content: driftless, edm, diffusers or checkpoint.

    Raises:
        UserError: nothing does.
    """
    file = Path(path)
    kind = _kind_of_folder(file) if file.is_dir() else _kind_of_file(file)
    if kind is None:
        raise UserError(
            f"{file} is no checkpoint of a known kind: read are snapshots of Driftless, pickles of "
            "EDM, files of torch.save, safetensors, and folders of diffusers"
        )
    return kind


def _kind_of_folder(folder: Path) -> str | None:
    from importers.containers import is_step_folder
    from importers.diffusers import is_diffusers

    if is_step_folder(folder):
        return "checkpoint"
    return "diffusers" if is_diffusers(folder) else None


def _kind_of_file(file: Path) -> str | None:
    from importers.edm_pickle import is_edm
    from torch_utils.torch_files import is_torch_file

    if not file.is_file() or not file.stat().st_size or is_snapshot(file):
        return OURS  # its reader says what is wrong
    if is_safetensors(file):
        return "checkpoint"
    if is_edm(file):
        return "edm"
    try:
        with open_regular(file) as opened:
            start = opened.read(16)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from None
    if is_torch_file(start):
        return "checkpoint"
    return OURS if file.suffix == ".safetensors" else None


def _read_edm(
    path: Path, _model_config: str | os.PathLike[str] | None, weights: str
) -> ForeignModel:
    from importers.edm import read_edm

    return read_edm(path, weights=weights)


def _read_diffusers(
    path: Path, _model_config: str | os.PathLike[str] | None, _weights: str
) -> ForeignModel:
    from importers.diffusers import read_diffusers

    return read_diffusers(path)


def _read_checkpoint(
    path: Path, model_config: str | os.PathLike[str] | None, weights: str
) -> ForeignModel:
    from importers.checkpoint import read_checkpoint

    return read_checkpoint(path, model_config=model_config, weights=weights)


_READERS: dict[str, Callable[[Path, str | os.PathLike[str] | None, str], ForeignModel]] = {
    "edm": _read_edm,
    "diffusers": _read_diffusers,
    "checkpoint": _read_checkpoint,
}
