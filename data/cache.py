"""Decoded images as memory-mapped arrays in a cache folder, made once and shared by processes.

An entry is named by its content, so it never goes stale: a changed data set is another entry.
`DRIFTLESS_CACHE` names the folder, `DRIFTLESS_CACHE_GB` the limit of its size.
"""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.dataset import ImageDataset
from data.parallel import num_cores
from torch_utils.errors import UserError
from torch_utils.files import replacing
from torch_utils.progress import Progress

DEFAULT_LIMIT_GB = 50.0
MIN_FOR_PROCESSES = 10_000  # images; for fewer, starting processes takes longer than it saves
RANGE = 1_000  # images that a process decodes at a time


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
    """Where decoded data sets are kept; the folder need not exist."""
    given = os.environ.get("DRIFTLESS_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else base / "driftless" / "datasets"


def cache_limit() -> int:
    """Largest size of the cache in bytes.

    Raises:
        UserError: DRIFTLESS_CACHE_GB is no number.
    """
    text = os.environ.get("DRIFTLESS_CACHE_GB", str(DEFAULT_LIMIT_GB))
    try:
        return int(float(text) * 1e9)
    except ValueError:
        raise UserError(f"DRIFTLESS_CACHE_GB is {text!r}: give a number of gigabytes") from None


def entries(folder: Path | None = None) -> list[Entry]:
    """What is in the cache, the least recently used first."""
    found = []
    for path in (folder or cache_folder()).glob("*.npy"):
        with contextlib.suppress(FileNotFoundError):  # another process may have dropped it
            stat = path.stat()
            found.append(Entry(path, stat.st_size, stat.st_atime))
    return sorted(found, key=lambda entry: entry.used)


def clear(folder: Path | None = None) -> int:
    """Delete everything in the cache; processes that have an entry mapped keep it.

    Returns:
        Bytes that were freed.
    """
    found = entries(folder)
    for entry in found:
        entry.path.unlink(missing_ok=True)
    return sum(entry.size for entry in found)


def cached_images(dataset: ImageDataset, *, progress: bool = True) -> np.ndarray:
    """All images of a data set, decoded at the first call and mapped into memory afterwards.

    Several processes may ask at once: one decodes, the others wait for it. A data set larger than
    the limit is decoded into memory instead, and so is any if the folder cannot be written.

    Args:
        dataset: the images.
        progress: show the progress of decoding.

    Returns:
        uint8 [N, C, H, W]; writing to it changes no file.

    Raises:
        UserError: an image cannot be used.
    """
    folder, limit = cache_folder(), cache_limit()
    shape = (len(dataset), *dataset.image_shape)
    if int(np.prod(shape)) > limit:
        return dataset.load(progress=progress)
    path = folder / f"{dataset.name[:80]}-{dataset.content_key()}.npy"
    mapped = _map(path, shape)
    if mapped is not None:
        return mapped
    try:
        with only_one(folder, path.stem):
            mapped = _map(path, shape)  # made while this process waited
            if mapped is None:
                _write(dataset, path, shape, progress)
                _evict(folder, limit, keep=path)
    except OSError:
        return dataset.load(progress=progress)  # a cache is only a cache
    return _map(path, shape) if mapped is None else mapped  # type: ignore[return-value]


def _map(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The entry as an array; None if it is not there or not whole."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
        os.utime(path, (time.time(), path.stat().st_mtime))
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _write(dataset: ImageDataset, path: Path, shape: tuple[int, ...], progress: bool) -> None:
    with replacing(path) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        if len(dataset) < MIN_FOR_PROCESSES or num_cores() == 1:
            dataset.load(out=array, progress=progress)
        else:
            _decode_in_processes(dataset, temporary, progress)
        array.flush()
        del array


def _decode_in_processes(dataset: ImageDataset, path: Path, progress: bool) -> None:
    """Fill the array in a file by several processes; small images leave threads little to share."""
    jobs = [(str(path), i, min(i + RANGE, len(dataset))) for i in range(0, len(dataset), RANGE)]
    # A fork need not import and open everything again; the children touch neither torch nor locks.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    with (
        Progress(len(dataset), f"reading {dataset.name}", shown=progress) as shown,
        ProcessPoolExecutor(num_cores(), context, _start_worker, (dataset,)) as pool,
    ):
        try:
            for (_, first, stop), _ in zip(jobs, pool.map(_decode_range, jobs), strict=True):
                shown.update(stop - first)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_worker_dataset: ImageDataset | None = None  # of a worker process


def _start_worker(dataset: ImageDataset) -> None:
    """Make a worker process ready: file handles are not shared with its parent."""
    global _worker_dataset
    dataset.reopen()
    _worker_dataset = dataset


def _decode_range(job: tuple[str, int, int]) -> None:
    """Decode a range of images into the array in a file; runs in a worker process."""
    path, first, stop = job
    assert _worker_dataset is not None
    array = np.lib.format.open_memmap(path, mode="r+")
    _worker_dataset.load_range(array, first, stop)


def _evict(folder: Path, limit: int, keep: Path) -> None:
    """Drop what was used longest ago until the cache is within its limit."""
    found = entries(folder)
    total = sum(entry.size for entry in found)
    for entry in found:
        if total <= limit:
            return
        if entry.path != keep:
            entry.path.unlink(missing_ok=True)
            total -= entry.size


@contextlib.contextmanager
def only_one(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock of a name; the system frees it when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such locks outside POSIX; the rename is atomic all the same
        yield
        return
    with open(folder / f".{name}.lock", "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
