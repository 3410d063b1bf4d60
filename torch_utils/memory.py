"""How much memory a process can still take, on a GPU or on the host."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch

# of a control group: limit, use, and what of the use the kernel gives back on demand
_FILES = {
    "v2": ("memory.max", "memory.current", "inactive_file"),
    "v1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def available_bytes(device: torch.device) -> int | None:
    """Bytes that this process can still allocate: all free ones of a GPU, its share of the host's.

    What PyTorch keeps of a GPU's memory for later tensors of this process is free.

    Returns:
        Bytes; None if the system does not tell.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    host = available_on_host()
    return None if host is None else host // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def resident_bytes() -> int | None:
    """Bytes of the host's memory that this process has in use; None if the system does not tell."""
    for line in _read(Path("/proc/self/status")).splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return None


def available_on_host(root: Path = Path("/")) -> int | None:
    """Bytes that all processes of this machine, or of this container, can still take together.

    Args:
        root: where the file systems of Linux, /proc and /sys/fs/cgroup, are mounted.
    """
    lines = _read(root / "proc" / "meminfo").splitlines()
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([*free, *_rooms(root)], default=None)


def _rooms(root: Path) -> Iterator[int]:
    """What is left below the limit of each control group that this process is in."""
    for line in _read(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version = "v1" if controllers else "v2"
        mount = root / "sys" / "fs" / "cgroup" / ("memory" if controllers else "")
        group = mount / path.lstrip("/")
        # groups are nested, and a container may see its own group only at the mount
        for folder in [group, *group.parents]:
            room = _room(folder, *_FILES[version])
            if room is not None:
                yield room
            if folder == mount:
                break


def _room(folder: Path, limit: str, use: str, inactive: str) -> int | None:
    """Limit less use of one group; None without a limit."""
    most, used = _read(folder / limit).strip(), _read(folder / use).strip()
    if not most.isdigit() or not used.isdigit():
        return None
    statistics = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
    return max(0, int(most) - int(used) + int(statistics.get(inactive, 0)))


def _read(path: Path) -> str:
    """A small file's content; an empty text if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
