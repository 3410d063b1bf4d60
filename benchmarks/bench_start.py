"""How long our programs take to start: help, first image, first training step, a small score.

    python -m benchmarks.bench_start --out=benchmarks/results/start-cpu.json

Each is a fresh process, in turn, and is timed from its start to its end, or to the first line that
tells of the result. Files are in the system's cache. `import torch` alone stands beside them.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import torch

from benchmarks.hardware import hardware, own_environment, write_results
from benchmarks.options import count_option
from benchmarks.timing import FEWEST_PAIRS, spread
from models.build import build
from models.snapshot import SnapshotInfo, save_snapshot
from torch_utils.command import Command
from torch_utils.threads import num_cores
from training.config import model_config
from training.recipes import load_config

ROOT = Path(__file__).parents[1]
PROGRAMS = ("train.py", "generate.py", "fid.py", "dataset_tool.py", "snapshot_tool.py")
RECIPE, DIGITS = "configs/digits.yaml", "assets/digits-8x8.zip"
Start = tuple[list[str], str]  # words after `python`, and what the line begins with; "" for the end


def digits_model(path: Path) -> Path:
    """Write a model of the digits recipe that is not trained."""
    model = model_config(load_config(RECIPE), image_shape=(1, 8, 8), label_dim=10)
    state = build(model).state_dict()
    save_snapshot(path, state, SnapshotInfo(model, {"name": "heun", "steps": 18}, None, "class"))
    return path


def starts(folder: Path, index: int) -> Mapping[str, Start]:
    """What is started, by name; `index` makes new outputs."""
    network = folder / "network-snapshot-0000000000.safetensors"
    outdir = folder / str(index)
    helps: dict[str, Start] = {f"{name} --help": ([name, "--help"], "") for name in PROGRAMS}
    return helps | {
        "import torch": (["-c", "import torch"], ""),
        "generate.py, one image": (
            ["generate.py", f"--network={network}", f"--outdir={outdir}", "--seeds=0", "--class=3"],
            "",
        ),
        "fid.py calc, digits": (
            f"fid.py calc --images={DIGITS} --ref={DIGITS} --detector=digits --num=1000".split(),
            "",
        ),
        "train.py, first step": (
            ["train.py", f"--config={RECIPE}", f"--outdir={outdir}", "--nosubdir", "run.tick=1it"],
            "tick ",
        ),
    }


def seconds(start: Start) -> float:
    """Time from the start of a process to its end, or to its line; it is ended then."""
    words, line = start
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=own_environment(),
    ) as process:
        assert process.stdout is not None
        printed = []
        for text in process.stdout:
            printed.append(text)
            if line and text.startswith(line):
                break
        if not line:
            process.wait()
        found = time.perf_counter() - begin
        is_done = process.returncode == 0 if not line else printed[-1].startswith(line)
        process.kill()
    assert is_done, "".join(printed)
    return found


def measure(names: Sequence[str], rounds: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of each start, one a round, in turn, after one that fills the caches."""
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds + 1):
        of = starts(folder, index)
        for name in names if index % 2 else names[::-1]:
            taken = seconds(of[name])
            if index:
                times[name].append(taken)
    return times


@click.command(cls=Command)
@count_option("--rounds", FEWEST_PAIRS, "Of each start.")
@click.option("--only", multiple=True, help="Names of starts; can be given repeatedly.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(rounds: int, only: tuple[str, ...], out: str | None) -> None:
    """Measure how long programs take to start, each in fresh processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digits_model(folder / "network-snapshot-0000000000.safetensors")
        times = measure(only or tuple(starts(folder, 0)), rounds, folder)
    found = {name: spread(values) for name, values in times.items()}
    for name, row in found.items():
        print(f"{name:28}{row['median']:8.2f} s   {row['min']:.2f}-{row['max']:.2f}")
    record = {"hardware": hardware(torch.device("cpu")) | {"cores": num_cores()}, "seconds": found}
    write_results(out, record)


if __name__ == "__main__":
    main()
