"""What a benchmark ran on, to be written beside its numbers."""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from torch_utils.distributed import choose_device, set_numerics
from torch_utils.precision import has_fast_bf16


def prepared_device(name: str) -> torch.device:
    """The device that auto, cpu or cuda means, computing with the numerics of our programs.

    Raises:
        UserError: CUDA was asked for and there is none.
    """
    set_numerics()
    return choose_device(name)


def hardware(device: torch.device) -> dict[str, Any]:
    """Device, threads or numerics, versions and commit."""
    root = Path(__file__).parents[1]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=root
    ).stdout.strip()
    record = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit,
    }
    if device.type == "cuda":
        record["cuda"] = torch.version.cuda
        rounds = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
        record["float32"] = "tf32" if rounds else "exact"
    else:
        record["threads"] = torch.get_num_threads()
        # turns for which threads of OpenMP wait awake, see torch_utils/threads.py
        record["spins"] = os.environ.get("GOMP_SPINCOUNT", "OpenMP's own")
        record["avx512_bf16"] = has_fast_bf16()
    return record


def _cpu_info() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.exists() else ""


def cpu_name() -> str:
    """The processor's name for people."""
    for line in _cpu_info().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_results(path: str | None, record: dict[str, Any]) -> None:
    """Write a benchmark's record as JSON, if a path is given."""
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
