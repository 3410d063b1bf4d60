"""Generated images as Python code takes them: numbers in [-1, 1], all of them finite."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from samplers.generate import Sample, generate, not_finite, some_seeds
from samplers.labels import LabelSource
from samplers.options import GenerationSettings
from torch_utils.errors import Failure
from torch_utils.progress import Progress
from torch_utils.untouched import numerics


def float_images(
    denoiser: Denoiser,
    settings: GenerationSettings,
    samples: Sequence[Sample],
    *,
    guide: Denoiser | None,
    source: LabelSource,
    batch_size: int,
    rng_device: torch.device | str,
    num_levels: int,
    progress: bool,
) -> Iterator[Tensor]:
    """Generate images, with a bar; the process's settings are touched within each batch only.

    Args:
        denoiser, settings, samples, guide, source, batch_size, rng_device: as of `generate`.
        num_levels: how many noise levels are visited.
        progress: show a bar.

    Yields:
        float32 [n, C, H, W] on the model's device, clamped to [-1, 1].

    Raises:
        Failure: an image is not finite.
    """
    with Progress(len(samples), "sampling", shown=progress) as bar:
        batches = generate(
            denoiser,
            settings,
            samples,
            guide=guide,
            source=source,
            batch_size=batch_size,
            rng_device=rng_device,
            callback=lambda i, sigma, x, _: bar.within(len(x), i / (num_levels - 1)),
        )
        for _ in range(0, len(samples), batch_size):
            with numerics():
                batch = next(batches)
            lost = not_finite(batch.images).nonzero().flatten().tolist()
            if lost:
                raise Failure(
                    f"images of {some_seeds([batch.samples[place].seed for place in lost])} are "
                    "not finite: the snapshot's weights or the sampler's settings are at fault"
                )
            bar.update(len(batch.images))
            yield batch.images.to(torch.float32).clamp(-1, 1)
