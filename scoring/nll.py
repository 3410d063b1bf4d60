"""Negative log-likelihood of images in bits per dimension, over all processes.

A byte b stands for the values that `samplers.generate.to_uint8` makes b of, an interval of width
1/127.5 around b/127.5 - 1. With an image drawn evenly from these intervals (uniform dequantization,
Theis et al. 2016), E[-log2 p] / d + log2(127.5) is an upper bound of what the image costs as bytes.
The density p is that of `samplers.likelihood` at the lowest noise level.
"""

import math
import platform
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion.guidance import conditional
from samplers.likelihood import CALLS_PER_STEP, log_likelihood
from scoring.nll_setup import Task
from torch_utils.devices import upload
from torch_utils.distributed import World
from torch_utils.errors import Failure
from torch_utils.jsons import strict
from torch_utils.progress import Progress
from torch_utils.text import some

OFFSET = math.log2(127.5)  # bits per dimension: values from -1 to 1 are 127.5 bytes a unit
CHECKED = 8  # images of which the likelihood is also computed with half as many steps


@dataclass(frozen=True)
class Effort:
    """How precisely to compute.

    Attributes:
        steps: of the integration.
        probes: random vectors for each image.
        seed: of dequantization and probes.
    """

    steps: int = 16
    probes: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Likelihood:
    """What was found.

    Attributes:
        what: the model, for people.
        bits: bits per dimension of each image by each probe, float64 [probes, N].
        halved: the same of the first CHECKED images with half as many steps.
        facts: what they were computed from.
    """

    what: str
    bits: np.ndarray
    halved: np.ndarray
    facts: dict[str, Any]

    @property
    def images(self) -> np.ndarray:
        """Bits per dimension of each image, [N]."""
        mean: np.ndarray = self.bits.mean(0)
        return mean

    @property
    def mean(self) -> float:
        """Bits per dimension of the data."""
        return float(self.bits.mean())

    @property
    def standard_error(self) -> float | None:
        """Of the mean over images, dequantization and probes; None for a single image."""
        num = len(self.images)
        return None if num < 2 else float(self.images.std(ddof=1)) / math.sqrt(num)

    @property
    def probe_error(self) -> float | None:
        """The part of the standard error that more probes would lessen; None with one probe."""
        num_probes, num = self.bits.shape
        if num_probes < 2:
            return None
        return math.sqrt(float(self.bits.var(0, ddof=1).mean()) / (num_probes * num))

    @property
    def halving_change(self) -> float:
        """By how much half as many steps change an image's bits: the mean absolute difference."""
        few: np.ndarray = self.halved.mean(0)
        return float(np.abs(few - self.images[: len(few)]).mean())


def measure_nll(
    task: Task, effort: Effort, world: World, *, what: str, batch: int = 64
) -> Likelihood | None:
    """The likelihood of every image. All processes must call.

    Args:
        task: model and images.
        effort: how precisely.
        world: the processes, which share the images.
        what: the name of the model.
        batch: images at once; changes the numbers only by kernel rounding.

    Returns:
        What was found; None on processes beside the main one.

    Raises:
        Failure: the likelihood of some image is not finite.
        UserError: an image is damaged.
    """
    start, num = time.monotonic(), len(task.images)
    bits = torch.zeros(effort.probes, num, dtype=torch.float64)
    halved = torch.zeros(effort.probes, min(num, CHECKED), dtype=torch.float64)
    first, stop = world.range_of(num)
    place = first
    with Progress(stop - first, "likelihood", shown=world.is_main) as bar:
        for images in task.images.batches(batch, first, stop):
            rows = slice(place, place + len(images))
            bits[:, rows] = _bits(task, effort, images, place, effort.steps, bar)
            if (few := min(len(images), CHECKED - place)) > 0:
                half = _bits(task, effort, images[:few], place, effort.steps // 2)
                halved[:, place : place + few] = half
            bar.update(len(images))
            place += len(images)
    world.meet()
    bits, halved = world.sum(bits), world.sum(halved)
    lost = (~bits.isfinite()).any(0).nonzero().flatten().tolist()
    if lost:
        raise Failure(
            f"the likelihood of {len(lost)} of {num} images is not finite, of "
            f"{some([task.name_of(index) for index in lost])}: the weights of {task.network.path} "
            "are at fault, or its noise levels"
        )
    if not world.is_main:
        return None
    facts = {
        **task.facts,
        "seed": effort.seed,
        "probes": effort.probes,
        "steps": effort.steps,
        "calls": CALLS_PER_STEP * effort.steps,
        "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
        "seconds": time.monotonic() - start,
    }
    return Likelihood(what, bits.numpy(), halved.numpy(), strict(facts))


def _bits(
    task: Task,
    effort: Effort,
    images: np.ndarray,
    first: int,
    steps: int,
    bar: Progress | None = None,
) -> Tensor:
    """Bits per dimension of some images by each probe, float64 [probes, n].

    Args:
        task, effort: what and how.
        images: uint8 [n, C, H, W].
        first: the number of the first one, for its label and its random numbers.
        steps: of the integration.
        bar: moves with every step.
    """
    denoiser, num = task.network.sampling.denoiser, len(images)
    device = next(denoiser.parameters()).device
    offsets, probes = noise_of(effort, range(first, first + num), images.shape[1:])
    x = upload(torch.from_numpy(dequantized(images, offsets)), device)
    labels = task.labels(first, first + num)

    def watch(done: int) -> None:
        if bar is not None:
            bar.within(num, done / steps)

    found = log_likelihood(
        conditional(denoiser, None if labels is None else upload(labels, device)),
        x,
        upload(torch.from_numpy(probes), device).to(x.dtype),
        sigma_min=task.sigma_min,
        sigma_max=task.sigma_max,
        steps=steps,
        prior_scale=task.prior_scale,
        watch=watch,
    )
    return bits_per_dim(found, x[0].numel()).cpu()


def noise_of(
    effort: Effort, indices: range, image_shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The random numbers of some images, each a function of the seed and the image's number.

    Returns:
        float64 [n, C, H, W] in [0, 1), and random signs, int64 [probes, n, C, H, W]. The first
        probes are the same for any number of them.
    """
    offsets, probes = [], []
    for index in indices:
        rng = np.random.default_rng([effort.seed, index])
        offsets.append(rng.random(image_shape))
        probes.append(2 * rng.integers(0, 2, (effort.probes, *image_shape)) - 1)
    return np.stack(offsets), np.stack(probes, axis=1)


def dequantized(images: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Values that bytes stand for, float64: offsets 0 to 1 reach over the interval of a byte."""
    values: np.ndarray = (images + offsets - 0.5) / 127.5 - 1
    return values


def bits_per_dim(log_p: Tensor, num_values: int) -> Tensor:
    """Bits per dimension of bytes whose values from -1 to 1 have a log density, in nats."""
    return -log_p / (num_values * math.log(2)) + OFFSET


def as_json(found: Likelihood) -> dict[str, Any]:
    """One flat record; `bits` has the number of every image."""
    change = found.halving_change
    return {
        "what": found.what,
        "nll": found.mean,
        "standard_error": found.standard_error,
        "probe_error": found.probe_error,
        "halving_change": change if math.isfinite(change) else None,
        **found.facts,
        "bits": found.images.tolist(),
    }


def lines_of(found: Likelihood) -> list[str]:
    """The number, and lines on what made it."""
    facts, error = found.facts, found.standard_error
    count, probes = facts["count"], facts["probes"]
    given = (
        "unconditional, by the null label" if facts["labels"] == "null label" else facts["labels"]
    )
    spread = f"standard error {error:.2g}, " if error is not None else ""
    images = f"{count} image{'s' * (count > 1)}"
    of_probes = "" if found.probe_error is None else f" (their error {found.probe_error:.2g})"
    return [
        f"nll: {found.mean:.4f} bits/dim ({spread}{images}, {given})",
        f"  made with {probes} probe{'s' * (probes > 1)} an image{of_probes}, {facts['calls']} "
        f"network calls in {facts['steps']} steps from sigma {facts['sigma_min']:g} to "
        f"{facts['sigma_max']:g}, network {facts['network']}",
        f"  half as many steps change an image by {found.halving_change:.2g}",
    ]
