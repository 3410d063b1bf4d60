"""Cost of training and sampling against batch, resolution, channels, steps and processes.

    python -m benchmarks.bench_scaling --plot=docs/images/scaling.png

A small DDPM++ in float32; every axis is varied alone. Times of an axis are taken in turn in one
process, its memory in a new process for every point. With --axes, the others stay as they are in
--out, each with the hardware that it was measured on. The exponent is the slope of least squares
through the logarithms. The plot needs matplotlib.
"""

import json
import math
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.hardware import hardware, prepared_afresh, prepared_device, write_results
from benchmarks.memory import peak_gb
from benchmarks.options import count_option
from benchmarks.timing import FEWEST_PAIRS, interleaved, spread
from models.build import build
from samplers.generate import generate
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from samplers.starts import Sample
from torch_utils.command import Command
from torch_utils.distributed import World, world
from torch_utils.errors import UserError, unknown_name
from torch_utils.memory import resident_bytes
from training.config import ResolvedConfig, TrainingConfig, resolve
from training.data import TrainingData
from training.estimate import WITH_FIRST_STEP
from training.memory import forecast_for
from training.setup import create_trainer, model_of
from training.source import MicroBatches

BASE = {"batch": 8, "resolution": 32, "channels": 32}
AXES = {
    "batch": (1, 2, 4, 8, 16),
    "resolution": (8, 16, 32, 64),
    "channels": (16, 32, 64, 96),
}
SAMPLER_STEPS = (2, 4, 8, 16)
PROCESSES = (1, 2)
LABELS = {
    "batch": "images of a batch",
    "resolution": "height and width",
    "channels": "channels",
    "steps": "steps of Heun's method",
    "processes": "processes of one thread",
}
GROUP_BATCH = 16  # of all processes together
ROOT = Path(__file__).parents[1]


def setting(point: dict[str, int], num: int = 1) -> tuple[ResolvedConfig, TrainingData]:
    """The config of a point, for so many processes, and random images of its size."""
    size, batch = point["resolution"], point["batch"]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        256, (max(64, batch), 3, size, size), generator=generator, dtype=torch.uint8
    )
    config = TrainingConfig.model_validate(
        {
            "network": {
                "name": "ddpmpp",
                "model_channels": point["channels"],
                "channel_mult": [2, 2],
                "num_blocks": 2,
            },
            "run": {"batch": batch, "duration": "1M"},
        }
    )
    return resolve(config, num_images=len(images), world_size=num), TrainingData(images, None, "x")


class Point:
    """A model under training at one point of an axis; called, it takes a step."""

    def __init__(self, point: dict[str, int], here: World) -> None:
        config, data = setting(point, here.size)
        self.trainer = create_trainer(config, model_of(config, data), here)
        self.source = MicroBatches(
            config, data.placed(here.device, "auto"), self.trainer.objective, here
        )
        self.point = point

    def __call__(self) -> None:
        parts = list(self.source.at(self.trainer.seen))
        self.trainer.step([(batch, draws) for batch, draws, _ in parts], [s for *_, s in parts])

    def call(self) -> None:
        """Evaluate the averaged model once for a batch."""
        model = self.trainer.average
        shape = self.point["batch"], 3, self.point["resolution"], self.point["resolution"]
        with torch.inference_mode():
            model(torch.zeros(shape, device=self.trainer.world.device), 1.0)


def needs_of(point: dict[str, int], device: torch.device) -> dict[str, Any]:
    """FLOPs of a step, and its memory as it was forecast and as it was, in this process.

    On a CPU, memory is what the process has resident.
    """
    here = World(0, 1, prepared_afresh(device.type, trains=True))  # of a new process
    config, data = setting(point)
    forecast = forecast_for(config, build(model_of(config, data), empty=True), here)
    before = data.images.numel()
    if device.type == "cpu":
        before = (resident_bytes() or 0) + WITH_FIRST_STEP
    needs = forecast.step(config.run.batch_gpu)
    step = Point(point, here)
    for _ in range(2):
        step()
    return {
        "gflops": round(needs.flops / 1e9, 3),
        "forecast_gb": round((needs.peak + before) / 2**30, 3),
        "peak_gb": round(peak_gb(device), 3),
    }


def needs_in_new_process(point: dict[str, int], device: torch.device) -> dict[str, Any]:
    """As `needs_of`, where nothing ran before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "benchmarks.bench_scaling"])
    with context.Pool(1) as pool:
        return pool.apply(needs_of, (point, device))


def measure_axis(
    name: str, values: Sequence[int], device: torch.device, rounds: int
) -> list[dict[str, Any]]:
    """A row for each point of an axis."""
    points = {str(value): BASE | {name: value} for value in values}
    found = {key: Point(point, World(0, 1, device)) for key, point in points.items()}
    steps = interleaved(dict(found), device, rounds)
    calls = interleaved({key: point.call for key, point in found.items()}, device, rounds)
    return [
        {
            name: int(key),
            "step_s": spread(steps[key]),
            "call_s": spread(calls[key]),
            **needs_in_new_process(point, device),
        }
        for key, point in points.items()
    ]


def measure_sampling(
    values: Sequence[int], device: torch.device, rounds: int
) -> list[dict[str, Any]]:
    """Sampling a batch by Heun's method in different numbers of steps."""
    model = Point(BASE, World(0, 1, device)).trainer.average

    def sample(steps: int) -> None:
        settings = generation_settings({"name": "heun", "steps": steps})
        samples = [Sample(seed) for seed in range(BASE["batch"])]
        list(generate(sampling_of(settings, model), samples, batch_size=BASE["batch"]))

    times = interleaved({str(n): lambda n=n: sample(n) for n in values}, device, rounds)
    return [{"steps": n, "sample_s": spread(times[str(n)])} for n in values]


def measure_processes(
    values: Sequence[int], device: torch.device, rounds: int
) -> list[dict[str, Any]]:
    """A step of one global batch by several processes of one thread each."""
    rows = []
    if device.type == "cuda":  # each process has a GPU of its own
        values = [num for num in values if num <= torch.cuda.device_count()]
    for num in values:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        done = subprocess.run(
            [
                *(*launcher, f"--nproc_per_node={num}", "-m", "--", "benchmarks.bench_scaling"),
                *("--in-group", f"--device={device.type}", f"--rounds={rounds}"),
            ],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise UserError(f"{num} process(es) did not run: {done.stderr.strip()[-300:]}")
        rows.append({"processes": num, "step_s": spread(json.loads(done.stdout))})
    return rows


def step_in_group(device: str, rounds: int) -> None:
    """One of several processes: time steps of the global batch, and print the times."""
    prepared_device(device, trains=True)
    with world(device) as here:
        step = Point(BASE | {"batch": GROUP_BATCH}, here)
        times = interleaved({"step": step}, here.device, rounds)["step"]
        if here.is_main:
            print(json.dumps(times))


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The slope of the least-squares line through the logarithms of some points."""
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def exponents_of(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The exponent of every quantity of an axis."""
    xs, found = [row[name] for row in rows], {}
    for key in rows[0]:
        ys = [row[key]["median"] if isinstance(row[key], dict) else row[key] for row in rows]
        if key != name and len(rows) > 1:
            found[key] = round(exponent(xs, ys), 2)
    return found


def lines_of(axes: dict[str, Any]) -> list[str]:
    """Tables of all axes."""
    lines = []
    for name, axis in axes.items():
        keys = [key for key in axis["rows"][0] if key != name]
        lines += ["", f"{name:>12}" + "".join(f"{key:>13}" for key in keys)]
        for row in axis["rows"]:
            values = (
                row[key]["median"] if isinstance(row[key], dict) else row[key] for key in keys
            )
            lines.append(f"{row[name]:>12}" + "".join(f"{value:>13.4g}" for value in values))
        slopes = (axis["exponents"].get(key, math.nan) for key in keys)
        lines.append(f"{'exponent':>12}" + "".join(f"{slope:>13.2f}" for slope in slopes))
    return lines


def draw(axes: dict[str, Any], path: Path) -> None:
    """Times against every axis, with their fitted lines.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("the plot needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(3.2 * len(axes), 3.6), layout="constrained")
    places = np.atleast_1d(figure.subplots(1, len(axes), sharey=True))
    words = {"step_s": "training step", "call_s": "denoiser call", "sample_s": "sampling"}
    for place, (name, axis) in zip(places, axes.items(), strict=True):
        xs = np.array([row[name] for row in axis["rows"]], dtype=float)
        for key, colour in zip(words, ("C0", "C1", "C2"), strict=True):
            if key not in axis["rows"][0]:
                continue
            ys = np.array([row[key]["median"] for row in axis["rows"]])
            ends = np.array([[row[key]["min"], row[key]["max"]] for row in axis["rows"]]).T
            place.errorbar(xs, ys, np.abs(ends - ys), fmt="o", ms=4, color=colour, capsize=2)
            slope = axis["exponents"].get(key)
            if slope is not None:
                line = np.exp(np.log(ys).mean()) * (xs / np.exp(np.log(xs).mean())) ** slope
                place.plot(xs, line, color=colour, lw=1.2, label=f"{words[key]}, {slope:.2f}")
        place.set_xscale("log", base=2)
        place.set_yscale("log")
        place.set_xticks(xs, [f"{x:g}" for x in xs])
        place.set_xlabel(LABELS[name])
        place.grid(visible=True, which="major", alpha=0.25)
        place.legend(fontsize=8)
    places[0].set_ylabel("seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@count_option("--rounds", FEWEST_PAIRS, "Times of a point.")
@click.option("--axes", default=",".join(LABELS), show_default=True, help="What to vary.")
@click.option("--points", type=click.IntRange(1), help="Points of an axis.  [default: all]")
@click.option("--plot", metavar="PNG", help="Draw the curves.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
@click.option("--in-group", is_flag=True, hidden=True)
def main(
    device: str,
    rounds: int,
    axes: str,
    points: int | None,
    plot: str | None,
    out: str | None,
    in_group: bool,
) -> None:
    """Measure how costs grow, print tables, and draw them."""
    if in_group:
        step_in_group(device, rounds)
        return
    where = prepared_device(device, trains=True)
    found = {} if out is None or not Path(out).exists() else json.loads(Path(out).read_text())
    old = found.get("axes", {})
    for name in axes.split(","):
        if name not in LABELS:
            raise unknown_name("axis", name, LABELS)
        if name in AXES:
            rows = measure_axis(name, AXES[name][:points], where, rounds)
        elif name == "steps":
            rows = measure_sampling(SAMPLER_STEPS[:points], where, rounds)
        else:
            rows = measure_processes(PROCESSES[:points], where, rounds)
        old[name] = {
            "hardware": hardware(where),
            "rounds": rounds,
            "rows": rows,
            "exponents": exponents_of(name, rows),
        }
        record = {
            "base": BASE | {"group_batch": GROUP_BATCH},
            "axes": {name: old[name] for name in LABELS if name in old},
        }
        write_results(out, record)  # what was measured stays if the next axis is interrupted
    kept = {name: old[name] for name in LABELS if name in old}
    print("\n".join(lines_of(kept)))
    if plot is not None:
        draw(kept, Path(plot))


if __name__ == "__main__":
    main()
