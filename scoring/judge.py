"""A judge: a detector, metrics and a reference that fit each other, ready to score images."""

import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metrics import detectors
from metrics.detectors import Detector
from metrics.evaluate import Evaluation, combine, evaluate, num_features
from metrics.measures import measure
from metrics.reference import Reference
from metrics.table import METRICS, check_count
from scoring.images import Images
from torch_utils.distributed import World
from torch_utils.errors import UserError
from torch_utils.progress import Progress


@dataclass(frozen=True)
class Subject:
    """What is known of images before they are read or generated.

    Attributes:
        name: for people.
        image_shape: (C, H, W).
        count: how many there will be.
    """

    name: str
    image_shape: tuple[int, int, int]
    count: int


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """How to score, as a user says it.

    Attributes:
        detector: a key of DETECTORS.
        weights: a file of weights for it, instead of its own.
        metrics: keys of METRICS; None for the usual ones.
        reference: a file of statistics, a name, a URL, a folder or zip of images, or images; None
            if no metric needs one.
    """

    detector: str = detectors.DEFAULT
    weights: str | None = None
    metrics: Sequence[str] | None = None
    reference: str | Images | None = None

    def load_detector(self, device: torch.device) -> Detector:
        """Load the detector.

        Raises:
            UserError: an unknown name, or no weights.
        """
        options = detectors.check_weights(self.detector, self.weights)
        return detectors.load(self.detector, device, **options)


@dataclass(frozen=True)
class Judge:
    """What scores images; made by `scoring.judging`.

    Attributes:
        detector: loaded.
        metrics: keys of METRICS.
        world: the processes, which share the work.
        reference: what images are compared with; None if no metric needs it. Processes beside the
            main one may lack it.
    """

    detector: Detector
    metrics: tuple[str, ...]
    world: World
    reference: Reference | None = None

    @property
    def needs_features(self) -> bool:
        """Whether the features of every image are needed."""
        return any(METRICS[name].needs_features for name in self.metrics)

    def check(self, subject: "Subject") -> None:
        """Check before the work that images can be scored.

        Raises:
            UserError: too few, of a shape that the detector does not take, or of another shape than
                the reference's.
        """
        check_count(self.metrics, subject.count, subject.name)
        found = num_features(self.detector, subject.image_shape)
        if self.reference is None:
            return
        expected, name = self.reference.image_shape, self.reference.name
        if expected is not None:
            check_shape(subject, expected, name)
        known = len(self.reference.gaussian.mu)
        if found != known:
            shape = _in_words(subject.image_shape)
            raise UserError(
                f"{name} has {known} features ({self.detector.name}), {shape} images have {found}: "
                "use a reference of images of the same size"
            )

    def share(
        self, batches: Iterable[np.ndarray | Tensor], shape: tuple[int, int, int]
    ) -> Evaluation:
        """The pass over this process's images, without a word to the others.

        Args:
            batches: those of this process's share, uint8 [n, C, H, W].
            shape: (C, H, W).
        """
        return evaluate(self.detector, batches, shape, keep_features=self.needs_features)

    def join(self, part: Evaluation, num: int) -> Evaluation:
        """Put the shares of `num` images together. All processes must call."""
        first, _ = self.world.range_of(num)
        return combine(part, first, num, self.world)

    def evaluate_images(self, images: Images, batch: int) -> Evaluation:
        """The pass over a set of images, with a bar. All processes must call."""
        first, stop = self.world.range_of(len(images))
        with Progress(stop - first, images.name, shown=self.world.is_main) as bar:
            batches = _counted(images.batches(batch, first, stop), bar)
            part = self.share(batches, images.image_shape)
        return self.join(part, len(images))

    def measure(self, found: Evaluation) -> dict[str, float]:
        """The numbers; for the main process only."""
        return measure(self.metrics, found, self.reference, self.detector.device)

    def facts(self) -> dict[str, Any]:
        """What the numbers depend on beside the images."""
        reference = self.reference
        return {
            "detector": {
                "name": self.detector.name,
                "weights_sha256": self.detector.weights_sha256,
            },
            "metrics": list(self.metrics),
            "reference": None
            if reference is None
            else {
                "name": reference.name,
                "source": reference.source,
                "count": reference.num,
                "sha256": reference.sha256,
                "content_key": reference.content_key,
            },
            "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
        }

    def cautions(self, count: int) -> list[str]:
        """A line for each covariance that comes from too few images."""
        if "fid" not in self.metrics or self.reference is None:
            return []
        gaussian = self.reference.gaussian
        return bias_lines(len(gaussian.mu), {"": count, "the reference's ": self.reference.num})


def bias_lines(num_features: int, counts: dict[str, int | None]) -> list[str]:
    """A line for each set (whose -> images) that is too small for a distance without bias."""
    return [
        f"{whose}{count:,} images are too few for {num_features:,} features: the distance is "
        "biased upwards; compare it with those of as many images only"
        for whose, count in counts.items()
        if count is not None and count <= num_features
    ]


def check_shape(subject: Subject, expected: tuple[int, int, int], name: str) -> None:
    """Refuse images of another shape than the reference's."""
    if subject.image_shape != expected:
        raise UserError(
            f"{name} was made of {_in_words(expected)} images (channels x height x width), "
            f"{subject.name} are {_in_words(subject.image_shape)}: compare images of one shape"
        )


def _in_words(image_shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, image_shape))


def _counted(batches: Iterator[np.ndarray], bar: Progress) -> Iterator[np.ndarray]:
    for batch in batches:
        yield batch
        bar.update(len(batch))
