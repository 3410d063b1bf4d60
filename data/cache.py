"""Decoded images as memory-mapped arrays in a cache folder, made once and shared by processes.

An entry is named after the files that it was made of, so it never goes stale: a changed data set
gets another entry. It holds images only; labels are read at every start. `DRIFTLESS_CACHE` names
the folder, `DRIFTLESS_CACHE_GB` the limit of its size. Without room or permission to write, images
are decoded into memory.
"""

import contextlib
import math
import os
import re
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data import entry
from data.dataset import ImageDataset
from data.workers import decode_in_processes
from torch_utils import cache_folder as folders
from torch_utils.errors import Failure, UserError
from torch_utils.files import drop_temporaries, replacing
from torch_utils.locks import holding
from torch_utils.notes import warn, warn_here
from torch_utils.threads import num_cores

DEFAULT_LIMIT_GB = 50.0
MIN_FOR_PROCESSES = 10_000  # images; for fewer, starting processes takes longer than it saves
_ABANDONED = 24 * 3600  # seconds after which a half-written entry counts as abandoned


@dataclass(frozen=True)
class Entry:
    """One data set in the cache.

    Attributes:
        path: the .npy file.
        size: bytes on disk.
        used: time of the last use, Unix seconds.
    """

    path: Path
    size: int
    used: float


def cache_folder() -> Path:
    """The folder of decoded data sets; it need not exist.

    Raises:
        UserError: no folder is given and none can be found.
    """
    return folders.cache_folder(folders.DATASETS)


def cache_limit() -> float:
    """Largest size of the cache in bytes; may be infinite.

    Raises:
        UserError: DRIFTLESS_CACHE_GB is not a number, or below 0.
    """
    text = os.environ.get("DRIFTLESS_CACHE_GB") or str(DEFAULT_LIMIT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not gigabytes >= 0:
        raise UserError(
            f"DRIFTLESS_CACHE_GB is {text!r}: give a number of gigabytes from 0 up, or inf"
        )
    return gigabytes * 1e9


def entries(folder: Path | None = None) -> list[Entry]:
    """The entries of the cache, the least recently used first.

    Raises:
        UserError: as `cache_folder`.
    """
    found = []
    for path in (folder or cache_folder()).glob("*.npy"):
        with contextlib.suppress(OSError):  # another process may have dropped it
            stat = path.stat()
            found.append(Entry(path, stat.st_size, stat.st_atime))
    return sorted(found, key=lambda kept: kept.used)


def clear(folder: Path | None = None) -> int:
    """Delete everything in the cache; processes that have an entry mapped keep it.

    Returns:
        Bytes that were freed.

    Raises:
        UserError: an entry cannot be deleted, e.g. another user's; the others are gone.
    """
    where = folder or cache_folder()
    found = entries(where)
    kept = [each for each in found if not _drop(each.path)]
    drop_temporaries(where, older_than=_ABANDONED)
    if kept:
        raise UserError(
            f"{len(kept)} of {len(found)} entries of {where} cannot be deleted, first "
            f"{kept[0].path.name}: delete them as the user who made them"
        )
    return sum(each.size for each in found)


def cached_images(dataset: ImageDataset, *, progress: bool = True) -> np.ndarray:
    """All images of a data set, decoded at the first call and mapped into memory afterwards.

    Several processes may ask at once: one decodes, the others wait for as long as it takes, and say
    so. A data set that is larger than the limit, or that the folder has no room for, is decoded
    into memory instead. A mapped entry was checked against its checksums.

    Args:
        dataset: the images.
        progress: show the progress of decoding.

    Returns:
        uint8 [N, C, H, W]; writing to it changes no file.

    Raises:
        UserError: an image cannot be used, or files changed while they were read.
        Failure: images that must be decoded into memory do not fit there.
    """
    shape: entry.Shape = (len(dataset), *dataset.image_shape)
    limit = cache_limit()
    if entry.size_of(shape) > limit:
        reason = f"more than DRIFTLESS_CACHE_GB={limit / 1e9:g} allows" if limit else ""
        return _in_memory(dataset, shape, progress, reason)
    try:
        folder = cache_folder()
    except UserError as error:
        return _in_memory(dataset, shape, progress, str(error))
    files = dataset.keys.of_files()
    path = folder / f"{_plain(dataset.name)}-{files}.npy"
    try:
        images = _kept(dataset, path, shape)
        if images is not None:
            return images
        folder.mkdir(parents=True, exist_ok=True)
        with holding(folder / f".{path.stem}.lock", f"decodes {dataset.name}") as is_held:
            images = _kept(dataset, path, shape)  # made while this process waited
            if images is None:
                if is_held:  # temporary files that exist now are of a process that was killed
                    drop_temporaries(folder, path.stem)
                images = _make(dataset, files, path, shape, progress)
                _evict(folder, limit, keep=path)
            return images
    except OSError as error:
        reason = f"{folder} cannot hold it ({error.strerror or error})"
    return _in_memory(dataset, shape, progress, reason)


def _plain(name: str) -> str:
    """A data set's name as a part of a file name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:80]


def _in_memory(
    dataset: ImageDataset, shape: entry.Shape, progress: bool, reason: str
) -> np.ndarray:
    """Decode for this process alone; warn with the reason, if there is one."""
    size = f"{math.prod(shape) / 1e9:.3g} GB"
    if reason:
        warn(f"{dataset.name} is decoded into memory, {size} for each process: {reason}")
    try:
        return dataset.load(progress=progress)
    except MemoryError:
        raise Failure(
            f"{dataset.name} takes {size} decoded, which does not fit into memory"
            f"{f' ({reason})' if reason else ''}: let DRIFTLESS_CACHE name a folder with room"
        ) from None


def _kept(dataset: ImageDataset, path: Path, shape: entry.Shape) -> np.ndarray | None:
    """The images from the cache; None if it lacks them, or if the entry is damaged."""
    if not path.exists():
        return None
    try:
        found = entry.load(path, shape)
    except OSError:
        return None  # it cannot be read or mapped: it is made again, if need be in memory
    if found is None:
        warn_here(f"{path} is damaged: it is made again")
        return None
    images, key = found
    dataset.keys.know(key)
    with contextlib.suppress(OSError):  # another user's, or a file system without times
        os.utime(path, (time.time(), path.stat().st_mtime))
    return images


def _make(
    dataset: ImageDataset, files: str, path: Path, shape: entry.Shape, progress: bool
) -> np.ndarray:
    """Decode into a new entry and map it."""
    with replacing(path) as temporary:
        entry.allocate(temporary, shape)
        array = entry.mapped(temporary, shape, writable=True)
        _decode(dataset, array, progress)
        array.flush()
        del array
        if dataset.keys.of_files() != files:
            raise UserError(
                f"{dataset.path} changed while it was read: start again when it is done"
            )
        entry.seal(temporary, shape, dataset.keys.of_content())
    return entry.mapped(path, shape)


def _decode(dataset: ImageDataset, array: np.memmap, progress: bool) -> None:
    if len(dataset) >= MIN_FOR_PROCESSES and num_cores() > 1:
        try:
            decode_in_processes(dataset, array, progress)
            return
        except BrokenProcessPool:
            warn_here("a process that decoded images was killed: this one goes on alone")
    dataset.load(out=array, progress=progress)


def _evict(folder: Path, limit: float, keep: Path) -> None:
    """Drop the least recently used entries until the cache is within its limit."""
    drop_temporaries(folder, older_than=_ABANDONED)
    found = entries(folder)
    total = sum(each.size for each in found)
    for old in found:
        if total <= limit:
            return
        if old.path != keep and _drop(old.path):
            total -= old.size


def _drop(path: Path) -> bool:
    """Delete an entry; False if it stays, because it is another user's."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
