"""The folder of this machine for things that can be made or fetched again.

`DRIFTLESS_CACHE` names the folder; else it lies below `XDG_CACHE_HOME` or the home folder. A user
without a home, e.g. in a container that runs under an arbitrary user number, gets a private folder
among the temporary files.
"""

import os
import tempfile
from pathlib import Path

from torch_utils.errors import UserError
from torch_utils.notes import warn

DATASETS = "datasets"  # decoded and converted data sets
TORCHVISION = "torchvision"  # downloads of public ones
DOWNLOADS = "downloads"  # weights of detectors
REFERENCES = "references"  # statistics of public data sets that images are compared with
MODELS = "models"  # published checkpoints


def cache_folder(part: str) -> Path:
    """The folder for one part of the cache; it need not exist.

    Args:
        part: one of the names above. DRIFTLESS_CACHE itself is the folder of the data sets.

    Raises:
        UserError: no folder is given, there is no home, and no private temporary folder either.
    """
    given = os.environ.get("DRIFTLESS_CACHE")
    if given:
        folder = Path(os.path.expanduser(given))
        return folder if part == DATASETS else folder / part
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base, "driftless", part)
    home = os.path.expanduser("~")  # stays "~" where the system does not know the user
    if os.path.isabs(home):
        folder = Path(home, ".cache", "driftless", part)
        if _is_there_or_can_be_made(folder):
            return folder
    folder = _private_temporary_folder() / part
    warn(f"there is no home folder to write to: {part} are kept in {folder}; "
         "DRIFTLESS_CACHE names another place")  # fmt: skip
    return folder


def _is_there_or_can_be_made(folder: Path) -> bool:
    """Whether a folder exists, even if for reading only, or its nearest parent can be written."""
    nearest = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    effective = os.access in os.supports_effective_ids
    return nearest == folder or os.access(nearest, os.W_OK | os.X_OK, effective_ids=effective)


def _private_temporary_folder() -> Path:
    """A folder of this user's own among the temporary files of all."""
    number = os.geteuid() if hasattr(os, "geteuid") else 0
    try:
        folder = Path(tempfile.gettempdir(), f"driftless-{number}")
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or (os.name == "posix" and folder.stat().st_uid != number):
            raise PermissionError(f"{folder} is another user's")
    except OSError as error:
        raise UserError(
            f"there is no folder to keep files in ({error.strerror or error}): "
            "name one by DRIFTLESS_CACHE"
        ) from None
    return folder
