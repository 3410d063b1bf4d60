"""What augmentation costs, and what is gained by resampling only the images that are moved.

    python benchmarks/bench_augment.py

EDM's set at its p = 0.12, drawing included, against the same images with every one resampled, as
the published code does whenever the set has an affine map; in turn, in one run.
"""

import time
from collections.abc import Callable
from typing import Any

import click
import torch

from benchmarks.hardware import hardware, prepared_device, write_results
from data.augment import apply, draw, edm
from data.augment.geometry import AFFINE
from torch_utils.command import Command

NEARLY_NOTHING = 1e-9  # a variate that counts as one, yet moves nothing


def rates(
    size: int, batch: int, p: float, device: torch.device, min_seconds: float
) -> dict[str, float]:
    """Images a second, the best of several rounds."""
    images = torch.randn([batch, 3, size, size], device=device)
    generator = torch.Generator().manual_seed(0)

    def subset() -> None:
        apply(images, draw(generator, batch, edm(p)))

    def whole() -> None:
        params = draw(generator, batch, edm(p))
        for name in AFFINE:
            params[name] = params[name] + NEARLY_NOTHING
        apply(images, params)

    best = {"subset": float("inf"), "whole_batch": float("inf")}
    for _ in range(4):
        for name, call in (("subset", subset), ("whole_batch", whole)):
            best[name] = min(best[name], seconds(call, device, min_seconds / 8))
    result = {f"{name}_images_per_s": round(batch / best[name], 1) for name in best}
    return result | {"speedup": round(best["whole_batch"] / best["subset"], 2)}


def seconds(call: Callable[[], None], device: torch.device, min_seconds: float) -> float:
    """Mean time of a call, after one that warms up."""
    call()
    calls, start = 0, _now(device)
    while calls < 2 or _now(device) - start < min_seconds:
        call()
        calls += 1
    return (_now(device) - start) / calls


def _now(device: torch.device) -> float:
    """The time when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--batch", default=128, show_default=True, help="Images at once.")
@click.option("--p", default=0.12, show_default=True, help="Probability of augmentation.")
@click.option("--seconds", "min_seconds", default=8.0, show_default=True, help="A measurement.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(device: str, batch: int, p: float, min_seconds: float, out: str | None) -> None:
    """Measure augmentation at 32x32 and 64x64."""
    where = prepared_device(device)
    record: dict[str, Any] = {"hardware": hardware(where), "batch": batch, "p": p, "sizes": {}}
    for size in (32, 64):
        record["sizes"][str(size)] = row = rates(size, batch, p, where, min_seconds)
        print(f"{size}x{size}: {row}", flush=True)
    write_results(out, record)


if __name__ == "__main__":
    main()
