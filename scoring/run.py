"""From something to score to its scores: images on disk, a network, or several of either."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from importers.opening import is_model
from metrics.reference import Reference, reference_of
from scoring.images import Images, open_images
from scoring.judge import Criteria, Judge, Subject
from scoring.network import NUM_SHOWN, Network, model_name, open_network, score_network
from scoring.report import Subject as ReportSubject
from scoring.results import Scores
from torch_utils.distributed import World


def score_images(
    judge: Judge, images: Images, *, what: str, batch: int = 64, subset_seed: int = 0
) -> Scores | None:
    """Score images that exist. All processes must call.

    Args:
        judge: who has accepted them.
        images: what to score.
        what: the name of the result.
        batch: images that are read at a time.
        subset_seed: what chose them, if there are more.

    Returns:
        The scores; None on processes beside the main one.
    """
    start = time.monotonic()
    found = judge.evaluate_images(images, batch)
    if not judge.world.is_main:
        return None
    values = judge.measure(found)
    facts = {
        "count": len(images),
        "images": what,
        "subset_seed": subset_seed,
        **judge.facts(),
        "seconds": time.monotonic() - start,
    }
    return Scores(what, values, facts)


def make_reference(
    images: Images,
    criteria: Criteria,
    world: World,
    *,
    batch: int = 64,
    keep_features: bool = False,
) -> Reference:
    """Compute the statistics of all images of a set. All processes must call.

    Args:
        images: the set.
        criteria: of which the detector and its weights count.
        world: the processes, which share the work.
        batch: images that are read at a time.
        keep_features: keep those of every image too.

    Raises:
        UserError: the detector does not take such images, or has no weights.
    """
    detector = criteria.load_detector(world.device)
    judge = Judge(detector, ("kid",) if keep_features else ("fid",), world)
    found = judge.evaluate_images(images, batch)
    key = images.content_key() if world.is_main else ""
    return reference_of(found, detector, images.name, images.image_shape, key)


@dataclass
class Entry:
    """Something to compare: images, or a network with seeds.

    Attributes:
        name: the path that was given.
        images: the set of images; None for a network.
        network: opened; None for images.
        seeds: of the network.
        shown: images for a report, uint8 [C, H, W].
    """

    name: str
    images: Images | None = None
    network: Network | None = None
    seeds: Sequence[int] = ()
    shown: list[np.ndarray] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """Lines about the settings of a network."""
        return [] if self.network is None else self.network.warnings

    @property
    def remarks(self) -> list[str]:
        """Lines on how the settings of a network were read, with its name."""
        found = [] if self.network is None else self.network.remarks
        return [f"{self.name}: {line}" for line in found]

    @property
    def subject(self) -> Subject:
        """What is known of it before the work."""
        if self.images is not None:
            return Subject(self.name, self.images.image_shape, len(self.images))
        assert self.network is not None
        return Subject(self.name, self.network.image_shape, len(self.seeds))

    def reported(self, rows: list[Scores], stats: list[dict[str, Any]] | None) -> ReportSubject:
        """Its part of a report: scores, pictures, and statistics of training if there are any."""
        pictures = np.stack(self.shown) if self.shown else None
        return ReportSubject(self.name, rows, pictures, stats)


def open_entry(
    path: str, num: int, options: Mapping[str, Any], world: World, *, seed: int = 0
) -> Entry:
    """Open a folder, data set, model or run directory.

    Args:
        path: what was given; a model may be a URL or a name.
        num: images to score; of a network, seeds 0 to num - 1.
        options: of the sampler, for networks.
        world: the processes.
        seed: picks the subset if there are more images.

    Raises:
        UserError: it cannot be used, or has fewer images.
    """
    if is_model(path):
        opened = open_network(path, options, world)
        return Entry(model_name(path), network=opened, seeds=range(num))
    return Entry(path, images=open_images(path, num, seed))


def score_entry(judge: Judge, entry: Entry, *, batch: int, rng_device: str) -> Scores | None:
    """Score one thing to compare, and keep some of its images. All processes must call."""
    if entry.network is not None:
        return score_network(
            judge,
            entry.network,
            entry.seeds,
            what=entry.name,
            batch=batch,
            rng_device=rng_device,
            shown=entry.shown,
        )
    assert entry.images is not None
    if judge.world.is_main:
        entry.shown += _spread(entry.images)
    return score_images(judge, entry.images, what=entry.name, batch=batch)


def _spread(images: Images) -> list[np.ndarray]:
    """Some images, evenly spread over the set, whose folders are often classes."""
    num = min(NUM_SHOWN, len(images))
    places = [i * len(images) // num for i in range(num)]
    return [next(iter(images.batches(1, place, place + 1)))[0] for place in places]
