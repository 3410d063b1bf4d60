"""Where the time of a training step goes, by kinds of operators, and what bounds it.

    python -m benchmarks.bench_profile --out=benchmarks/results/profile-cpu.json

DDPM++ of 64 channels, multipliers 2,2, 32x32, in each precision. The time is that of steps that
nobody watches; a profile shares it out among the kinds. The peak is that of large matrix products.
"""

from collections.abc import Callable, Sequence
from typing import Any

import click
import torch
from torch.profiler import profile

from benchmarks.hardware import hardware, prepared_device, write_results
from benchmarks.options import count_option
from benchmarks.timing import FEWEST_PAIRS, interleaved, spread
from models.build import build
from torch_utils.command import Command
from torch_utils.distributed import World
from torch_utils.errors import unknown_name
from torch_utils.precision import DTYPES
from training.config import ResolvedConfig, TrainingConfig, resolve
from training.data import TrainingData
from training.memory import forecast_for
from training.profiling import Operator, activities_on, operators_of
from training.setup import create_trainer, model_of
from training.source import MicroBatches

# kind -> parts of the names of its operators, and of its kernels on GPUs (`nvjet` is cuBLAS on
# Hopper); the first kind that fits counts. cuDNN has attention, too; ours are group_norm_*. On CPUs
# small gradients are gathered by a copy, and dot products tell whether gradients are finite
KINDS = {
    "attention": ("scaled_dot_product", "softmax", "bmm", "flash", "fmha"),
    "convolutions": ("convolution", "conv2d", "cudnn", "implicit", "fprop", "dgrad", "wgrad"),
    "norms": ("group_norm", "GroupNorm", "native_norm", "RowwiseMoments", "GammaBeta"),
    "matrix products": ("addmm", "aten::mm", "linear", "gemm", "nvjet"),
    "optimizer and averages": (
        *("adam", "Adam", "lerp", "foreach_norm", "Optimizer.", "multi_tensor_apply"),
        *("aten::dot", "aten::_foreach_copy_"),
    ),
    "casts and copies": ("copy", "aten::_to_copy", "aten::to", "Memcpy", "clone", "contiguous"),
    "data and random numbers": ("index_select", "random_", "normal_", "uniform_"),
}
ELEMENTWISE, REST = "other arithmetic", "dispatch and autograd"
MATRIX = 2048  # rows and columns
PROFILED = 3  # steps


def kind_of(name: str) -> str:
    """The kind of an operator or kernel."""
    for kind, parts in KINDS.items():
        if any(part in name for part in parts):
            return kind
    return ELEMENTWISE if name.startswith("aten::") or "_kernel" in name else REST


def prepare(
    precision: str, channels: int, size: int, batch: int, device: torch.device
) -> tuple[Callable[[], None], int]:
    """A step of training, and its FLOPs."""
    images = torch.zeros(64, 3, size, size, dtype=torch.uint8)
    network = {"name": "ddpmpp", "model_channels": channels, "channel_mult": [2, 2]}
    wanted = TrainingConfig.model_validate(
        {"network": network, "run": {"batch": batch, "precision": precision, "duration": "1M"}}
    )
    config: ResolvedConfig = resolve(wanted, num_images=len(images), world_size=1)
    data, here = TrainingData(images, None, "x"), World(0, 1, device)
    model = model_of(config, data)
    flops = forecast_for(config, build(model, empty=True), here).step(batch).flops
    trainer = create_trainer(config, model, here)
    source = MicroBatches(config, data.placed(device, "auto"), trainer.objective, here)

    def step() -> None:
        parts = list(source.at(trainer.seen))
        trainer.step([(x, draws) for x, draws, _ in parts], [seed for *_, seed in parts])

    return step, flops


def matrix_product(precision: str, device: torch.device) -> Callable[[], object]:
    """A large matrix product in a precision."""
    a = torch.ones(MATRIX, MATRIX, dtype=DTYPES[precision], device=device)
    return lambda: a @ a


def operators_in(step: Callable[[], None], device: torch.device) -> list[Operator]:
    """What some steps were made of."""
    step()
    with profile(activities=activities_on(device)) as watched:
        for _ in range(PROFILED):
            step()
    return operators_of(watched.key_averages(), PROFILED, device)


def shares_of(operators: Sequence[Operator]) -> dict[str, float]:
    """The share of each kind in the time of a step; on a GPU, in that of its kernels."""
    on_gpu = any(row.gpu_ms for row in operators)
    shares = dict.fromkeys((*KINDS, ELEMENTWISE, REST), 0.0)
    for row in operators:
        shares[kind_of(row.name)] += row.gpu_ms if on_gpu else row.cpu_ms
    total = sum(shares.values())
    return {kind: round(ms / total, 4) for kind, ms in shares.items()}


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--precisions", default="fp32,bf16", show_default=True, help="Separated by commas.")
@count_option("--channels", 64, "Of the network.")
@count_option("--size", 32, "Height and width of the images.")
@count_option("--batch", 16, "Images of a step.")
@count_option("--rounds", FEWEST_PAIRS, "Times of a step.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(
    device: str,
    precisions: str,
    channels: int,
    size: int,
    batch: int,
    rounds: int,
    out: str | None,
) -> None:
    """Print what a training step is made of, and how much of the machine's peak it reaches."""
    where, names = prepared_device(device, trains=True), precisions.split(",")
    for name in names:
        if name not in DTYPES:
            raise unknown_name("precision", name, DTYPES)
    steps = {name: prepare(name, channels, size, batch, where) for name in names}
    calls: dict[str, Callable[[], object]] = {name: steps[name][0] for name in names}
    calls |= {f"matrix product {name}": matrix_product(name, where) for name in names}
    times = interleaved(calls, where, rounds)
    found: dict[str, Any] = {}
    for name, (step, flops) in steps.items():
        product = spread(times[f"matrix product {name}"])
        seconds, peak = spread(times[name]), 2 * MATRIX**3 / product["min"]
        found[name] = {
            "step_s": seconds,
            "gflops": round(flops / 1e9, 1),
            "peak_gflops_per_s": round(peak / 1e9, 1),
            "share_of_peak": round(flops / seconds["median"] / peak, 3),
            "shares": shares_of(operators_in(step, where)),
        }
    print(f"{'':26}" + "".join(f"{name:>10}" for name in names))
    for kind in found[names[0]]["shares"]:
        line = "".join(f"{found[name]['shares'][kind]:10.1%}" for name in names)
        print(f"{kind:26}{line}")
    for key in ("step_s", "gflops", "peak_gflops_per_s", "share_of_peak"):
        values = (found[name][key] for name in names)
        numbers = (value["median"] if isinstance(value, dict) else value for value in values)
        print(f"{key:26}" + "".join(f"{number:10.4g}" for number in numbers))
    record = {"hardware": hardware(where), "channels": channels, "size": size, "batch": batch}
    write_results(out, record | {"rounds": rounds, "precisions": found})


if __name__ == "__main__":
    main()
