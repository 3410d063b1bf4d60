"""What one busy neighbour costs, by how long the threads of OpenMP spin before they sleep.

    python -m benchmarks.bench_neighbour --out=benchmarks/results/neighbour-cpu.json

The neighbour is a process that spins on one core. The parts of `make demo` run in fresh processes,
one for each setting of the environment, which sleep until it is their turn: alone and beside the
neighbour, in turn. The default is what our programs set, see `torch_utils/threads.py`. The whole
demo, with fewer steps of training, is timed as its programs run: four processes, start to end.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.hardware import hardware, write_results
from benchmarks.options import count_option
from benchmarks.timing import FEWEST_PAIRS, ratio, spread
from torch_utils.command import Command
from torch_utils.threads import SPINS, num_cores

ROOT = Path(__file__).parents[1]
CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
OPENMP, ONE = "OpenMP's own", "one thread"
DEFAULT = str(SPINS)
# name -> variables
SETTINGS: dict[str, dict[str, str]] = {
    **{str(spins): {"GOMP_SPINCOUNT": str(spins)} for spins in (0, 300, SPINS, 3000)},
    OPENMP: {},
    ONE: {"GOMP_SPINCOUNT": str(SPINS), "OMP_NUM_THREADS": "1"},
}
# kind of work -> its settings
WORK: dict[str, Sequence[str]] = {
    "training": tuple(SETTINGS),
    "generation": (DEFAULT, OPENMP, ONE),
    "scoring": (DEFAULT, OPENMP, ONE),
}
DEMO = "demo"
DEMO_STEPS = 200  # of training; 1,000 in `make demo`


@contextlib.contextmanager
def running(command: Sequence[str], variables: Mapping[str, str]) -> Iterator[Any]:
    """A Python process that ends with the block; only `variables` choose its threads."""
    kept = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=kept | {"PYTHONPATH": str(ROOT)} | dict(variables),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def answer(process: Any, question: str = "") -> str:
    """The next line that a process prints, asked for by a line if one is given."""
    if question:
        process.stdin.write(f"{question}\n")
        process.stdin.flush()
    line: str = process.stdout.readline()
    assert line, "the process that works has ended"
    return line.strip()


def neighbour() -> contextlib.AbstractContextManager[Any]:
    """A process that keeps one core busy."""
    return running(["-c", "print('ready', flush=True)\nwhile True: pass"], {})


def measure(
    kind: str, settings: Sequence[str], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """A row for each setting: seconds of a unit of work, alone and beside the neighbour."""
    alone: dict[str, list[float]] = {name: [] for name in settings}
    beside: dict[str, list[float]] = {name: [] for name in settings}
    num_threads = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in settings:
            # by its path: with -m it would get our setting where it is to have none
            command = [str(ROOT / "benchmarks" / "neighbour_work.py"), kind]
            workers[name] = stack.enter_context(running(command, SETTINGS[name]))
            num_threads[name] = int(answer(workers[name]).split()[1])
        for index in range(rounds):
            order = settings if index % 2 else settings[::-1]
            for name in order:
                alone[name].append(float(answer(workers[name], str(seconds))))
            with neighbour() as busy:
                answer(busy)
                for name in order:
                    beside[name].append(float(answer(workers[name], str(seconds))))
    return [
        {
            "setting": name,
            "threads": num_threads[name],
            "alone_s": spread(alone[name]),
            "beside_s": spread(beside[name]),
            "slower": ratio(beside[name], alone[name]),
        }
        for name in settings
    ]


def demo_commands(folder: Path, steps: int) -> list[list[str]]:
    """What `make demo` runs, with so many steps of training."""
    run, images, digits = folder / "training", folder / "images", "assets/digits-8x8.zip"
    lines = (
        f"train.py --config=configs/digits.yaml --outdir={run} --nosubdir --resume=latest "
        f"run.duration={steps}it",
        f"generate.py --network={run} --outdir={images} --seeds=0-99 --class=each --batch=250",
        f"-m benchmarks.digits_quality --images={images} --grid={folder / 'grid.png'}",
        f"fid.py compare {run} {digits} --num=1000 --detector=digits --ref={digits} "
        f"--metrics=fid,is,kid,pr --html={folder / 'report.html'}",
    )
    return [line.split(" ") for line in lines]


def demo_seconds(steps: int) -> float:
    """How long the demo takes, with the threads that our programs choose by themselves."""
    kept = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for command in demo_commands(Path(folder), steps):
            subprocess.run(
                [sys.executable, *command],
                check=True,
                capture_output=True,
                cwd=ROOT,
                env=kept | {"PYTHONPATH": str(ROOT)},
            )
        return time.perf_counter() - start


def measure_demo(rounds: int, steps: int) -> list[dict[str, Any]]:
    """The row of the whole demo."""
    alone, beside = [], []
    for _ in range(rounds):
        alone.append(demo_seconds(steps))
        with neighbour() as busy:
            answer(busy)
            beside.append(demo_seconds(steps))
        print(f"the demo: {alone[-1]:.1f} s alone, {beside[-1]:.1f} s beside", flush=True)
    row = {"setting": DEFAULT, "steps": steps, "threads": num_cores()}
    times = {"alone_s": spread(alone), "beside_s": spread(beside)}
    return [{**row, **times, "slower": ratio(beside, alone)}]


@click.command(cls=Command)
@count_option("--rounds", FEWEST_PAIRS, "Of each measurement.")
@click.option("--seconds", default=0.5, show_default=True, help="Of work at a time, at least.")
@click.option(
    "--work",
    type=click.Choice([*WORK, DEMO]),
    multiple=True,
    help="Which; can be given repeatedly.",
)
@count_option("--demo-steps", DEMO_STEPS, "Of the demo's training.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(
    rounds: int, seconds: float, work: tuple[str, ...], demo_steps: int, out: str | None
) -> None:
    """Measure the demo, and its parts, beside one busy process."""
    rows = {}
    for kind in work or [*WORK, DEMO]:
        if kind == DEMO:
            rows[kind] = measure_demo(rounds, demo_steps)
        else:
            rows[kind] = measure(kind, WORK[kind], rounds, seconds)
    print(f"{'work':12}{'spins':14}{'threads':>8}{'alone ms':>10}{'beside ms':>11}{'ratio':>8}")
    for kind, found in rows.items():
        for row in found:
            times = [1000 * row[name]["median"] for name in ("alone_s", "beside_s")]
            print(
                f"{kind:12}{row['setting']:14}{row['threads']:8}{times[0]:10.1f}{times[1]:11.1f}"
                f"{row['slower']['median']:8.2f}"
            )
    record = {"hardware": hardware(torch.device("cpu")) | {"cores": num_cores()}, "work": rows}
    write_results(out, record)


if __name__ == "__main__":
    main()
