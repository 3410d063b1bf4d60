"""Run the benchmark programs one after the other: `make bench`, or `python -m benchmarks`.

Each writes its numbers as JSON, named by what it measures and the kind of device, and prints them.
`PROGRAMS` is the one list of them.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from torch_utils.command import Command
from torch_utils.errors import unknown_name

ROOT = Path(__file__).parents[1]
DEMO = "runs/demo/training"  # of `make demo`


@dataclass(frozen=True)
class Program:
    """A benchmark.

    Attributes:
        file: in this folder.
        measures: what, for people.
        minutes: that it takes on two cores, about.
        args: beyond --device and --out.
        has_device: whether it can compute on a GPU, and has --device.
    """

    file: str
    measures: str
    minutes: float
    args: Sequence[str] = ()
    has_device: bool = True

    def results(self, device: str) -> str:
        """The name of its JSON file on a kind of device, cpu or cuda."""
        kind = device if self.has_device else "cpu"
        return f"{self.stem}-{kind}.json"

    @property
    def stem(self) -> str:
        """Its short name."""
        return (
            self.file.removesuffix(".py").removeprefix("bench_").replace("few_steps", "few-steps")
        )


PROGRAMS = (
    Program("bench_training.py", "a training step against the yardstick's", 5),
    Program("bench_generate.py", "generate.py, start to end, against the plain sampler", 8),
    Program("bench_compile.py", "compiled blocks: a step, and the time until the first", 6),
    Program("bench_outputs.py", "drawing noises and writing PNGs", 2),
    Program(
        "bench_half.py",
        "a network's call in half precision, and the errors of its images",
        3,
        (f"--network={DEMO}",),
    ),
    Program("bench_networks.py", "speed and memory of the networks", 12),
    Program("bench_fused.py", "fused kernels against PyTorch's, on a GPU", 3),
    Program("bench_losses.py", "what each term of the objective costs", 4),
    Program("bench_augment.py", "augmentation of the moved images against that of all", 1),
    Program("bench_samplers.py", "the solvers' own cost and their errors", 6),
    Program(
        "solver_errors.py", "the solvers' errors against steps and passes", 10, has_device=False
    ),
    Program("bench_fid.py", "every stage of scoring that sees images", 5),
    Program("bench_distances.py", "scores that compare two sets of features", 5),
    Program("bench_data.py", "the first decode of a data set, and batches", 2, has_device=False),
    Program("bench_dataset_tool.py", "converting images, one or all cores", 3, has_device=False),
    Program("bench_scaling.py", "cost against batch, resolution, channels, steps, processes", 20),
    Program("bench_profile.py", "where the time of a training step goes", 3),
    Program("bench_start.py", "how long programs take to start", 5, has_device=False),
    Program("bench_neighbour.py", "what one busy neighbour costs", 20, has_device=False),
    Program(
        "bench_precision.py",
        "rounding of bf16 and fp16 in a trained model",
        1,
        (f"--network={DEMO}", "--data=assets/digits-8x8.zip"),
    ),
    Program("few_steps.py", "solvers at few calls on a trained model", 15, (f"--network={DEMO}",)),
)


def run_one(program: Program, device: str, outdir: Path) -> int:
    """Run a program and show what it prints; its exit code."""
    from benchmarks.hardware import own_environment

    out = outdir / program.results(device)
    module = f"benchmarks.{program.file.removesuffix('.py')}"  # by -m, see benchmarks/__init__.py
    command = [sys.executable, "-m", module, *program.args]
    command += [f"--device={device}"] if program.has_device else []
    environment = own_environment()  # it chooses anew, and knows what the user chose
    return subprocess.run([*command, f"--out={out}"], cwd=ROOT, env=environment).returncode


def chosen(only: str | None) -> list[Program]:
    """The programs of a comma-separated list of short names; all for None.

    Raises:
        UserError: one of them does not exist.
    """
    by_name = {program.stem: program for program in PROGRAMS}
    names = list(by_name) if only is None else only.split(",")
    for name in names:
        if name not in by_name:
            raise unknown_name("benchmark", name, by_name)
    return [by_name[name] for name in names]


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--only", metavar="LIST", help="Short names, comma-separated.  [default: all]")
@click.option("--list", "is_list", is_flag=True, help="Print the programs, and run none.")
@click.option(
    "--outdir",
    default=str(ROOT / "benchmarks" / "results"),
    metavar="DIR",
    help="Where the JSON files go.  [default: benchmarks/results]",
)
def main(device: str, only: str | None, is_list: bool, outdir: str) -> int:
    """Measure everything again; exit code 1 if a program failed."""
    programs = chosen(only)
    for program in programs if is_list else ():
        print(f"{program.stem:14} {program.minutes:4g} min  {program.measures}")
    if is_list:
        return 0
    from benchmarks.hardware import prepared_device

    kind = prepared_device(device).type
    folder = Path(outdir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{len(programs)} programs, about {sum(p.minutes for p in programs):g} minutes")
    failed, first = [], time.perf_counter()
    for program in programs:
        print(f"== {program.stem}: {program.measures}", flush=True)
        start = time.perf_counter()
        if run_one(program, kind, folder):
            failed.append(program.stem)
        print(f"   took {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)
    print(f"all took {(time.perf_counter() - first) / 60:.1f} minutes; numbers are in {folder}")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    main()
