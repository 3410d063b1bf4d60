"""Generated images for callers from Python: floats in [-1, 1], all of them finite."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from samplers.generate import generate, not_finite, some_seeds
from samplers.idle import idle_settings
from samplers.label_rows import label_rows
from samplers.labels import LabelSource
from samplers.requests import LabelWords, requests
from samplers.sampling import sampling_of
from samplers.settings import generation_settings, overlay
from samplers.starts import Sample
from torch_utils.distributed import choose_device
from torch_utils.errors import Failure, UserError
from torch_utils.progress import Progress
from torch_utils.untouched import numerics


def float_images(
    denoiser: Denoiser,
    seeds: Sequence[int],
    *,
    label: Any,
    source: LabelSource,
    stored: Mapping[str, Any],
    given: Mapping[str, Any],
    guide: Denoiser | None = None,
    label_dropout: float | None = None,
    batch_size: int = 64,
    rng_device: str = "cpu",
    progress: bool = True,
) -> tuple[Iterator[Tensor], list[str]]:
    """Prepare to generate images; each batch is computed when the caller asks for it.

    Args:
        denoiser: the model.
        seeds: one image each.
        label: as of `label_rows`; None draws each label from its seed.
        source: what labels are drawn from.
        stored, given: the snapshot's settings of the sampler and what replaces them, see `overlay`.
        guide: a second model, for autoguidance.
        label_dropout: probability of the null label in the model's training; None if unknown.
        batch_size: images computed at once.
        rng_device: where to draw random numbers.
        progress: show a bar.

    Returns:
        Batches, float32 [n, C, H, W] on the model's device, clamped to [-1, 1]; and a line for
        each way in which they differ from what was asked for. The batches raise a Failure if an
        image is not finite.

    Raises:
        UserError: invalid settings, or a label, guide or batch size that the model cannot take.
    """
    if batch_size < 1:
        raise UserError(f"batch is {batch_size}: it must be 1 or more")
    random_device = choose_device(rng_device)
    settings = generation_settings(overlay(stored, given))
    sampling = sampling_of(settings, denoiser, guide).at_precision()
    idle = idle_settings(given, settings, has_guide=guide is not None)
    notes = [f"{key} has no effect: {why}" for key, why in idle]
    notes += [*sampling.notes, *sampling.cautions(label_dropout=label_dropout)]
    if label is None:
        samples = [sample for sample, _ in requests(seeds, LabelWords(), source)]
    else:
        rows = label_rows(label, len(seeds), source).numpy()
        samples = [Sample(seed, label=row) for seed, row in zip(seeds, rows, strict=True)]
        if sampling.ignores_labels:
            notes.append("label has no effect: at guidance 0 labels are not used")

    def batches() -> Iterator[Tensor]:
        with Progress(len(samples), "sampling", shown=progress) as bar:
            found = generate(
                sampling,
                samples,
                source=source,
                batch_size=batch_size,
                rng_device=random_device,
                callback=lambda i, sigma, x, _: bar.within(len(x), i / (len(sampling.sigmas) - 1)),
            )
            for start in range(0, len(samples), batch_size):
                with numerics():  # left before the caller gets the batch
                    images = next(found).images
                lost = not_finite(images).cpu().nonzero().flatten().tolist()
                if lost:
                    raise Failure(
                        f"images of {some_seeds([seeds[start + place] for place in lost])} are not "
                        "finite: the snapshot's weights or the sampler's settings are at fault"
                    )
                bar.update(len(images))
                yield images.to(torch.float32).clamp(-1, 1)

    return batches(), notes


def denoised(
    denoiser: Denoiser, noisy: Tensor, sigma: Tensor | float, labels: Any, source: LabelSource
) -> Tensor:
    """One call of a model: D, in the shape and dtype of `noisy`.

    Args:
        denoiser: the model.
        noisy: images [N, C, H, W] on its device.
        sigma: noise level, a number or [N].
        labels: as of `label_rows`; None for the null label.
        source: what the model's labels are.

    Raises:
        UserError: images of another shape, a sigma that is not positive, or a label that the model
            lacks.
    """
    shape = denoiser.img_channels, *denoiser.img_resolution
    if not isinstance(noisy, Tensor):
        raise UserError(f"noisy is of type {type(noisy).__name__}: it must be a tensor")
    if noisy.shape[1:] != shape or not len(noisy) or not noisy.is_floating_point():
        given = f"{noisy.dtype} {tuple(noisy.shape)}"
        raise UserError(f"noisy is {given}: the model takes floats (N, {str(shape)[1:]}")
    if isinstance(sigma, Tensor):
        if sigma.shape not in ((), (len(noisy),)):
            raise UserError(f"sigma has shape {tuple(sigma.shape)}: it must be () or [N]")
    elif not isinstance(sigma, (int, float)) or not 0 < sigma < math.inf:
        raise UserError(f"sigma is {sigma!r}: it must be a positive number, or a tensor of them")
    rows = None
    if labels is not None:
        rows = label_rows(labels, len(noisy), source).to(noisy.device)
    with numerics():
        found: Tensor = denoiser(noisy, sigma, rows)
    return found
