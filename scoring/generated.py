"""Images that a network makes, scored without being written: the same numbers as through PNGs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metrics.evaluate import Evaluation
from samplers.describe import ranges
from samplers.generate import GeneratedBatch, generate, not_finite, to_uint8
from samplers.labels import LabelSource
from samplers.sampling import Sampling
from samplers.starts import Sample
from scoring.judge import Judge
from torch_utils.devices import Download
from torch_utils.progress import Progress

Callback = Callable[[int, float, Tensor, Tensor], None]


@dataclass(frozen=True)
class Generated:
    """What came of scoring generated images.

    Attributes:
        evaluation: what the detector saw of all images.
        lost: positions of the images that are not finite; if there are any, the evaluation means
            nothing.
    """

    evaluation: Evaluation
    lost: list[int]


@dataclass(frozen=True)
class Share:
    """What one process found.

    Attributes:
        part: what the detector saw of its images.
        is_lost: int32 [N] of all images: 1 for those of its own that are not finite.
    """

    part: Evaluation
    is_lost: Tensor


def generated_share(
    judge: Judge,
    sampling: Sampling,
    samples: Sequence[Sample],
    *,
    source: LabelSource | None = None,
    batch: int = 64,
    rng_device: str = "cpu",
    keep: Callable[[int, np.ndarray], None] | None = None,
    callback: Callback | None = None,
    bar: Progress | None = None,
) -> Share:
    """Generate this process's images and run the detector over them; does not communicate.

    Args:
        judge: whose `check` has accepted images of this model.
        sampling: settings and models.
        samples: seeds and labels of all images.
        source: what labels are drawn from; None for all classes of the model.
        batch: images that a process computes at once; does not change the numbers.
        rng_device: as in `generate`.
        keep: called with the position and the picture, uint8 [C, H, W], of each finite image.
        callback: called at every network call, like a sampler's; what it raises ends the work.
        bar: to count the images of this process.
    """
    first, stop = judge.world.range_of(len(samples))
    is_lost = torch.zeros(len(samples), dtype=torch.int32)
    num_steps = len(sampling.sigmas) - 1

    def watch(index: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        if callback is not None:
            callback(index, sigma, x, denoised)
        if bar is not None:
            bar.within(len(x), index / num_steps)

    def pictures(batches: Iterator[GeneratedBatch]) -> Iterator[Tensor]:
        position = first
        for made in batches:
            images = to_uint8(made.images)
            num, copies = len(images), [] if keep is None else [images]
            arriving = Download(not_finite(made.images), *copies)
            yield images  # the device has the detector's work, too, before anyone waits
            bad, *pictures = arriving.read()
            is_lost[position : position + num] = bad.int()
            for copy in pictures:
                for place, picture in enumerate(copy.numpy()):
                    if keep is not None and not bad[place]:
                        keep(position + place, picture)
            position += num
            if bar is not None:
                bar.update(num)

    batches = generate(
        sampling,
        samples[first:stop],
        source=source,
        batch_size=batch,
        rng_device=rng_device,
        callback=watch,
    )
    model = sampling.denoiser
    shape = model.img_channels, *model.img_resolution
    return Share(judge.share(pictures(batches), shape), is_lost)


def join_shares(judge: Judge, share: Share, num: int) -> Generated:
    """Put the shares of `num` images together. All processes must call."""
    found = judge.join(share.part, num)
    lost = judge.world.sum(share.is_lost)
    return Generated(found, lost.nonzero().flatten().tolist())


def sampling_facts(sampling: Sampling, samples: Sequence[Sample]) -> dict[str, Any]:
    """What the images of a network depend on beside the network."""
    settings = sampling.settings
    return {
        "seeds": ranges([sample.seed for sample in samples]),
        "sampler": settings.name,
        "steps": len(sampling.sigmas) - 1,
        "calls": settings.num_calls,
        "settings": settings.as_mapping(),
    }
