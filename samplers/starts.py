"""Where a solver starts: everything that the seeds of some images determine.

Per seed, in this order, from one generator: the latent (float32), the label if the model has any
(one integer, drawn even when it is then overridden), the sampler's noises (float64). This is EDM's
order, so equal seeds on an equal device give EDM's images.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from diffusion.denoiser import device_of
from samplers.labels import LabelSource
from samplers.sampling import Sampling
from torch_utils.devices import upload
from torch_utils.errors import UserError


@dataclass(frozen=True)
class Sample:
    """One image to generate.

    Attributes:
        seed: determines the latent, the label unless given, and all noises.
        class_index: the class asked for; None to draw it.
        label: the label asked for, [label_dim], of a model whose labels are tags or vectors; None
            to draw it.
    """

    seed: int
    class_index: int | None = None
    label: Sequence[float] | np.ndarray | None = None


_LEAST_OF_IMAGE = 1 << 10  # numbers; below, a thread has hardly more to do than to begin a draw
_LEAST_OF_THREAD = 1 << 15  # numbers; below, it takes longer to start it than to draw them


class SeededNoise:
    """One random generator per image; a draw takes numbers from each of them.

    On the CPU, threads share the images. Each generator is used by one of them at a time, and its
    draws keep their order, so the numbers do not depend on how many there are. On a GPU, a draw of
    one image is one kernel: the kernels of several seeds cannot be joined to the same numbers.
    """

    def __init__(self, seeds: Sequence[int], rng_device: torch.device) -> None:
        self.rng_device = rng_device
        self._pool: ThreadPoolExecutor | None = None
        self.generators = [
            torch.Generator(rng_device).manual_seed(seed % (1 << 32)) for seed in seeds
        ]

    def normal(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Unit normals [N, *shape] on the generators' device."""
        num = len(self.generators)
        drawn = torch.empty(num, *shape, dtype=dtype, device=self.rng_device)

        def draw(first: int, stop: int) -> None:
            with torch.inference_mode():  # a thread does not take it over from the one that asks
                for row, generator in zip(
                    drawn[first:stop], self.generators[first:stop], strict=True
                ):
                    row.normal_(generator=generator)

        num_threads = self._threads_for(drawn)
        bounds = [num * index // num_threads for index in range(num_threads + 1)]
        if num_threads > 1 and self._pool is None:
            self._pool = ThreadPoolExecutor(torch.get_num_threads() - 1)
        others = [
            self._pool.submit(draw, *pair)
            for pair in pairwise(bounds[1:])
            if self._pool is not None
        ]
        draw(*bounds[:2])
        for other in others:
            other.result()
        return drawn

    def _threads_for(self, drawn: Tensor) -> int:
        """How many threads draw; those that PyTorch may use, if there is enough to do."""
        num = len(drawn)
        if drawn.is_cuda or drawn.numel() < num * _LEAST_OF_IMAGE:
            return 1
        return max(1, min(torch.get_num_threads(), num, drawn.numel() // _LEAST_OF_THREAD))

    def integers(self, high: int) -> Tensor:
        """One integer in [0, high) for each image, int64 [N] on the generators' device."""
        return torch.stack(
            [
                torch.randint(high, (), generator=generator, device=self.rng_device)
                for generator in self.generators
            ]
        )

    def like(self, x: Tensor) -> Tensor:
        """Unit normals of the shape of x, drawn in float64, in the dtype and on the device of x."""
        return upload(self.normal(x.shape[1:], torch.float64).to(x.dtype), x.device)


@dataclass(frozen=True)
class Start:
    """Where the solver starts for some samples: everything that their seeds determine.

    Attributes:
        samples: what was asked for, in order.
        latents: unit normals [N, C, H, W], in the solver's dtype, on the model's device.
        indices: class, or number of the label example, of each sample, int64 [N] on the
            generators' device; None for a model without labels.
        labels: label rows [N, label_dim] on the model's device; None likewise.
        random: what the solver's noises are drawn from.
    """

    samples: Sequence[Sample]
    latents: Tensor
    indices: Tensor | None
    labels: Tensor | None
    random: SeededNoise


def check_class(class_index: int, label_dim: int) -> None:
    """Refuse a class that the model does not have.

    Raises:
        UserError: the model is unconditional, or the class is out of range.
    """
    if label_dim == 0:
        raise UserError(f"class {class_index} was asked for, but the model is unconditional")
    if not 0 <= class_index < label_dim:
        raise UserError(f"class {class_index} is out of range: the model has 0 to {label_dim - 1}")


def check_samples(samples: Sequence[Sample], label_dim: int, source: LabelSource) -> None:
    """Refuse samples whose labels a model does not have, or that have none.

    Raises:
        UserError: a class that the model does not have, or a sample without a label for a model
            whose labels cannot be drawn.
    """
    for sample in samples:
        if sample.class_index is not None:
            check_class(sample.class_index, label_dim)
        if sample.label is None and not source.is_class and source.examples is None:
            raise UserError(
                f"seed {sample.seed} has no label, and the model has no examples to draw one from"
            )


def start_of(
    sampling: Sampling,
    samples: Sequence[Sample],
    *,
    source: LabelSource,
    rng_device: torch.device | str = "cpu",
) -> Start:
    """Draw the latents and labels of some samples.

    Args:
        sampling: settings and models.
        samples: seeds and labels, as `check_samples` accepts them.
        source: what labels are drawn from.
        rng_device: device of the per-seed generators.
    """
    denoiser, device = sampling.denoiser, device_of(sampling.denoiser)
    random = SeededNoise([sample.seed for sample in samples], torch.device(rng_device))
    shape = (denoiser.img_channels, *denoiser.img_resolution)
    latents = upload(random.normal(shape, torch.float32), device).to(sampling.dtype)
    indices = _indices(samples, random, source)
    labels = None if indices is None else _labels(samples, upload(indices, device), source)
    return Start(samples, latents, indices, labels, random)


def classes_of(
    sampling: Sampling,
    samples: Sequence[Sample],
    *,
    source: LabelSource,
    batch_size: int = 64,
    rng_device: torch.device | str = "cpu",
) -> list[int]:
    """The classes that `generate` gives to samples, without making the images.

    Args:
        sampling: settings and models.
        samples: seeds, of a model with classes.
        source: what classes are drawn from.
        batch_size: samples whose numbers are drawn at once.
        rng_device: device of the per-seed generators.
    """
    found: list[int] = []
    for first in range(0, len(samples), batch_size):
        chunk = samples[first : first + batch_size]
        given = [sample.class_index for sample in chunk]
        if any(index is None for index in given):
            start = start_of(sampling, chunk, source=source, rng_device=rng_device)
            assert start.indices is not None, "a model without classes"
            given = start.indices.tolist()
        found += [index for index in given if index is not None]
    return found


def _indices(chunk: Sequence[Sample], random: SeededNoise, source: LabelSource) -> Tensor | None:
    """Class, or number of the label example, of each image, [N].

    An integer is drawn for every image, even if its label is given.
    """
    if source.dim == 0:
        return None
    drawn = random.integers(source.num_choices)
    if not source.is_class:
        return drawn
    asked = [-1 if sample.class_index is None else sample.class_index for sample in chunk]
    given = upload(torch.tensor(asked), drawn.device)
    return torch.where(given < 0, source.classes_of(drawn), given)


def _labels(chunk: Sequence[Sample], indices: Tensor, source: LabelSource) -> Tensor:
    """Label rows [N, label_dim]: those that were asked for, else of the classes or examples."""
    rows = source.rows(indices)
    given = {i: sample.label for i, sample in enumerate(chunk) if sample.label is not None}
    if not given:
        return rows
    values = torch.from_numpy(np.stack([np.asarray(x, np.float32) for x in given.values()]))
    places = upload(torch.tensor(list(given)), rows.device)
    return rows.index_copy(0, places, upload(values, rows.device))
