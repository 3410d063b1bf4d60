"""Peak memory: what PyTorch allocated on GPUs, what the process had resident on CPUs (Linux)."""

import re
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def resident_gb(device: torch.device) -> float:
    """GiB in use now; not a number on systems without /proc."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**30
    return _status_gb("VmRSS")


def reset_peak(device: torch.device) -> None:
    """Forget the peak so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5", encoding="ascii")  # proc(5): resets VmHWM to the present size


def peak_gb(device: torch.device) -> float:
    """GiB at most since `reset_peak`; not a number on systems without /proc."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return _status_gb("VmHWM")


def _status_gb(key: str) -> float:
    if not _STATUS.exists():
        return float("nan")
    found = re.search(rf"^{key}:\s+(\d+) kB$", _STATUS.read_text(encoding="utf-8"), re.M)
    assert found is not None, f"{_STATUS} has no {key}"
    return int(found[1]) / 2**20
