"""Decoding by several processes; small images leave threads little to share."""

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from data import entry
from data.dataset import ImageDataset
from torch_utils.processes import die_with
from torch_utils.progress import Progress
from torch_utils.threads import num_cores

RANGE = 1_000  # images that a process decodes at a time


def decode_in_processes(dataset: ImageDataset, array: np.memmap, progress: bool) -> None:
    """Fill the mapped images of an entry. The processes end with this one, even if it is killed.

    Args:
        dataset: the images.
        array: uint8 [N, C, H, W], from `entry.mapped`, writable.
        progress: show the progress.

    Raises:
        UserError: an image cannot be used.
        BrokenProcessPool: a process was killed, e.g. because memory ran out.
    """
    path, shape = str(array.filename), array.shape
    jobs = [(path, shape, i, min(i + RANGE, len(dataset))) for i in range(0, len(dataset), RANGE)]
    # A fork need not import and open everything again; the children touch neither torch nor locks.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    with (
        Progress(len(dataset), f"reading {dataset.name}", shown=progress) as shown,
        ProcessPoolExecutor(num_cores(), context, _start_worker, (dataset, os.getpid())) as pool,
    ):
        try:
            for job, checksums in zip(jobs, pool.map(_decode_range, jobs), strict=True):
                dataset.keys.add(checksums)
                shown.update(job[3] - job[2])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_dataset: ImageDataset | None = None  # of a worker process


def _start_worker(dataset: ImageDataset, parent: int) -> None:
    """Prepare a worker process: it ends with its parent and shares no file handle with it."""
    global _dataset
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the work
    dataset.reopen()
    _dataset = dataset


def _decode_range(job: tuple[str, entry.Shape, int, int]) -> dict[str, str]:
    """Decode a range of images into a file; runs in a worker process.

    Returns:
        The checksums of the image files that were read.
    """
    path, shape, first, stop = job
    assert _dataset is not None
    _dataset.load_range(entry.mapped(Path(path), shape, writable=True), first, stop)
    return _dataset.keys.noted(first, stop)
