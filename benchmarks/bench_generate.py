"""generate.py from start to end against the plain sampler as a program: processes, PNGs on disk.

    python -m benchmarks.bench_generate --device=cpu --out=benchmarks/results/generate-cpu.json

Both make the same images of the same snapshot: DDPM++ with 64 channels, multipliers 2, 2 and 4
blocks a level, at 32x32, with random weights, by Heun's method in 18 steps. Each process is timed
from its start to its end, and so is one that makes a single image in two steps, which is nearly all
start-up. The programs are called in turn.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch

from benchmarks.bench_training import NETWORK
from benchmarks.hardware import hardware, own_environment, prepared_device, write_results
from benchmarks.options import count_option
from benchmarks.timing import FEWEST_PAIRS, interleaved, ratio, spread
from models.build import build
from models.config import ModelConfig
from models.snapshot import SnapshotInfo, save_snapshot
from torch_utils.command import Command
from torch_utils.precision import has_fast_bf16

ROOT = Path(__file__).parents[1]
PRECISIONS = ("fp32", "bf16")  # of generate.py
CPU = torch.device("cpu")  # processes are over when they are timed: there is no device to wait for


def written_snapshot(path: Path, network: Mapping[str, Any], side: int) -> Path:
    """Write a snapshot of an unconditional model with random weights, none near zero."""
    config = ModelConfig(
        network={"name": "ddpmpp", **network}, img_resolution=(side, side), img_channels=3
    )
    torch.manual_seed(0)
    denoiser = build(config)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if parameter.ndim > 1:
                parameter.normal_().mul_(parameter[0].numel() ** -0.5)
    save_snapshot(path, denoiser.state_dict(), SnapshotInfo(config))
    return path


def program(script: str, *args: object) -> Callable[[], object]:
    """A call that runs a program of this repository to its end.

    By its path: with -m, `benchmarks` would choose for the plain sampler how its threads wait.
    """
    command = [sys.executable, str(ROOT / script), *map(str, args)]
    environment = own_environment()

    def call() -> None:
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment)

    return call


def commands(
    network: Path, folder: Path, device: str, num: int, batch: int, steps: int
) -> dict[str, Callable[[], object]]:
    """The yardstick and ours, by name, with the same work to do."""
    how = (f"--network={network}", f"--device={device}", f"--batch={batch}", f"--steps={steps}")
    calls = {
        "yardstick": program(
            "benchmarks/reference_sampler.py", *how, f"--outdir={folder / 'plain'}", f"--num={num}"
        )
    }
    # without instructions for it nobody samples in bf16
    is_fast = device != "cpu" or has_fast_bf16()
    for precision in PRECISIONS if is_fast else PRECISIONS[:1]:
        own = (f"--outdir={folder / precision}", f"--precision={precision}")
        calls[precision] = program("generate.py", *how, *own, f"--seeds=0-{num - 1}")
    return calls


def rows_of(
    times: Mapping[str, Sequence[float]], starts: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """What was found: seconds, share of the start, and times the yardstick's speed."""
    rows: dict[str, Any] = {}
    for name, seconds in times.items():
        rows[name] = {
            "s": spread(seconds),
            "start_s": spread(starts[name]),
            "start_share": round(median(starts[name]) / median(seconds), 3),
            "speed": ratio(times["yardstick"], seconds),
        }
        print(
            f"{name:10} {median(seconds):7.2f} s, of which start {median(starts[name]):5.2f} s: "
            f"{rows[name]['speed']['median']:.2f} times the yardstick's speed"
        )
    return rows


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@count_option("--num", 16, "Images.")
@count_option("--batch", 16, "Images at once.")
@count_option("--steps", 18, "Noise levels.")
@count_option("--pairs", FEWEST_PAIRS, "Calls of each program.")
@count_option("--channels", 64, "Of the network.")
@count_option("--resolution", 32, "Height and width of images.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(
    device: str,
    num: int,
    batch: int,
    steps: int,
    pairs: int,
    channels: int,
    resolution: int,
    out: str | None,
) -> None:
    """Compare generate.py with the plain sampler."""
    where = prepared_device(device)
    options = {**NETWORK, "model_channels": channels}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = written_snapshot(folder / "net.safetensors", options, resolution)
        work = commands(network, folder, where.type, num, batch, steps)
        times = interleaved(work, CPU, pairs)
        starts = interleaved(commands(network, folder, where.type, 1, 1, 2), CPU, pairs)
    record = {
        "hardware": hardware(where),
        "network": {"name": "ddpmpp", "num_blocks": 4, **options},
        "resolution": resolution,
        "images": num,
        "batch": batch,
        "steps": steps,
        "pairs": pairs,
        "programs": rows_of(times, starts),
    }
    write_results(out, record)


if __name__ == "__main__":
    main()
