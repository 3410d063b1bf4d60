"""A network to score: opened and checked before any image is generated."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from importers.opening import find_model, open_model, read_model
from models.snapshot import SnapshotInfo
from samplers.command_line import settings_of
from samplers.describe import ranges
from samplers.generate import some_seeds
from samplers.labels import LabelSource, label_source
from samplers.requests import LabelWords, check_seeds, requests
from samplers.sampling import Sampling, sampling_of
from samplers.starts import Sample
from scoring.generated import generated_share, join_shares, sampling_facts
from scoring.judge import Judge
from scoring.results import Scores
from torch_utils.addresses import is_url, shown
from torch_utils.distributed import World
from torch_utils.errors import Failure, UserError
from torch_utils.jsons import strict
from torch_utils.progress import Progress

if TYPE_CHECKING:
    from scoring.kept import Kept

NUM_SHOWN = 64  # images of a set that a report shows


@dataclass(frozen=True)
class Network:
    """A model with the settings to sample it.

    Attributes:
        path: the snapshot or foreign checkpoint.
        info: what it says of itself.
        sampling: the model and the settings.
        source: what labels are drawn from.
        remarks, warnings: lines about the settings.
    """

    path: Path
    info: SnapshotInfo
    sampling: Sampling
    source: LabelSource
    remarks: list[str]
    warnings: list[str]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its images."""
        height, width = self.sampling.denoiser.img_resolution
        return self.sampling.denoiser.img_channels, height, width


def open_network(
    path: str,
    options: Mapping[str, Any],
    world: World,
    guidance_network: str | None = None,
    model_config: str | None = None,
    *,
    is_sampled: bool = True,
) -> Network:
    """Load a network, and put it together with the options of a command line.

    Args:
        path: anything that `importers.opening.find_model` finds.
        options: of `samplers.command_line.sampler_options`; None where not given.
        world: the processes.
        guidance_network: another such model, to guide by.
        model_config: facts that the tensors of a foreign checkpoint do not tell.
        is_sampled: put the networks into the precision of the settings.

    Raises:
        UserError: no model, or settings that do not fit it.
    """
    model = read_model(find_model(path), model_config=model_config)
    info, has_guide = model.info, guidance_network is not None
    settings, remarks, warnings = settings_of(info.sampling, options, has_guide=has_guide)
    guide = None
    if guidance_network is not None:
        guide = open_model(find_model(guidance_network), world.device).denoiser
    sampling = sampling_of(settings, model.denoiser(world.device), guide)
    if is_sampled:
        sampling = sampling.at_precision(in_place=True)
    warnings += sampling.cautions(label_dropout=info.label_dropout)
    source = label_source(**info.labels)
    remarks = [*model.notes, *remarks, *sampling.notes]
    return Network(model.path, info, sampling, source, remarks, warnings)


def samples_of(network: Network, seeds: Sequence[int]) -> list[Sample]:
    """What to generate for some seeds: labels are drawn, as a published number wants it.

    Raises:
        UserError: labels cannot be drawn.
    """
    return [sample for sample, _ in requests(seeds, LabelWords(), network.source)]


def score_network(
    judge: Judge,
    network: Network,
    seeds: Sequence[int],
    *,
    what: str,
    batch: int = 64,
    rng_device: str = "cpu",
    kept: "Kept | None" = None,
    shown: list[np.ndarray] | None = None,
) -> Scores | None:
    """Generate an image a seed and score them. All processes must call.

    Args:
        judge: whose `check` has accepted the network.
        network: opened.
        seeds: one image each.
        what: the name of the result.
        batch: images that a process computes at once.
        rng_device: where random numbers are drawn.
        kept: where to keep the images; None to drop them.
        shown: gets the first images, for a report.

    Returns:
        The scores; None on processes beside the main one.

    Raises:
        Failure: images are not finite, or cannot be written.
    """
    start = time.monotonic()
    samples = samples_of(network, seeds)
    first, stop = judge.world.range_of(len(samples))
    is_main = judge.world.is_main
    with (
        Progress(stop - first, "generating and scoring", shown=is_main) as bar,
        contextlib.nullcontext() if kept is None else kept.writer(batch) as writer,
    ):

        def keep(position: int, picture: np.ndarray) -> None:
            if kept is not None and writer is not None:
                writer.write(kept.name(seeds[position]), picture)
            if shown is not None and len(shown) < NUM_SHOWN:
                shown.append(picture)

        share = generated_share(
            judge,
            network.sampling,
            samples,
            source=network.source,
            batch=batch,
            rng_device=rng_device,
            keep=keep if kept is not None or shown is not None else None,
            bar=bar,
        )
    judge.world.meet()
    found = join_shares(judge, share, len(samples))
    if found.lost:
        raise Failure(
            f"{len(found.lost)} of {len(samples)} images are not finite, of "
            f"{some_seeds([seeds[position] for position in found.lost])}: there is no score; the "
            "snapshot's weights or the sampler's settings are at fault"
        )
    if not is_main:
        return None
    facts = {
        **judge.facts(),
        "count": len(samples),
        "network": str(network.path),
        "images_seen": network.info.images,
        "ema": network.info.ema,
        **sampling_facts(network.sampling, samples),
        "rng_device": rng_device,
    }
    values = judge.measure(found.evaluation)
    facts["seconds"] = time.monotonic() - start
    return Scores(what, values, strict(facts))


def check_ranges(seed_ranges: Sequence[Sequence[int]]) -> list[str]:
    """Check that several ranges of seeds can be compared; returns warnings.

    Raises:
        UserError: a seed is in two ranges, or the ranges have different sizes.
    """
    sizes = sorted({len(seeds) for seeds in seed_ranges})
    if len(sizes) > 1:
        raise UserError(
            f"--seeds names ranges of {' and '.join(map(str, sizes))} images: numbers of different "
            "counts cannot be compared; give ranges of one size"
        )
    return check_seeds([seed for seeds in seed_ranges for seed in seeds])


def model_name(text: str) -> str:
    """What a model is called in results: as it was given, but without what may be a secret."""
    return shown(text) if is_url(text) else text


def name_of(text: str, seeds: Sequence[int], *, is_only: bool) -> str:
    """What the scores of a range are called: the model, with the seeds if there are several."""
    name = model_name(text)
    return name if is_only else f"{name}, seeds {ranges(seeds)}"


def score_ranges(
    judge: Judge,
    network: Network,
    seed_ranges: Sequence[Sequence[int]],
    *,
    name: str,
    batch: int = 64,
    rng_device: str = "cpu",
    kept: "Kept | None" = None,
) -> Iterator[Scores]:
    """Score a network once for each range of seeds; nothing on processes beside the main one."""
    for seeds in seed_ranges:
        scores = score_network(
            judge,
            network,
            seeds,
            what=name_of(name, seeds, is_only=len(seed_ranges) == 1),
            batch=batch,
            rng_device=rng_device,
            kept=kept,
        )
        if scores is not None:
            yield scores
