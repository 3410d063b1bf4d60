"""Files from the network: fetched once for all processes, and checked at every use.

A file is checked against a SHA-256 that is known beforehand. If none is known, the hash of what
came first is kept beside the file, as NAME.sha256, and later content must have it too. A file
appears under its name only when it is whole; one with a wrong hash is neither used nor deleted.
"""

import contextlib
import glob
import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_utils.addresses import SHA256_DIGITS, shown
from torch_utils.errors import UserError
from torch_utils.files import drop_temporaries, replacing
from torch_utils.locks import holding
from torch_utils.notes import say_here
from torch_utils.progress import ByteProgress
from torch_utils.transfer import TIMEOUT, Failed, chunks, opened

_ATTEMPTS = 3  # at a server that breaks off, or says that it cannot now
_PAUSE = 1.0  # seconds between them
_MAX_LINE = 4096  # bytes of a hash file that are looked at
_ABANDONED = 24 * 3600  # seconds after which a half-written file is nobody's, if there are no locks


@dataclass(frozen=True)
class _Wanted:
    """What a file must be.

    Attributes:
        sha256: its hash, in lower case, if it is known beforehand.
        kept: otherwise the hash that it had at first, if it was ever here.
        size: its exact number of bytes, if known.
        limit: the most bytes that are taken.
    """

    sha256: str | None
    kept: str | None
    size: int | None
    limit: int


def fetch(
    addresses: Sequence[str],
    name: str,
    folder: Path,
    *,
    sha256: str | None,
    limit: int,
    size: int | None = None,
    place_hint: str = "",
    timeout: float = TIMEOUT,
) -> Path:
    """The path of a file that is kept in a folder, fetched if it is not there yet.

    Of several processes that ask at once, one fetches and the others wait. A folder that cannot be
    written serves the files that it has.

    Args:
        addresses: where the file is, as `addresses.address_of` gives it; they are tried in turn.
        name: its name in the folder.
        folder: where it is kept; made if needed.
        sha256: what its content must have, 64 hexadecimal digits; None to keep what comes first.
        limit: the most bytes that it may have, whatever the server says.
        size: its exact number of bytes, if known.
        place_hint: the end of the line for a file that cannot be had, after "put it at PATH":
            another way to give it.
        timeout: seconds to wait for a connection and for each answer.

    Raises:
        UserError: no address gives the file, it is not the expected one, or it cannot be kept.
    """
    assert addresses, "no address"
    assert not any("#" in url for url in addresses), addresses
    assert name == Path(name).name != "", name
    path, sha256 = Path(folder) / name, sha256.lower() if sha256 else None
    with _keeping(path):
        if path.is_file():
            return _checked(path, sha256, size)
        path.parent.mkdir(parents=True, exist_ok=True)
        with holding(path.with_name(f".{path.stem}.lock"), f"fetches {name}") as is_held:
            if path.is_file():
                return _checked(path, sha256, size)
            for stem in (path.stem, path.name):
                age = 0.0 if is_held else _ABANDONED
                drop_temporaries(path.parent, glob.escape(stem), older_than=age)
            wanted = _Wanted(sha256, None if sha256 else _kept_hash(path), size, limit)
            _fetch_from_any(addresses, path, wanted, place_hint, timeout)
    return path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


@contextlib.contextmanager
def _keeping(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot keep {path.name} in {path.parent} ({error.strerror or error}): make room or "
            "give permission there, or name another folder by DRIFTLESS_CACHE"
        ) from None


# --- hashes beside files


def _hash_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _kept_hash(path: Path) -> str | None:
    """The hash beside a file, which may be missing itself."""
    beside = _hash_file(path)
    try:
        with open(beside, "rb") as file:
            text = file.read(_MAX_LINE).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {beside}: {error.strerror or error}") from None
    found = re.match(rf"([0-9A-Fa-f]{{{SHA256_DIGITS}}})\b", text)
    if not found:
        raise UserError(f"{beside} does not begin with a SHA-256: delete it")
    return found[1].lower()


def _keep_hash(path: Path, sha256: str) -> None:
    """Write a hash beside a file, as the program sha256sum reads it."""
    with replacing(_hash_file(path)) as temporary:
        temporary.write_text(f"{sha256}  {path.name}\n", encoding="utf-8")


def _checked(path: Path, sha256: str | None, size: int | None) -> Path:
    """A file that is there already, if it is the expected one."""
    found, kept = sha256_of(path), None if sha256 else _kept_hash(path)
    if sha256 and found != sha256:
        raise UserError(
            f"{path} has the SHA-256 {found}, expected {sha256}: it is damaged or another "
            "file; delete it to have it fetched again"
        )
    if kept and found != kept:
        raise UserError(
            f"{path} has the SHA-256 {found}, and had {kept} at first: it has changed; delete it "
            f"to have it fetched again, or delete {_hash_file(path).name} to use it as it is"
        )
    if size is not None and path.stat().st_size != size:
        raise UserError(
            f"{path} has {path.stat().st_size:,} bytes, expected {size:,}: delete it to have it "
            "fetched again"
        )
    if not sha256 and not kept:
        with contextlib.suppress(OSError):  # a folder for reading only
            _keep_hash(path, found)
    return path


# --- the network


def _fetch_from_any(
    addresses: Sequence[str], path: Path, wanted: _Wanted, place_hint: str, timeout: float
) -> None:
    """Fetch a file from the first address that gives it."""
    failures: dict[str, Failed] = {}
    for attempt in range(_ATTEMPTS):
        left = [url for url in addresses if url not in failures or failures[url].is_passing]
        if attempt and left:
            say_here(f"{path.name}: {failures[left[0]]}: trying again")
            time.sleep(_PAUSE)
        for url in left:
            try:
                return _fetch_from(url, path, wanted, timeout)
            except Failed as failed:
                failures[url] = failed
    reasons = " or ".join(f"{shown(url)} ({failures[url]})" for url in addresses)
    raise UserError(
        f"cannot fetch {path.name} from {reasons}: connect to the network, or put the file at "
        f"{path}{place_hint}"
    )


def _fetch_from(url: str, path: Path, wanted: _Wanted, timeout: float) -> None:
    """Fetch a file from one address, and keep it if it is the expected one."""
    most = wanted.limit if wanted.size is None else min(wanted.limit, wanted.size)
    digest, done = hashlib.sha256(), 0
    with opened(url, timeout) as response, replacing(path) as temporary:
        total = wanted.size if response.length is None else response.length
        with open(temporary, "wb") as file, ByteProgress(total, path.name) as bar:
            for chunk in chunks(response, most, timeout):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                bar.update(len(chunk))
        found = digest.hexdigest()
        _compare(done, found, wanted, path)
        _keep_hash(path, found)  # first: no file is ever there without it


def _compare(size: int, sha256: str, wanted: _Wanted, path: Path) -> None:
    """Raise `Failed` if what came is not what was expected."""
    if wanted.size is not None and size != wanted.size:
        raise Failed(f"it has {size:,} bytes, expected {wanted.size:,}")
    if wanted.sha256 and sha256 != wanted.sha256:
        raise Failed(f"it has the SHA-256 {sha256}, expected {wanted.sha256}")
    if wanted.kept and sha256 != wanted.kept:
        raise Failed(
            f"it has the SHA-256 {sha256}, and had {wanted.kept} at first; to take it as it is, "
            f"delete {_hash_file(path)}"
        )
