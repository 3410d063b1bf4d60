"""Settings of the process, restored after a block: calls from Python must leave none behind."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

from torch_utils.distributed import set_numerics

# what set_numerics and training set; the older name first, as it sets those of the newer ones too
_SETTINGS: list[tuple[Any, str]] = [
    (torch.backends.cudnn, "benchmark"),
    (torch.backends.cuda.matmul, "allow_tf32"),
    (torch.backends.cudnn, "allow_tf32"),
]
if hasattr(torch.backends.cudnn, "conv"):  # PyTorch 2.9
    _SETTINGS += [
        (torch.backends.cuda.matmul, "fp32_precision"),
        (torch.backends.cudnn.conv, "fp32_precision"),
        (torch.backends.cudnn.rnn, "fp32_precision"),
    ]

_lock = threading.Lock()
_num_inside = 0
_before: list[tuple[Any, str, Any]] = []


@contextlib.contextmanager
def numerics() -> Iterator[None]:
    """Compute with our programs' settings within the block, and restore the former ones after it.

    The settings belong to the process: of several threads in such blocks, the last one out restores
    them.
    """
    global _num_inside, _before
    with _lock:
        if not _num_inside:
            _before = _read()
        _num_inside += 1
        set_numerics()
    try:
        yield
    finally:
        with _lock:
            _num_inside -= 1
            if not _num_inside:
                for owner, name, value in _before:
                    setattr(owner, name, value)


def _read() -> list[tuple[Any, str, Any]]:
    """The settings that can be read: those of older name cannot where newer ones disagree."""
    found = []
    for owner, name in _SETTINGS:
        with contextlib.suppress(RuntimeError):
            found.append((owner, name, getattr(owner, name)))
    return found


@contextlib.contextmanager
def generators(device: torch.device) -> Iterator[None]:
    """Restore PyTorch's default generators after the block.

    Another thread that draws from them meanwhile draws from those of the block.

    Args:
        device: where the block computes. Other GPUs are not initialised for this.
    """
    gpus = [device] if device.type == "cuda" else []
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    with torch.random.fork_rng(gpus):
        yield


@contextlib.contextmanager
def current_gpu() -> Iterator[None]:
    """Restore this thread's current GPU after the block."""
    is_awake = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    before = torch.cuda.current_device() if is_awake else None
    try:
        yield
    finally:
        if before is not None:
            torch.cuda.set_device(before)
