"""EDM's sampler written plainly, as a program: the yardstick of `bench_generate.py`.

    python benchmarks/reference_sampler.py --network=net.safetensors --outdir=out --num=64

It reads the weights of a DDPM++ snapshot and nothing else of it, and imports nothing of ours.
Heun's method with the state in float64, one generator an image, a noise drawn in every step whether
it is used or not, and PNGs saved one after the other when a batch is done. Karras et al. 2022
("EDM"), Algorithm 2.
"""

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import PIL.Image
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.reference_network import (
    State,
    image_shape_of,
    label_dim_of,
    reference_denoiser,
    without_prefix,
)

COUNT = click.IntRange(1)

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0


class Generators:
    """One generator an image, so that an image depends on its seed alone."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.device = device
        self._each = [torch.Generator(device).manual_seed(seed % (1 << 32)) for seed in seeds]

    def normal(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Unit normals, one image after the other, [N, *shape]."""
        return torch.stack(
            [torch.randn(shape, generator=g, dtype=dtype, device=self.device) for g in self._each]
        )

    def integers(self, below: int) -> Tensor:
        """Integers, one an image, [N]."""
        return torch.stack(
            [torch.randint(below, [], generator=g, device=self.device) for g in self._each]
        )


def reference_images(state: State, seeds: Sequence[int], num_steps: int) -> Tensor:
    """Images of some seeds, float64 [N, C, H, W], not clipped."""
    device = next(iter(state.values())).device
    random, shape = Generators(seeds, device), image_shape_of(state)
    latents, label_dim = random.normal(shape), label_dim_of(state)
    labels = torch.eye(label_dim, device=device)[random.integers(label_dim)] if label_dim else None

    index = torch.arange(num_steps, dtype=torch.float64, device=device)
    first, last = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    levels = (first + index / (num_steps - 1) * (last - first)) ** RHO
    levels = torch.cat([levels, levels.new_zeros(1)])

    def slope(x: Tensor, sigma: Tensor) -> Tensor:
        return (x - reference_denoiser(state, x, sigma, labels).to(torch.float64)) / sigma

    x = latents.to(torch.float64) * levels[0]
    for i in range(num_steps):
        here, there = levels[i], levels[i + 1]
        x_hat = x + (here**2 - here**2).sqrt() * random.normal(shape, torch.float64)  # no churn
        d = slope(x_hat, here)
        x = x_hat + (there - here) * d
        if i < num_steps - 1:
            x = x_hat + (there - here) * (0.5 * d + 0.5 * slope(x, there))
    return x


@click.command()
@click.option("--network", required=True, metavar="FILE", help="Snapshot of a DDPM++ network.")
@click.option("--outdir", required=True, metavar="DIR", help="Where the images go.")
@click.option(
    "--num", default=64, type=COUNT, show_default=True, help="Images, of the seeds 0, 1, ..."
)
@click.option("--batch", default=64, type=COUNT, show_default=True, help="Images at once.")
@click.option("--steps", default=18, type=COUNT, show_default=True, help="Noise levels.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
def main(network: str, outdir: str, num: int, batch: int, steps: int, device: str) -> None:
    """Save the images of some seeds as PNG."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    state = without_prefix(load_file(network, device=device))
    folder = Path(outdir)
    for start in range(0, num, batch):
        seeds = range(start, min(start + batch, num))
        with torch.no_grad():
            images = reference_images(state, seeds, steps)
        pixels = (images * 127.5 + 128).clip(0, 255).to(torch.uint8)
        for seed, image in zip(seeds, pixels.permute(0, 2, 3, 1).cpu().numpy(), strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            _save(folder / f"{seed:06d}.png", image)


def _save(path: Path, image: np.ndarray) -> None:
    if image.shape[2] == 1:
        PIL.Image.fromarray(image[:, :, 0], "L").save(path)
    else:
        PIL.Image.fromarray(image, "RGB").save(path)


if __name__ == "__main__":
    main()
