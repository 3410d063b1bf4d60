"""Sample grids during training: fixed seeds, so that pictures of one run can be compared.

A preview is bounded work, shared by all processes, and it can be dropped at any network call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from samplers.describe import png_text
from samplers.generate import generate, not_finite, to_uint8
from samplers.labels import LabelSource
from samplers.sampling import Sampling, sampling_of
from samplers.settings import generation_settings, with_steps
from samplers.starts import Sample
from torch_utils.devices import Download
from torch_utils.distributed import World
from torch_utils.grids import save_grid, square_columns
from torch_utils.progress import Progress
from training.config import PreviewConfig
from training.droppable import unless_stopped

NUM_COLUMNS = 8  # of gray and RGB images; others are wider and get fewer
MAX_CLASSES = 10
MAX_CALLS = 50  # of the network, for one image
MAX_WORK = 64 * MAX_CALLS * 64 * 64  # images x calls x pixels; larger images are fewer
BATCH_SIZE = 16


@dataclass(frozen=True)
class Preview:
    """What a preview shows.

    Attributes:
        sampling: the model, sampler, guidance and the rest.
        samples: row by row.
        num_columns: images in a row.
        classes: the class of each row; empty for a model without classes.
        source: what other labels are drawn from; None for a model of classes or without labels.
    """

    sampling: Sampling
    samples: list[Sample]
    num_columns: int
    classes: list[int]
    source: LabelSource | None = None


def plan_preview(
    config: PreviewConfig,
    sampler: dict[str, Any],
    denoiser: Denoiser,
    source: LabelSource | None = None,
    precision: str = "fp32",
) -> Preview:
    """Choose images and steps; what the config leaves open is bounded by `MAX_WORK`.

    Args:
        config: the section `preview`.
        sampler: the section `sampler`; by default, no more than its steps are taken, and its
            restarts are left out if they do not fit in `MAX_CALLS`.
        denoiser: what is trained; it is sampled in evaluation mode.
        source: what labels are drawn from; None for all classes of the model.
        precision: of the network, unless the sampler has its own.

    Raises:
        UserError: the settings are invalid, or do not fit the model.
    """
    sampler = {"precision": precision, **sampler}
    settings, asked = generation_settings(sampler), config.steps
    if asked is not None:
        settings = generation_settings({**with_steps(sampler), "steps": asked})
    if asked is None and settings.num_calls > MAX_CALLS and "restarts" in settings.options:
        # fewer steps do not lessen the calls of restarts, and may leave them no place
        options = {**settings.options, "restarts": []}
        settings = settings.model_copy(update={"options": options})
    while asked is None and settings.steps > 1 and settings.num_calls > MAX_CALLS:
        settings = settings.model_copy(update={"steps": settings.steps - 1})
    sampling = sampling_of(settings, denoiser)

    source = source or LabelSource(denoiser.label_dim)
    shown: list[int] = []
    if source.is_class:
        shown = list(source.present[:MAX_CLASSES])
    num = config.num_images
    if num is None:
        height, width = denoiser.img_resolution
        affordable = MAX_WORK // (settings.num_calls * height * width)
        wanted = NUM_COLUMNS * len(shown) if shown else NUM_COLUMNS**2
        num = max(min(wanted, affordable), min(wanted, NUM_COLUMNS))
    if not shown:
        columns = square_columns(NUM_COLUMNS**2, denoiser.img_channels)
        return Preview(sampling, [Sample(seed) for seed in range(num)], columns, [], source)
    shown = shown[:num]
    columns = num // len(shown)
    samples = [Sample(seed, index) for index in shown for seed in range(columns)]
    return Preview(sampling, samples, columns, shown)


def save_preview(
    path: Path,
    preview: Preview,
    world: World,
    *,
    seen: int,
    label_names: Sequence[str] | None = None,
    stop: Callable[[], bool] = lambda: False,
    has_bar: bool = False,
) -> str | None:
    """Sample a preview on all processes and write it as a grid. All processes must call.

    Args:
        path: the PNG.
        preview: from `plan_preview`.
        world: the processes.
        seen: images that the model was trained on, for the title.
        label_names: names of the classes.
        stop: asked at every network call; True in any process drops the preview.
        has_bar: show progress on stderr.

    Returns:
        None, or a line about why there is no picture.
    """
    sampling = preview.sampling.at_precision()  # of the weights as they are now
    denoiser = sampling.denoiser
    first, last = world.range_of(len(preview.samples))
    shape = (len(preview.samples), denoiser.img_channels, *denoiser.img_resolution)
    pixels = torch.zeros(shape, dtype=torch.uint8)

    def share(heed: Callable[[], None]) -> int:
        """Draw this process's pictures; returns how many are not finite."""
        num_bad, position = 0, first
        with Progress(last - first, "preview", shown=world.is_main and has_bar) as bar:

            def watch(index: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
                heed()
                bar.within(len(x), index / (len(sampling.sigmas) - 1))

            batches = generate(
                sampling,
                preview.samples[first:last],
                source=preview.source,
                batch_size=BATCH_SIZE,
                callback=watch,
            )
            arriving = []
            for batch in batches:
                arriving.append(Download(to_uint8(batch.images), not_finite(batch.images)))
                bar.update(len(batch.images))
        for pictures, is_bad in (download.read() for download in arriving):
            pixels[position : position + len(pictures)] = pictures
            position += len(pictures)
            num_bad += int(is_bad.sum())
        return num_bad

    found = unless_stopped(world, stop, share)
    if found is None:
        return f"preview dropped: {path.name}"
    world.sum(pixels)  # each process has zeros outside its own share
    num_bad = int(world.sum(torch.tensor(found)))
    if num_bad:
        return f"no preview: {num_bad} of {len(pixels)} images are not finite"
    if world.is_main:
        settings = sampling.settings
        seeds = sorted({sample.seed for sample in preview.samples})
        trained = f"{seen / 1e3:,.1f} kimg" if seen >= 10_000 else f"{seen:,} images"
        names = [label_names[index] if label_names else str(index) for index in preview.classes]
        save_grid(
            path,
            pixels.numpy(),
            preview.num_columns,
            row_names=names,
            row_numbers=preview.classes,
            column_names=[f"seed {seed}" for seed in seeds] if names else [],
            title=f"{trained}: {settings.name}, {settings.steps} steps",
            text=png_text(settings, seeds, path.parent),
        )
    return None
