"""Scores of the averaged weights during training: the numbers that `fid.py gen` gives.

A score is bounded work, shared by all processes, and it can be dropped at any network call. It
draws from generators of its own, so the weights are the same with and without scores.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metrics.detectors import Features, check_weights
from metrics.names import key_name
from metrics.table import METRICS, check_count, choose_metrics
from samplers.labels import LabelSource
from samplers.requests import LabelWords, requests
from samplers.sampling import Sampling
from scoring.generated import Share, generated_share, join_shares, sampling_facts
from scoring.judge import Criteria, Judge, Subject
from scoring.judging import judge_of
from scoring.results import Scores, made_with
from torch_utils.devices import finish
from torch_utils.distributed import World
from torch_utils.errors import UserError
from torch_utils.jsons import strict
from torch_utils.no_memory import is_out_of_memory, shortage
from torch_utils.progress import Progress
from training.clock import duration
from training.config import ResolvedConfig, TrainingConfig
from training.data import TrainingData
from training.droppable import unless_stopped
from training.evaluate_config import EvaluateConfig
from training.run_log import SCORE_PREFIX
from training.tally import finite


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Errors within the block name the section of the config."""
    try:
        yield
    except UserError as error:
        raise UserError(f"evaluate: {error}") from None


@dataclass(frozen=True)
class TrainingImages:
    """The training images as `scoring.images.Images`, without mirrored copies."""

    data: TrainingData

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.data.name

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.data.image_shape

    def __len__(self) -> int:
        return len(self.data.images)

    def batches(
        self, batch_size: int, first: int = 0, stop: int | None = None
    ) -> Iterator[np.ndarray]:
        """The images first <= i < stop in order, uint8 [n, C, H, W]."""
        stop = len(self) if stop is None else stop
        for start in range(first, stop, batch_size):
            yield self.data.images[start : min(start + batch_size, stop)].cpu().numpy()

    def content_key(self) -> str:
        """A name for their content: 32 hexadecimal digits."""
        if self.data.key is None:
            digest = hashlib.sha256(repr(tuple(self.data.images.shape)).encode())
            for batch in self.batches(1024):
                digest.update(batch.tobytes())
            return digest.hexdigest()[:32]
        num, size, _, pixels, _ = self.data.key.split("/")
        return hashlib.sha256(f"training {num} {size} {pixels}".encode()).hexdigest()[:32]


def check_evaluation(config: TrainingConfig) -> None:
    """Check names and counts of the section `evaluate`, without loading anything.

    Raises:
        UserError: an unknown name, a metric that the detector cannot give, or too few images.
    """
    wanted = config.evaluate
    if wanted.enabled:
        with _named():
            choose_metrics(wanted.metrics, wanted.detector)
            check_count(wanted.metrics, wanted.num_images, "num_images")
            check_weights(wanted.detector, wanted.weights)


def judge_for(config: ResolvedConfig, data: TrainingData, world: World) -> Judge | None:
    """Load the detector and the reference of the section `evaluate`. All processes must call.

    The training data as a reference is computed once, and found in the cache from then on.

    Args:
        config: of the run.
        data: what it is trained on.
        world: the processes.

    Returns:
        What scores images; None if none are to be scored.

    Raises:
        UserError: no weights, a reference that cannot be used, or images that do not fit either.
    """
    wanted = config.evaluate
    if not wanted.enabled:
        return None
    criteria = Criteria(
        detector=wanted.detector,
        weights=wanted.weights,
        metrics=wanted.metrics,
        reference=TrainingImages(data) if wanted.ref is None else wanted.ref,
    )
    subject = Subject("the run's images", data.image_shape, wanted.num_images)
    with _named():
        return judge_of(criteria, world, [subject], batch=wanted.batch)


class Scoring:
    """Scores the averaged weights of a run, each time with the same seeds.

    Attributes:
        deciding: the name in stats.jsonl of the number by which snapshots are compared, and whether
            a smaller one is better.
    """

    def __init__(
        self, config: EvaluateConfig, judge: Judge, sampling: Sampling, source: LabelSource
    ) -> None:
        """Put together what every score needs.

        Args:
            config: the section `evaluate`.
            judge: of `judge_for`.
            sampling: the average with the recipe's sampler; its weights may change.
            source: what labels are drawn from.

        Raises:
            UserError: labels cannot be drawn.
        """
        self._config, self._judge = config, judge
        self._sampling, self._source = sampling, source
        seeds = range(config.seed, config.seed + config.num_images)
        self._samples = [sample for sample, _ in requests(seeds, LabelWords(), source)]
        self._seconds: float | None = None
        first = METRICS[config.metrics[0]]
        name = key_name(first.values[0], config.detector, config.num_images)
        self.deciding = f"{SCORE_PREFIX}{name}", first.is_distance

    def opening(self) -> list[str]:
        """Warnings about the numbers to come."""
        return [f"evaluate: {line}" for line in self._judge.cautions(len(self._samples))]

    def forecast(self) -> str:
        """What a score will cost: the time of the last one, or an estimate from a single batch."""
        known = self._seconds
        seconds = self._estimate() if known is None else known
        calls = self._sampling.settings.num_calls
        return f"{len(self._samples):,} images, {calls} calls each, about {_in_time(seconds)}"

    def _estimate(self) -> float:
        """Seconds for this process's share: so many batches of network calls and features."""
        sampling, detector = self._sampling, self._judge.detector
        model, device = sampling.denoiser, self._judge.world.device
        first, stop = self._judge.world.range_of(len(self._samples))
        num = max(min(self._config.batch, stop - first), 1)
        shape = num, model.img_channels, *model.img_resolution
        sigma = sampling.sigmas[0]
        x = torch.zeros(shape, dtype=sampling.dtype, device=device)
        labels = torch.zeros(num, model.label_dim, device=device) if model.label_dim else None
        pictures = torch.zeros(shape, dtype=torch.uint8, device=device)
        with torch.inference_mode():
            call = _seconds_of(lambda: sampling.denoise(labels)(x, sigma), device)
            look = _seconds_of(lambda: detector(pictures), device)
        return (stop - first) / num * (sampling.settings.num_calls * call + look)

    def score(
        self,
        path: Path,
        seen: int,
        *,
        stop: Callable[[], bool] = lambda: False,
        has_bar: bool = False,
    ) -> Scores | str | None:
        """Generate images and score them. All processes must call.

        Args:
            path: the snapshot of the same weights.
            seen: images that they have seen.
            stop: asked at every network call; True in any process drops the score.
            has_bar: show progress on stderr.

        Returns:
            The scores, whose numbers the main process alone has; or a line about why there are
            none; or None if they were dropped.
        """
        start, world, num = time.monotonic(), self._judge.world, len(self._samples)

        def work(heed: Callable[[], None]) -> Share | str:
            try:
                return self._share(heed, has_bar=has_bar)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                return f"{shortage(error)}; lower evaluate.batch"

        share = unless_stopped(world, stop, work)
        if share is None:
            return None
        problem = share if isinstance(share, str) else ""
        if any(world.any(bool(problem))):
            return problem or "out of memory in another process; lower evaluate.batch"
        assert not isinstance(share, str)
        found = join_shares(self._judge, share, num)
        if found.lost:
            return f"{len(found.lost):,} of {num:,} images are not finite"
        values = self._judge.measure(found.evaluation) if world.is_main else {}
        self._seconds = time.monotonic() - start
        facts = {
            **self._judge.facts(),
            "count": num,
            "network": path.name,
            "images_seen": seen,
            **sampling_facts(self._sampling, self._samples),
            "rng_device": "cpu",
            "seconds": self._seconds,
        }
        return Scores(path.name, values, strict(facts))

    def _share(self, heed: Callable[[], None], *, has_bar: bool) -> Share:
        """This process's images, and what the detector saw of them."""
        world, detector = self._judge.world, self._judge.detector

        def extract(images: torch.Tensor) -> Features:
            heed()
            return detector.extract(images)

        first, stop = world.range_of(len(self._samples))
        with Progress(stop - first, "scoring", shown=world.is_main and has_bar) as bar:
            return generated_share(
                replace(self._judge, detector=replace(detector, extract=extract)),
                self._sampling,
                self._samples,
                source=self._source,
                batch=self._config.batch,
                callback=lambda *_: heed(),
                bar=bar,
            )


def _seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """How long some work takes, without what it takes once."""
    work()
    finish(device)
    start = time.monotonic()
    work()
    finish(device)
    return time.monotonic() - start


def rows_of(scores: Scores, seen: int) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Scores as `RunLog.record` takes them: number of images, value and its deviation."""
    values = scores.values
    entries = {
        f"{SCORE_PREFIX}{name}": {
            "num": scores.facts["count"],
            "mean": finite(values[value]),
            "std": finite(values.get(f"{value}_std", 0.0)),
        }
        for value, name in scores.names.items()
    }
    return entries, {"Progress/kimg": seen / 1e3}


def lines_of(scores: Scores, note: str = "") -> list[str]:
    """Scores for people: the numbers by the names of stats.jsonl, and what made them."""
    numbers = []
    for value, name in scores.names.items():
        std = scores.values.get(f"{value}_std")
        spread = "" if std is None else f" +- {std:.3g}"
        numbers.append(f"{name} {scores.values[value]:.5g}{spread}")
    reference, parts = scores.facts["reference"], [_in_time(scores.facts["seconds"])]
    if reference is not None:
        count = reference["count"] or "unknown number of"
        parts.insert(0, f"vs {reference['name']} ({count} images)")
    return [f"{', '.join(numbers)}   {', '.join(parts)}{note}", made_with(scores)]


def _in_time(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 10 else duration(seconds)
