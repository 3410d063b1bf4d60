"""Speed and memory of the networks: forward, and forward with backward.

    python -m benchmarks.bench_networks --device=cpu --sizes=cifar \
        --out=benchmarks/results/networks-cpu.json

For every network: parameters, FLOPs of a forward pass, images a second, peak memory, and
the fraction of the matrix-multiplication rate that this device reaches in the same precision. The
first rows compare DDPM++ with the same arithmetic written plainly (`reference_network.py`): median
of the ratios of calls made in turn, which holds on a noisy machine.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import networks
from benchmarks.hardware import hardware, prepared_device, write_results
from benchmarks.memory import peak_gb, reset_peak, resident_gb
from benchmarks.options import count_option
from benchmarks.reference_network import reference_forward
from benchmarks.timing import interleaved, now, ratio
from torch_utils.command import Command
from torch_utils.errors import UserError


@dataclass(frozen=True)
class Size:
    """One published network: a row of `networks.NETWORKS` at the size of a data set."""

    network: str
    resolution: int
    label_dim: int
    options: dict[str, Any]
    channels: int = 3
    out_channels: int | None = None
    augment_dim: int = 0


SIZES = {
    "ddpmpp-cifar": Size("ddpmpp", 32, 10, {}, augment_dim=9),
    "ncsnpp-cifar": Size("ncsnpp", 32, 10, {}, augment_dim=9),
    "ddpmpp-64": Size("ddpmpp", 64, 0, {"channel_mult": [1, 2, 2, 2]}, augment_dim=9),
    "ncsnpp-64": Size("ncsnpp", 64, 0, {"channel_mult": [1, 2, 2, 2]}, augment_dim=9),
    "adm-64": Size("adm", 64, 1000, {}),
    "adm-64-iddpm": Size("adm", 64, 1000, {}, out_channels=6),
    "ddpm-mnist": Size("ddpm", 32, 0, {"model_channels": 64}, channels=1),
    "ddpm-cifar": Size("ddpm", 32, 0, {}),
    "ddpm-cifar-guided": Size(
        "ddpm",
        32,
        10,
        {
            "attn_resolutions": [16, 8],
            "num_heads": None,
            "head_dim": 64,
            "modulation": "scale_shift",
            "resampler": "block",
        },
    ),
    "ddpm-64": Size("ddpm", 64, 0, {"channel_mult": [1, 2, 2, 2, 4]}),
    "ddpm-256": Size("ddpm", 256, 0, {"channel_mult": [1, 1, 2, 2, 4, 4]}),
    "vdiff-cifar": Size("vdiff", 32, 10, {}),
    "vdiff-64": Size(
        "vdiff",
        64,
        40,
        {
            "model_channels": 192,
            "channel_mult": [1, 2, 3, 4],
            "emb_channels": 768,
            "attn_resolutions": [32, 16, 8],
            "head_dim": 64,
            "multi_tags": True,
        },
        out_channels=6,
    ),
}
_ROUNDS = 24  # in which ours and the plain network are timed in turn
CIFAR = ("ddpmpp-cifar", "ncsnpp-cifar", "ddpm-cifar", "vdiff-cifar")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build(size: Size, device: torch.device) -> nn.Module:
    """The network in training mode without dropout, with weights that are not near zero."""
    network = networks.create(
        size.network,
        img_resolution=size.resolution,
        img_channels=size.channels,
        out_channels=size.out_channels,
        label_dim=size.label_dim,
        augment_dim=size.augment_dim,
        **{**size.options, "dropout": 0.0},
    )
    return network.to(device).train()


def inputs(size: Size, batch: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images, noise conditions and labels."""
    x = torch.randn(batch, size.channels, size.resolution, size.resolution, device=device)
    labels = (
        torch.eye(size.label_dim, device=device)[torch.arange(batch) % size.label_dim]
        if size.label_dim
        else None
    )
    return x, torch.rand(batch, device=device) * 10, labels


def seconds(call: Callable[[], object], device: torch.device, min_seconds: float) -> float:
    """Shortest time of one call: repeated for `min_seconds` after a warm-up."""
    call()
    best, spent = float("inf"), 0.0
    while spent < min_seconds or best == float("inf"):
        start = now(device)
        call()
        elapsed = now(device) - start
        best, spent = min(best, elapsed), spent + elapsed
    return best


def passes(
    forward: Callable[[], Tensor], parameters: list[Tensor]
) -> dict[str, Callable[[], object]]:
    """The two things that are timed: a forward pass, and one with its backward pass."""

    def only() -> Tensor:
        with torch.no_grad():
            return forward()

    def both() -> None:
        for parameter in parameters:
            parameter.grad = None
        forward().float().square().mean().backward()

    return {"forward": only, "forward_backward": both}


def matmul_flops(precision: str, device: torch.device, min_seconds: float) -> float:
    """FLOP/s of a large square matrix product: what this device can do at best."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=PRECISIONS[precision]) for _ in "ab")
    return 2 * side**3 / seconds(lambda: a @ b, device, min_seconds)


def measure(
    size: Size,
    *,
    precision: str,
    layout: str,
    mode: str,
    batch: int,
    device: torch.device,
    min_seconds: float,
) -> dict[str, Any]:
    """Time and memory of one network in one mode.

    On CPUs memory is what the process takes beyond what it took without the network; call this
    in a process of its own, because freed memory of an earlier network would hide this one's.
    """
    before = resident_gb(device)
    network = build(size, device)
    x, c_noise, labels = inputs(size, batch, device)
    if layout == "channels_last":
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.contiguous(memory_format=torch.channels_last)
    parameters = list(network.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x[:1], c_noise[:1], None if labels is None else labels[:1])
    if mode == "compiled":
        torch._dynamo.reset()  # networks of one process share a limit of compilations
        network.compile(fullgraph=True)

    def forward() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            result: Tensor = network(x, c_noise, labels)
        return result

    row: dict[str, Any] = {
        "parameters": sum(p.numel() for p in parameters),
        "gflops_per_image": counter.get_total_flops() / 1e9,
    }
    for name, call in passes(forward, parameters).items():
        call()  # compiles
        reset_peak(device)
        row[f"{name}_images_per_s"] = round(batch / seconds(call, device, min_seconds), 2)
        row[f"{name}_peak_gb"] = round(peak_gb(device) - before, 2)
    return row


def measure_apart(size: Size, device: torch.device, **how: Any) -> dict[str, Any]:
    """`measure`, on CPUs in a process of its own."""
    if device.type == "cuda":
        return measure(size, device=device, **how)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(measure, size, device=device, **how).result()


def against_reference(batch: int, device: torch.device, rounds: int = _ROUNDS) -> dict[str, Any]:
    """DDPM++ at CIFAR size against the same arithmetic written plainly, timed in turn."""
    size = SIZES["ddpmpp-cifar"]
    network = build(size, device)
    x, c_noise, labels = inputs(size, batch, device)
    state = dict(network.named_parameters()) | dict(network.named_buffers())
    parameters = list(network.parameters())
    ours = passes(lambda: network(x, c_noise, labels), parameters)
    plain = passes(lambda: reference_forward(state, x, c_noise, labels), parameters)
    row: dict[str, Any] = {"batch": batch}
    for name in ours:
        times = interleaved({"ours": ours[name], "plain": plain[name]}, device, rounds)
        row[f"{name}_s_per_image"] = round(median(times["ours"]) / batch, 4)
        row[f"{name}_plain_s_per_image"] = round(median(times["plain"]) / batch, 4)
        row[f"{name}_time_over_plain"] = ratio(times["ours"], times["plain"])["median"]
    return row


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--sizes", default="cifar", show_default=True, metavar="LIST",
              help=f"Of {', '.join(SIZES)}; cifar for {', '.join(CIFAR)}; or all.")  # fmt: skip
@click.option("--modes", default="eager,compiled", show_default=True, metavar="LIST")
@count_option("--batch", 4, "Images at once.")
@click.option("--seconds", "min_seconds", default=4.0, show_default=True, help="A measurement.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(
    device: str, sizes: str, modes: str, batch: int, min_seconds: float, out: str | None
) -> None:
    """Measure the networks and print a table."""
    where = prepared_device(device, trains=True)
    sets = {"all": tuple(SIZES), "cifar": CIFAR}
    chosen = sets[sizes] if sizes in sets else tuple(sizes.split(","))
    for name in chosen:
        if name not in SIZES:
            raise UserError(f"unknown size {name!r}: known are {', '.join(SIZES)}")
    record: dict[str, Any] = {"hardware": hardware(where), "batch": batch, "networks": []}
    record["ddpmpp_against_plain"] = against_reference(batch, where)
    print(record["ddpmpp_against_plain"], flush=True)
    peaks = {name: matmul_flops(name, where, min_seconds / 4) for name in PRECISIONS}
    record["matmul_tflops"] = {name: round(peak / 1e12, 3) for name, peak in peaks.items()}
    for name in chosen:
        for precision in PRECISIONS:
            for layout in ("contiguous", "channels_last"):
                for mode in modes.split(","):
                    row = measure_apart(
                        SIZES[name],
                        where,
                        precision=precision,
                        layout=layout,
                        mode=mode,
                        batch=batch,
                        min_seconds=min_seconds,
                    )
                    # a backward pass costs twice the forward one
                    flops = 3e9 * row["gflops_per_image"] * row["forward_backward_images_per_s"]
                    row["fraction_of_matmul"] = round(flops / peaks[precision], 3)
                    case = {"size": name, "precision": precision, "layout": layout, "mode": mode}
                    record["networks"].append(case | row)
                    print(case | row, flush=True)
                    write_results(out, record)  # after each: compiling takes minutes


if __name__ == "__main__":
    main()
