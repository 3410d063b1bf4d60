"""Seeded generation: image i is a function of its seed alone, not of batch size or processes.

Per seed, in this order, from one generator: the latent (float32), the class if the model has
classes (one integer, drawn even when it is then overridden), the sampler's noises (float64). This
is EDM's order, so equal seeds on an equal device give EDM's images.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser, device_of
from samplers.fitting import check, guided, noise_levels, solver
from samplers.options import GenerationSettings
from torch_utils.errors import UserError


@dataclass(frozen=True)
class Sample:
    """One image to generate.

    Attributes:
        seed: determines the latent, the class unless given, and all noises.
        class_index: the class asked for; None to draw it.
        label: the label itself, for models whose labels are tags or vectors; it takes the place of
            the class.
    """

    seed: int
    class_index: int | None = None
    label: tuple[float, ...] | None = None


@dataclass(frozen=True)
class GeneratedBatch:
    """Some generated images.

    Attributes:
        samples: what was asked for, in order.
        images: float, [N, C, H, W], data range [-1, 1] (not clipped).
        classes: class index of each, or None for an unconditional model.
    """

    samples: Sequence[Sample]
    images: Tensor
    classes: list[int] | None


class SeededNoise:
    """One random generator per image, drawn from side by side."""

    def __init__(self, seeds: Sequence[int], rng_device: torch.device) -> None:
        self.rng_device = rng_device
        self.generators = [
            torch.Generator(rng_device).manual_seed(seed % (1 << 32)) for seed in seeds
        ]

    def normal(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Unit normals [N, *shape] on the generators' device."""
        return torch.stack(
            [
                torch.randn(shape, generator=generator, dtype=dtype, device=self.rng_device)
                for generator in self.generators
            ]
        )

    def integers(self, high: int) -> list[int]:
        """One integer in [0, high) for each image."""
        return [
            int(torch.randint(high, (), generator=generator, device=self.rng_device))
            for generator in self.generators
        ]

    def like(self, x: Tensor) -> Tensor:
        """Unit normals of the shape of x, drawn in float64, in the dtype and on the device of x."""
        return self.normal(x.shape[1:], torch.float64).to(device=x.device, dtype=x.dtype)


def check_class(class_index: int, label_dim: int) -> None:
    """Refuse a class that the model does not have.

    Raises:
        UserError: the model is unconditional, or the class is out of range.
    """
    if label_dim == 0:
        raise UserError(f"class {class_index} was asked for, but the model is unconditional")
    if not 0 <= class_index < label_dim:
        raise UserError(f"class {class_index} is out of range: the model has 0 to {label_dim - 1}")


def generate(
    denoiser: Denoiser,
    settings: GenerationSettings,
    samples: Sequence[Sample],
    *,
    guide: Denoiser | None = None,
    batch_size: int = 64,
    rng_device: torch.device | str = "cpu",
    callback: Callable[[int, float, Tensor, Tensor], None] | None = None,
) -> Iterator[GeneratedBatch]:
    """Generate images batch by batch.

    Args:
        denoiser: the model, in evaluation mode, on the device to compute on.
        settings: sampler, steps, grid, guidance, clipping, precision of the solver.
        samples: seeds and classes.
        guide: a second model, for autoguidance; on the same device.
        batch_size: images computed at once; does not change them but for kernel rounding.
        rng_device: device of the per-seed generators; streams differ between CPU and CUDA.
        callback: given to the sampler.

    Yields:
        Batches in the order of `samples`.

    Raises:
        UserError: a class that the model does not have, or settings that do not fit it.
    """
    check(settings, denoiser, guide)
    for sample in samples:
        if sample.class_index is not None:
            check_class(sample.class_index, denoiser.label_dim)
    sigmas, _ = noise_levels(settings, denoiser, guide)
    sample_from = solver(settings, denoiser, guide)
    dtype = getattr(torch, settings.solver_dtype)
    device = device_of(denoiser)
    shape = (denoiser.img_channels, *denoiser.img_resolution)
    for start in range(0, len(samples), batch_size):
        chunk = samples[start : start + batch_size]
        random = SeededNoise([sample.seed for sample in chunk], torch.device(rng_device))
        latents = random.normal(shape, torch.float32).to(device, dtype)
        classes = _classes(chunk, random, denoiser.label_dim)
        labels = None
        if classes is not None:
            labels = _labels(chunk, classes, denoiser.label_dim).to(device)
        with torch.inference_mode():
            images = sample_from(
                guided(settings, denoiser, labels, guide),
                latents * denoiser.prior_scale(sigmas[0]),
                sigmas,
                noise=random.like,
                round_sigma=denoiser.round_sigma,
                callback=callback,
            )
        yield GeneratedBatch(chunk, images, classes)


def _classes(chunk: Sequence[Sample], random: SeededNoise, label_dim: int) -> list[int] | None:
    """Class of each image; drawn for all, then overridden where one was asked for."""
    if label_dim == 0:
        return None
    drawn = random.integers(label_dim)
    return [
        index if sample.class_index is None else sample.class_index
        for sample, index in zip(chunk, drawn, strict=True)
    ]


def _labels(chunk: Sequence[Sample], classes: Sequence[int], label_dim: int) -> Tensor:
    """Label rows [N, label_dim]: one-hots of the classes, or the labels that were asked for."""
    rows = torch.eye(label_dim)[list(classes)]
    for row, sample in zip(rows, chunk, strict=True):
        if sample.label is not None:
            row.copy_(torch.tensor(sample.label))
    return rows


def to_uint8(images: Tensor) -> Tensor:
    """Quantise images from [-1, 1] to bytes: floor of 127.5 x + 128, clipped. EDM's rule."""
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)
