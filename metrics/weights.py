"""Where the weights of a detector come from: the user's file, the cache, or the network.

Published files are checked against their hash wherever they come from. A user's file may have any
hash, and the numbers carry it.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from torch_utils.bounded import chunks, open_regular
from torch_utils.cache_folder import DOWNLOADS, cache_folder
from torch_utils.downloads import fetch
from torch_utils.errors import UserError

LIMIT = 2**29  # bytes of a download whose size is not known


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A published file of weights.

    Attributes:
        name: of the file in the cache.
        addresses: where it can be downloaded; the same file at each.
        sha256: its hash, 64 hexadecimal digits.
        size: its bytes; None if they are not known for certain.
    """

    name: str
    addresses: tuple[str, ...]
    sha256: str
    size: int | None = None


def find_weights(detector: str, file: WeightsFile, given: str = "") -> tuple[Path, str]:
    """The file that holds the weights of a detector, and its hash.

    Args:
        detector: its name, for messages.
        file: the published file.
        given: what the user gave by --weights; empty for the published file from the cache, or
            from the network if the cache does not have it.

    Raises:
        UserError: the given file cannot be read; or the published one is neither in the cache nor
            can it be downloaded. The message says what to put where.
    """
    if given:
        return Path(given), hash_of(given)
    path = fetch(
        file.addresses,
        file.name,
        cache_folder(DOWNLOADS),
        sha256=file.sha256,
        limit=file.size or LIMIT,
        size=file.size,
        place_hint=f", or give it to detector {detector!r} by --weights=FILE",
    )
    return path, file.sha256


def hash_of(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file that the user named, 64 hexadecimal digits.

    Raises:
        UserError: it does not exist, cannot be read, or is not a regular file.
    """
    found = hashlib.sha256()
    try:
        with open_regular(path) as file:
            for chunk in chunks(file):
                found.update(chunk)
    except OSError as error:
        raise UserError(f"--weights={os.fspath(path)}: {error.strerror or error}") from None
    return found.hexdigest()
