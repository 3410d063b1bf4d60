"""Seeded generation: image i is a function of its seed alone, not of batch size or processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusion.calls import Calls
from samplers.labels import LabelSource
from samplers.sampling import Sampling
from samplers.solvers.interface import Callback, Project
from samplers.starts import (
    Sample,
    Start,
    check_samples,
    start_of,
)
from torch_utils.text import some


@dataclass(frozen=True)
class GeneratedBatch:
    """Some generated images.

    Attributes:
        samples: what was asked for, in order.
        images: float, [N, C, H, W], data range [-1, 1] (not clipped).
        indices: class index of each, int64 [N] on the generators' device, or None for a model
            without classes.
    """

    samples: Sequence[Sample]
    images: Tensor
    indices: Tensor | None

    @property
    def classes(self) -> list[int] | None:
        """`indices` as a list; waits for the device if they were drawn on a GPU."""
        return None if self.indices is None else self.indices.tolist()


def solve(
    sampling: Sampling,
    start: Start,
    *,
    callback: Callback | None = None,
    project: Project | None = None,
) -> Tensor:
    """Run the solver from the latents of a start.

    Args:
        sampling: settings and models, in evaluation mode.
        start: of `start_of`; its latents may have been replaced.
        callback, project: given to the solver.

    Returns:
        The state at the last noise level, [N, C, H, W], data range [-1, 1], not clipped.
    """
    sigmas = sampling.sigmas
    state = start.latents * sampling.denoiser.prior_scale(sigmas[0])
    return solve_from(sampling, start, state, sigmas, callback=callback, project=project)


def solve_from(
    sampling: Sampling,
    start: Start,
    state: Tensor,
    sigmas: Sequence[float],
    *,
    callback: Callback | None = None,
    project: Project | None = None,
) -> Tensor:
    """Run the solver from a state over other levels than its grid's.

    Args:
        sampling: settings and models, in evaluation mode.
        start: its labels and generators are used.
        state: at sigmas[0], [N, C, H, W].
        sigmas: levels to visit.
        callback, project: given to the solver.

    Returns:
        The state at the last noise level, [N, C, H, W].
    """
    with torch.inference_mode():
        return sampling.solver(
            sampling.denoise(start.labels),
            state,
            sigmas,
            noise=start.random.like,
            round_sigma=sampling.denoiser.round_sigma,
            callback=callback,
            project=project,
        )


def generate(
    sampling: Sampling,
    samples: Sequence[Sample],
    *,
    source: LabelSource | None = None,
    batch_size: int = 64,
    rng_device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> Iterator[GeneratedBatch]:
    """Generate images batch by batch.

    Args:
        sampling: settings and models, in evaluation mode, on the device to compute on.
        samples: seeds and labels.
        source: what labels are drawn from; None for all classes of the model.
        batch_size: images computed at once; changes the images only by kernel rounding.
        rng_device: device of the per-seed generators; streams differ between CPU and CUDA.
        callback: given to the sampler.

    Yields:
        Batches in the order of `samples`.

    Raises:
        UserError: a class that the model does not have, or a sample without a label for a model
            whose labels cannot be drawn.
    """
    source = source or LabelSource(sampling.denoiser.label_dim)
    check_samples(samples, sampling.denoiser.label_dim, source)
    with Calls() as calls:
        ready = replace(sampling, called=calls.of)
        for first in range(0, len(samples), batch_size):
            chunk = samples[first : first + batch_size]
            start = start_of(sampling, chunk, source=source, rng_device=rng_device)
            images = solve(ready, start, callback=callback)
            yield GeneratedBatch(chunk, images, start.indices if source.is_class else None)


def not_finite(images: Tensor) -> Tensor:
    """Which images have values that are not finite: bool [N], on their device."""
    return ~images.isfinite().flatten(1).all(1)


def some_seeds(seeds: Sequence[int | str]) -> str:
    """Seeds for a message: `seeds 3, 5, 8, ...`."""
    return f"seed{'s' * (len(seeds) > 1)} {some(seeds)}"


def to_uint8(images: Tensor) -> Tensor:
    """Quantise images from [-1, 1] to bytes: floor of 127.5 x + 128, clipped. EDM's rule."""
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def to_float(pictures: Tensor) -> Tensor:
    """Bytes as float64 in [-1, 1]; `to_uint8` gives the same bytes back."""
    return pictures.double() / 127.5 - 1
