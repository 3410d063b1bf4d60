"""What a benchmark ran on, to be written beside its numbers."""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from benchmarks import SET_HERE
from torch_utils.distributed import choose_device, set_numerics
from torch_utils.kept_memory import keep_freed_memory
from torch_utils.precision import has_fast_bf16
from training.config import RunConfig

ROOT = Path(__file__).parents[1]


def prepared_device(name: str, trains: bool = False) -> torch.device:
    """The device that auto, cpu or cuda means, computing as our programs do by default.

    Float32 means float32. Whether cuDNN times its algorithms and takes the fastest is what
    train.py says by default (`run.bench`), which is also EDM's default, for all that is timed in
    this process, the yardstick too. generate.py and fid.py take the first that fits.

    Args:
        name: auto, cpu or cuda.
        trains: whether training is measured.

    Raises:
        UserError: CUDA was asked for and there is none.
    """
    set_numerics()
    torch.backends.cudnn.benchmark = trains and RunConfig().bench
    return choose_device(name)


def prepared_afresh(name: str, trains: bool = False) -> torch.device:
    """As `prepared_device`, in a process that does not begin with a command line of ours.

    It also keeps freed memory, as every `Command` does for its own process alone.
    """
    keep_freed_memory()
    return prepared_device(name, trains)


def own_environment() -> dict[str, str]:
    """The variables of a program that chooses itself how its threads wait, if it does.

    What `benchmarks` chose for this process is not handed on; what the user chose is.
    """
    kept = {name: value for name, value in os.environ.items() if name not in SET_HERE}
    return kept | {"PYTHONPATH": str(ROOT)}


def commit() -> str:
    """The commit of the code, with `-dirty` if a file of it has been changed since."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=ROOT)

    name = git("rev-parse", "--short", "HEAD").stdout.strip()
    # what benchmarks write changes no other's numbers
    changed = git("diff", "--quiet", "HEAD", "--", ".", ":!benchmarks/results", ":!docs").returncode
    return f"{name}-dirty" if name and changed else name


def hardware(device: torch.device) -> dict[str, Any]:
    """Device, threads or numerics, versions and commit."""
    record = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
    }
    if device.type == "cuda":
        record["cuda"] = torch.version.cuda
        record["cudnn_benchmark"] = torch.backends.cudnn.benchmark
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
