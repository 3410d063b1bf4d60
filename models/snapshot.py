"""Snapshots: one set of weights and, as JSON in the metadata, all that is needed to sample it.

The file is safetensors, so reading one executes nothing. A checksum of the description and the
weights is verified when both are read; snapshots of earlier versions have no checksum.
"""

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from diffusion.denoiser import Denoiser
from models.build import build
from models.config import ModelConfig
from torch_utils.errors import UserError
from torch_utils.files import replacing
from torch_utils.jsons import parse_json, strict
from torch_utils.safetensors_files import (
    Damaged,
    OtherFormat,
    is_safetensors,
    read_header,
)
from torch_utils.sections import validated

FORMAT_VERSION = 1
SNAPSHOTS = "network-snapshot-*.safetensors"
_OTHER_AVERAGE = re.compile(r"(network-snapshot-\d{10,})-\d+\.\d+(\.safetensors)")
METADATA_KEY = "driftless"
CHECKSUM_KEY = "sha256"
MAX_VALUES = 2**20  # in a description
MAX_INT = 2**63 - 1


@dataclass(frozen=True)
class SnapshotInfo:
    """The description in a snapshot.

    Attributes:
        model: the model's config.
        sampling: default sampler settings, the flat mapping of samplers.settings.
        label_names: a name for each class or tag, or None.
        label_kind: what labels are: class, multi_hot (tags) or vector; None without labels.
        present_classes: the classes that some training image has; None for all of them.
        label_examples: labels of training images to draw from; for tags and vectors only.
        label_dropout: probability of the null label in training; None if unknown.
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

    @property
    def labels(self) -> dict[str, Any]:
        """Everything about labels, as the arguments of `samplers.labels.label_source`."""
        return {
            "dim": self.model.label_dim,
            "kind": self.label_kind,
            "present": self.present_classes,
            "examples": self.label_examples,
            "names": self.label_names,
        }


def snapshot_path(folder: str | os.PathLike[str], images: int, ema_name: str = "") -> Path:
    """The path of the snapshot after so many training images."""
    suffix = f"-{ema_name}" if ema_name else ""
    return Path(folder) / f"network-snapshot-{images:010d}{suffix}.safetensors"


def point_of(path: Path) -> str:
    """What the snapshots of one point of a run have in common: the name of its own average."""
    found = _OTHER_AVERAGE.fullmatch(path.name)
    return path.name if found is None else found[1] + found[2]


def is_other_average(path: Path) -> bool:
    """Whether a snapshot is of another average than the run's own, by its name."""
    return point_of(path) != path.name


def find_snapshot(path: str | os.PathLike[str]) -> Path:
    """The snapshot at a path; the newest one if the path is a run directory.

    Averages that training kept beside its own count only where there are no others.

    Raises:
        UserError: the directory has no snapshots.
    """
    if not Path(path).is_dir():
        return Path(path)
    snapshots = sorted(Path(path).glob(SNAPSHOTS))
    if not snapshots:
        raise UserError(f"no {SNAPSHOTS} in {path}")
    own = [snapshot for snapshot in snapshots if not is_other_average(snapshot)]
    return (own or snapshots)[-1]


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
    plain = strict(record)
    plain[CHECKSUM_KEY] = _checksum(plain, tensors)
    text = json.dumps(plain, allow_nan=False)
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={METADATA_KEY: text})
        except SafetensorError as error:
            raise OSError(f"{path}: {error}") from None


def _checksum(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """A digest of a description and the tensors, sorted by name."""
    digest = hashlib.sha256(json.dumps(record, allow_nan=False).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_snapshot(
    path: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[Denoiser, SnapshotInfo]:
    """Read a snapshot and build its denoiser, in evaluation mode, without gradients.

    Nothing is drawn: the global random generators are left as they are.

    Raises:
        UserError: the file does not exist, is not a snapshot of ours, has another format or is
            damaged, or its tensors do not match its config.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = _read_header(path)
    denoiser = _empty(path, header)
    try:
        tensors = load_file(path)
        is_sound = header.checksum in (None, _checksum(header.record, tensors))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not is_sound:
        raise UserError(f"{path} is damaged: its checksum is wrong; copy it again")
    # clones: the tensors are mapped to the file, and would change with it
    own = {name: tensor.clone() for name, tensor in tensors.items()}
    denoiser.load_state_dict(own, assign=True)
    return denoiser.eval().requires_grad_(False).to(device), header.info


def read_info(path: str | os.PathLike[str]) -> SnapshotInfo:
    """Read the description in a snapshot, without the weights and without checking the checksum.

    Raises:
        UserError: as `load_snapshot`.
    """
    return _read_header(path).info


@dataclass(frozen=True)
class _Header:
    """The part of the file before the weights.

    Attributes:
        info: the description.
        record: the same as plain data, as it is in the file.
        checksum: of record and tensors; None in files of earlier versions.
        tensors: shape and type of each, as safetensors names it.
    """

    info: SnapshotInfo
    record: dict[str, Any]
    checksum: Any
    tensors: dict[str, tuple[tuple[int, ...], str]]


def _read_header(path: str | os.PathLike[str]) -> _Header:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UserError(
            "a run directory or a network-snapshot-*.safetensors was expected, but there is no "
            f"snapshot at {path}"
        )
    _check_whole(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            tensors = {k: (tuple(s.get_shape()), s.get_dtype()) for k, s in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if METADATA_KEY not in metadata:
        raise UserError(_refusal(path, "it is safetensors without our description"))
    try:
        record = parse_json(metadata[METADATA_KEY].encode(), MAX_VALUES, MAX_INT)
        checksum = record.pop(CHECKSUM_KEY, None)
        version = record["versions"]["format"]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise UserError(_refusal(path, "its description cannot be read")) from None
    if version != FORMAT_VERSION:
        raise UserError(f"{path} has format {version}, this version reads {FORMAT_VERSION}")
    unknown = record.keys() - {entry.name for entry in fields(SnapshotInfo)}
    if unknown or "model" not in record:
        raise UserError(f"{path}: its description is incomplete or has unknown entries")
    model = validated(ModelConfig, record["model"], f"{path}: model")
    try:
        info = TypeAdapter(SnapshotInfo).validate_python({**record, "model": model})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise UserError(f"{path}: its description is wrong at {where}: {problem['msg']}") from None
    return _Header(info, record, checksum, tensors)


def _check_whole(path: str | os.PathLike[str]) -> None:
    """Refuse a file that is no safetensors, cannot be read or is cut off, and say which it is."""
    try:
        read_header(path)
    except OtherFormat as error:
        raise UserError(_refusal(path, str(error))) from None
    except Damaged as error:
        raise UserError(f"{path} is damaged: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _refusal(path: str | os.PathLike[str], problem: str) -> str:
    return (
        f"{path} is not a snapshot of Driftless: {problem}; give a network-snapshot-*.safetensors"
    )


def is_snapshot(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a snapshot of ours, by its content; one that is cut off counts as one."""
    if not is_safetensors(path):
        return False
    try:
        metadata = read_header(path).get("__metadata__")
    except (Damaged, OSError, UserError):
        return True  # to be refused with what is wrong
    return isinstance(metadata, dict) and METADATA_KEY in metadata


def _empty(path: str | os.PathLike[str], header: _Header) -> Denoiser:
    """The denoiser of a header, without weights, checked against the tensors of the file.

    Until they agree, nothing takes memory for the sizes that the config names.
    """
    options = header.info.model.network
    blocks, mult = options.get("num_blocks"), options.get("channel_mult")
    most = 0  # without them the network has its defaults; it refuses other types itself
    if isinstance(blocks, int) and isinstance(mult, list):
        most = blocks * len(mult)
    if most > len(header.tensors):
        raise UserError(
            f"{path}: its config asks for {most} blocks, but it has {len(header.tensors)} tensors"
        )
    denoiser = build(header.info.model, empty=True)
    state = denoiser.state_dict()
    expected = {name: (tuple(t.shape), _TYPES.get(t.dtype)) for name, t in state.items()}
    found = header.tensors
    if expected != found:
        wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        raise UserError(f"{path}: {len(wrong)} tensors do not match its config, first {wrong[0]}")
    return denoiser


_TYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}  # as safetensors names
