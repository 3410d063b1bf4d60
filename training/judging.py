"""What scores a run's images, made before the run directory: detector, metrics and reference."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from metrics.detectors import check_weights
from metrics.table import check_count, choose_metrics
from scoring.judge import Criteria, Judge, Subject
from scoring.judging import judge_of
from torch_utils.distributed import World
from torch_utils.errors import UserError
from training.config import ResolvedConfig, TrainingConfig
from training.data import TrainingData


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
