"""Training states: one file that holds all that training needs, whole or not at all.

A torch zip of plain data, readable with `weights_only=True`. Written under a temporary name and
renamed; its checksum is verified before it is trusted. Format 1 had only those of the zip.
"""

import contextlib
import hashlib
import os
import re
import socket
import time
import zipfile
from pathlib import Path
from typing import Any

import torch

from models.snapshot import point_of
from torch_utils import torch_files
from torch_utils.distributed import World
from torch_utils.errors import Failure, UserError
from torch_utils.files import replacing
from training.checksum import checksum

FORMAT_VERSION = 2
CHECKSUM_KEY = "sha256"
PATTERN = "training-state-*.pt"
PATIENCE = 90.0  # seconds; longer than network file systems hide a new file from other machines


def state_path(folder: str | os.PathLike[str], seen: int) -> Path:
    """Where the state after so many images lies."""
    return Path(folder) / f"training-state-{seen:010d}.pt"


def seen_of(path: Path) -> int:
    """Images seen, from the name of a state, snapshot or picture; 0 if it has no number."""
    match = re.search(r"-(\d{10,})(?!\d)", path.name)
    return int(match[1]) if match else 0


def digest(path: str | os.PathLike[str]) -> int:
    """A 62-bit number that identifies a state's content, from the checksums of its members.

    Raises:
        UserError: it is not a zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [(info.filename, info.file_size, info.CRC) for info in archive.infolist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged or not a training state: {error}") from None
    text = repr(sorted(members)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 2


def save_state(folder: str | os.PathLike[str], state: dict[str, Any], keep: int | None) -> Path:
    """Write a state and drop the oldest beyond `keep`.

    Args:
        folder: the run directory.
        state: tensors on the CPU, numbers, text, lists and dicts; needs `trainer` with `seen`.
        keep: how many of the newest to keep; None for all.

    Returns:
        The file.

    Raises:
        OSError: it cannot be written; what was there before is as it was.
    """
    path = state_path(folder, state["trainer"]["seen"])
    content = {"format": FORMAT_VERSION, **state}
    content[CHECKSUM_KEY] = checksum(content)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # a full disk shows as an inconsistency of the archive that torch was closing
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
    prune(path.parent, PATTERN, keep)
    return path


def prune(folder: Path, pattern: str, keep: int | None, spared: Path | None = None) -> None:
    """Delete all but the `keep` newest files of a pattern, whose names sort by progress.

    Snapshots of one point, which hold several averages, count as one file.

    Args:
        folder: the run directory.
        pattern: of the files.
        keep: how many to keep; None for all.
        spared: a file that is kept beside them.
    """
    if keep is None:
        return
    files = sorted(folder.glob(pattern))
    kept = {*sorted({point_of(path) for path in files})[-keep:]}
    if spared is not None:
        kept.add(point_of(spared))
    for path in files:
        if point_of(path) not in kept:
            path.unlink()


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a state onto the CPU.

    Raises:
        UserError: no such file, damaged, or not a state of ours.
    """
    if not Path(path).is_file():
        raise UserError(f"no training state at {path}")
    state = torch_files.load(path, str(path))
    version = state.get("format") if isinstance(state, dict) else None
    is_known = type(version) is int and 1 <= version <= FORMAT_VERSION
    if not isinstance(state, dict) or not is_known:
        raise UserError(
            f"{path} is not a training state of Driftless in format {FORMAT_VERSION} or before"
        )
    if version != 1:
        _verify(state, path)
    return state


def _verify(state: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Compare a state with its checksum, and take that out of it.

    Raises:
        UserError: they do not agree.
    """
    expected = state.pop(CHECKSUM_KEY, None)
    try:
        is_sound = checksum(state) == expected
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not is_sound:
        raise UserError(f"{path} is damaged: its checksum is wrong")


def newest_state(folder: Path) -> tuple[Path | None, dict[str, Any] | None, list[str]]:
    """The newest state of a run that is whole.

    Returns:
        (file, state, problems): problems names the damaged files that were skipped; file and state
        are None if the run has no state.

    Raises:
        UserError: there are states, and all are damaged.
    """
    problems: list[str] = []
    for path in sorted(folder.glob(PATTERN), reverse=True):
        try:
            return path, load_state(path), problems
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(f"every training state in {folder} is damaged; the newest: {problems[0]}")
    return None, None, []


def await_file(path: Path, world: World) -> None:
    """Wait for a file that the main process sees already; other machines may see it later.

    Raises:
        Failure: it does not appear.
    """
    end = time.monotonic() + PATIENCE
    while not path.is_file():
        if time.monotonic() > end:
            raise Failure(
                f"process {world.rank} on {socket.gethostname()} does not see {path}: the run "
                "directory must lie on a file system that all machines share"
            )
        with contextlib.suppress(OSError):
            os.listdir(path.parent)  # makes a network file system look again
        time.sleep(0.2)
