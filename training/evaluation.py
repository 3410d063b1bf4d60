"""Scores of the averaged weights during training: the numbers that `fid.py gen` gives.

A score is bounded work, shared by all processes, and it can be dropped at any network call. It
draws from generators of its own, so the weights are the same with and without scores.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metrics.detectors import Features
from metrics.names import key_name
from metrics.table import METRICS
from samplers.labels import LabelSource
from samplers.requests import LabelWords, requests
from samplers.sampling import Sampling
from scoring.generated import Share, generated_share, join_shares, sampling_facts
from scoring.judge import Judge
from scoring.results import Scores, made_with
from torch_utils.devices import finish
from torch_utils.jsons import strict
from torch_utils.no_memory import is_out_of_memory, shortage
from torch_utils.progress import Progress
from training.clock import duration
from training.droppable import unless_stopped
from training.evaluate_config import EvaluateConfig
from training.run_log import SCORE_PREFIX
from training.tally import finite


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
            judge: of `training.judging.judge_for`.
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
        calls = self._sampling.settings.num_calls
        work = f"{len(self._samples):,} images, {calls} calls each"
        seconds = self._seconds
        if seconds is None:
            try:
                seconds = self._estimate()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                return work  # the score will say so
        return f"{work}, about {_in_time(seconds)}"

    def _estimate(self) -> float:
        """Seconds for this process's share: so many batches of network calls and features."""
        sampling, detector = self._sampling.at_precision(), self._judge.detector
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
                self._sampling.at_precision(),  # of the weights as they are now
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
