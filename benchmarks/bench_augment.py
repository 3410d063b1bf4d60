"""What augmentation costs, and what is gained by resampling only the images that are moved.

    python -m benchmarks.bench_augment

EDM's set at its p = 0.12, drawing included, against the same images with every one resampled, as
the published code does whenever the set has an affine map; in turn, in one run.
"""

from statistics import median
from typing import Any

import click
import torch

from benchmarks.hardware import hardware, prepared_device, write_results
from benchmarks.options import count_option
from benchmarks.timing import FEWEST_PAIRS, interleaved, ratio
from data.augment import apply, draw, edm
from data.augment.geometry import AFFINE
from torch_utils.command import Command

NEARLY_NOTHING = 1e-9  # a variate that counts as one, yet moves nothing


def rates(
    size: int, batch: int, p: float, device: torch.device, pairs: int
) -> dict[str, float | dict[str, float]]:
    """Images a second, median of some calls, and the ratio of the calls' times in pairs."""
    images = torch.randn([batch, 3, size, size], device=device)
    generator = torch.Generator().manual_seed(0)

    def subset() -> None:
        apply(images, draw(generator, batch, edm(p)))

    def whole() -> None:
        params = draw(generator, batch, edm(p))
        for name in AFFINE:
            params[name] = params[name] + NEARLY_NOTHING
        apply(images, params)

    times = interleaved({"subset": subset, "whole_batch": whole}, device, pairs)
    found: dict[str, float | dict[str, float]] = {
        f"{name}_images_per_s": round(batch / median(seconds), 1) for name, seconds in times.items()
    }
    return found | {"speedup": ratio(times["whole_batch"], times["subset"])}


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@count_option("--batch", 128, "Images at once.")
@click.option("--p", default=0.12, show_default=True, help="Probability of augmentation.")
@count_option("--pairs", 3 * FEWEST_PAIRS, "Of calls, in turn.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(device: str, batch: int, p: float, pairs: int, out: str | None) -> None:
    """Measure augmentation at 32x32 and 64x64."""
    where = prepared_device(device)
    record: dict[str, Any] = {
        "hardware": hardware(where),
        "batch": batch,
        "p": p,
        "pairs": pairs,
        "sizes": {},
    }
    for size in (32, 64):
        record["sizes"][str(size)] = row = rates(size, batch, p, where, pairs)
        print(f"{size}x{size}: {row}", flush=True)
    write_results(out, record)


if __name__ == "__main__":
    main()
