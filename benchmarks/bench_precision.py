"""What bf16 and fp16 cost in accuracy: D of a trained model against float32, by bands of sigma.

    python -m benchmarks.bench_precision --network=runs/demo/training --data=assets/digits-8x8.zip

The error is that of the rounding alone, root mean square over pixels, beside the model's own
denoising error |D - y|, which it should be small against.
"""

from typing import Any

import click
import torch

from benchmarks.hardware import hardware, prepared_device, write_results
from benchmarks.options import count_option
from data.dataset import ImageDataset
from diffusion.half import halved
from models.snapshot import find_snapshot, load_snapshot
from torch_utils.command import Command

BANDS = [(0.002, 0.02), (0.02, 0.2), (0.2, 1.0), (1.0, 5.0), (5.0, 80.0)]
HALVES = ("bf16", "fp16")


def rms(x: torch.Tensor) -> float:
    """Root mean square of all elements."""
    return float(x.double().square().mean().sqrt())


@click.command(cls=Command)
@click.option("--network", required=True, metavar="FILE|DIR", help="Snapshot or run directory.")
@click.option("--data", required=True, metavar="ZIP|DIR", help="Images to add noise to.")
@count_option("--num", 512, "Images in a band.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(network: str, data: str, num: int, device: str, out: str | None) -> None:
    """Print the rounding error of D per band of noise levels."""
    where = prepared_device(device)
    denoiser, info = load_snapshot(find_snapshot(network), where)
    dataset = ImageDataset(data, use_labels=info.model.label_dim > 0, max_size=num)
    y = torch.from_numpy(dataset.load()).to(where).float() / 127.5 - 1
    raw = dataset.labels
    labels = None if raw is None else torch.from_numpy(raw).to(where)
    generator = torch.Generator(where).manual_seed(0)
    halves = {name: halved(denoiser, name) for name in HALVES}
    rows: list[dict[str, Any]] = []
    print(f"{'sigma':>14} {'rms D':>8} {'|D - y|':>8} {'bf16':>9} {'fp16':>9}   (rms over pixels)")
    for low, high in BANDS:
        share = torch.rand(len(y), generator=generator, device=where)
        sigma = low * (high / low) ** share
        noise = torch.randn(y.shape, generator=generator, device=where)
        x = y + sigma[:, None, None, None] * noise
        with torch.no_grad():
            exact = denoiser(x, sigma, labels)
            row: dict[str, Any] = {"sigma": [low, high], "rms_D": rms(exact)}
            row["denoising_error"] = rms(exact - y)
            for name, half in halves.items():
                row[name] = rms(half(x, sigma, labels) - exact)
        rows.append(row)
        print(
            f"{low:>7g}-{high:<6g} {row['rms_D']:>8.4f} {row['denoising_error']:>8.4f} "
            f"{row['bf16']:>9.6f} {row['fp16']:>9.6f}"
        )
    write_results(out, {"hardware": hardware(where), "images": info.images, "bands": rows})


if __name__ == "__main__":
    main()
