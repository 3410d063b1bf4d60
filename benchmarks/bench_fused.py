"""Fused kernels against PyTorch's operations: norms, residual sums, and whole training passes.

    python -m benchmarks.bench_fused --device=cuda --out=benchmarks/results/fused-cuda.json

Only a GPU has them (docs/training.md); elsewhere this says so and measures nothing. Each ratio is
the median over pairs of calls made in turn, PyTorch's time over that of the fused kernels.
"""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.bench_networks import PRECISIONS, SIZES, build, inputs, passes
from benchmarks.hardware import hardware, prepared_device, write_results
from benchmarks.options import count_option
from benchmarks.timing import FEWEST_PAIRS, interleaved, ratio
from networks import fused, fused_norm, fused_sum
from networks.norms import GroupNorm
from networks.sums import residual_sum
from torch_utils.command import Command
from torch_utils.errors import UserError

# channels, height and width of features in published networks
FEATURES = ((256, 32, 32), (512, 32, 32), (256, 8, 8), (192, 64, 64), (128, 256, 256))
_AT_ONCE = 20  # calls of a layer that are timed together


def compared(
    call: Callable[[], object], device: torch.device, rounds: int, num: int = 1
) -> dict[str, Any]:
    """Seconds of a call by PyTorch and by the fused kernels, and the ratio of the two.

    Args:
        call: what is timed; its kernels are chosen here.
        device: that it computes on.
        rounds: pairs of times.
        num: calls that one time is of.
    """

    def by(verdict: bool) -> None:
        fused.choose(device, verdict)
        for _ in range(num):
            call()

    ways = {"fused": partial(by, True), "pytorch": partial(by, False)}
    try:
        times = interleaved(ways, device, rounds)
    finally:
        fused.choose(device, None)
    row: dict[str, Any] = {f"{name}_ms": 1e3 * median(times[name]) / num for name in ways}
    row = {name: float(f"{value:.4g}") for name, value in row.items()}
    return row | {"pytorch_over_fused": ratio(times["pytorch"], times["fused"])}


def layers(
    features: tuple[int, int, int], batch: int, dtype: torch.dtype, device: torch.device
) -> dict[str, Callable[[], None]]:
    """Forward and backward passes of the layers of a block on features of a size."""
    channels = features[0]
    x = torch.randn(batch, *features, device=device, dtype=dtype, requires_grad=True)
    branch, gradient = torch.randn_like(x).requires_grad_(), torch.randn_like(x)
    wide = torch.randn(batch, 2 * channels, 1, 1, device=device, dtype=dtype, requires_grad=True)
    norm = GroupNorm(channels).to(device)
    weights = list(norm.parameters())
    # name -> forward pass, and the leaves that it has gradients of
    made: dict[str, tuple[Callable[[], Tensor], list[Tensor]]] = {
        "norm": (lambda: norm(x), [x, *weights]),
        "norm, silu": (lambda: norm(x, silu=True), [x, *weights]),
        "added, norm, silu, dropout": (
            lambda: norm(x, added=wide[:, :channels], silu=True, dropout=0.1),
            [x, wide, *weights],
        ),
        "norm, scale and shift, silu": (
            lambda: norm(x, scale_shift=wide, silu=True),
            [x, wide, *weights],
        ),
        "residual sum": (
            lambda: residual_sum(branch, x, wide[:, :channels], 0.7),
            [branch, x, wide],
        ),
    }

    def both(forward: Callable[[], Tensor], leaves: list[Tensor]) -> None:
        # backward() would add to the leaves' gradients of the call before, which costs as much
        torch.autograd.grad(forward(), leaves, gradient)

    return {name: partial(both, *case) for name, case in made.items()}


def measure_layers(batch: int, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """A row for every layer, size and precision."""
    rows = []
    for features in FEATURES:
        num = max(1, batch * 32 * 32 // (features[1] * features[2]))  # images, as memory allows
        for precision, dtype in PRECISIONS.items():
            for name, call in layers(features, min(num, batch), dtype, device).items():
                case = {"layer": name, "features": features, "precision": precision}
                rows.append(case | compared(call, device, rounds, _AT_ONCE))
                print(rows[-1], flush=True)
    return rows


def measure_network(
    name: str, precision: str, batch: int, device: torch.device, rounds: int
) -> dict[str, Any]:
    """Forward pass, and forward with backward, of a network of `bench_networks`."""
    network = build(SIZES[name], device)
    x, c_noise, labels = inputs(SIZES[name], batch, device)

    def forward() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            result: Tensor = network(x, c_noise, labels)
        return result

    row: dict[str, Any] = {"size": name, "precision": precision, "batch": batch}
    for kind, call in passes(forward, list(network.parameters())).items():
        row[kind] = compared(call, device, rounds)
    return row


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--sizes", default="ddpmpp-cifar,adm-64", show_default=True, metavar="LIST",
              help=f"Networks, of {', '.join(SIZES)}.")  # fmt: skip
@count_option("--batch", 64, "Images at once.")
@count_option("--rounds", 3 * FEWEST_PAIRS, "Pairs of times.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(device: str, sizes: str, batch: int, rounds: int, out: str | None) -> None:
    """Measure and print."""
    chosen = sizes.split(",") if sizes else []
    for name in chosen:
        if name not in SIZES:
            raise UserError(f"unknown size {name!r}: known are {', '.join(SIZES)}")
    where = prepared_device(device, trains=True)
    if where.type != "cuda":
        print("nothing was measured: the fused kernels need a GPU")
        return
    verdicts = {
        f"{name}, {str(dtype).removeprefix('torch.')}": fusion.is_trusted(where, dtype)
        for name, fusion in (("norms", fused_norm.FUSION), ("sums", fused_sum.FUSION))
        for dtype in fused.BOUNDS
    }
    print("the kernels agree with PyTorch:", verdicts, flush=True)
    record: dict[str, Any] = {"hardware": hardware(where), "agree": verdicts, "batch": batch}
    record |= {"layers": measure_layers(batch, where, rounds), "networks": []}
    for name in chosen:
        for precision in PRECISIONS:
            record["networks"].append(measure_network(name, precision, batch, where, rounds))
            print(record["networks"][-1], flush=True)
    write_results(out, record)
    # PyTorch 2.14 aborts if the interpreter ends while autograd's thread lets go of a backward pass
    time.sleep(0.2)


if __name__ == "__main__":
    main()
