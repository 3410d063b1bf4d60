"""A judge: a detector, metrics and a reference that fit each other, ready to score images.

Everything that can be wrong is found out here, before images are read or generated.
"""

import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metrics import detectors
from metrics.detectors import Detector
from metrics.evaluate import Evaluation, combine, evaluate, num_features
from metrics.foreign import open_reference
from metrics.measures import measure
from metrics.published import published, reference_address, reference_file, reference_name
from metrics.reference import Reference, no_features, reference_of
from metrics.reference_cache import cached_reference, store_reference
from metrics.table import METRICS, check_count, choose_metrics
from scoring.images import Images, open_images
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
    """What scores images; made by `judge_of`.

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
            _check_shape(subject, expected, name)
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


def judge_of(
    criteria: Criteria, world: World, subjects: Sequence[Subject], *, batch: int = 64
) -> Judge:
    """Load a detector and a reference, which is computed if it is a set of images.

    Args:
        criteria: how to score.
        world: the processes; all must call.
        subjects: what will be scored; it is checked before a reference is computed.
        batch: images that are read at a time.

    Raises:
        UserError: an unknown name, no weights, a reference that cannot be used, or as
            `Judge.check`.
    """
    reference = criteria.reference
    chosen = choose_metrics(criteria.metrics, criteria.detector)
    needing = [name for name in chosen if METRICS[name].needs_reference]
    if needing and reference is None:
        raise UserError(f"metric {needing[0]!r} needs a reference to compare with: give --ref")
    if needing and isinstance(reference, str):
        _check_published(reference, criteria.detector, chosen, subjects)
    judge = Judge(criteria.load_detector(world.device), chosen, world)
    for subject in subjects:
        judge.check(subject)
    if not needing or reference is None:
        return judge
    judge = _with_reference(judge, reference, subjects, batch)
    found = judge.reference
    if found is not None and found.num is not None:
        check_count(chosen, found.num, f"reference {found.name}")
    for subject in subjects:
        judge.check(subject)
    return judge


def _with_reference(
    judge: Judge, reference: str | Images, subjects: Sequence[Subject], batch: int
) -> Judge:
    """The judge with the reference that a user means."""
    if not isinstance(reference, str):
        return _with_computed(judge, reference, subjects, batch)
    path = reference_file(reference)
    found = open_reference(
        path,
        judge.detector.name,
        weights_sha256=judge.detector.weights_sha256,
        wants_features=judge.needs_features,
    )
    if isinstance(found, Reference):
        return replace(judge, reference=_as_published(found, reference))
    judge = _with_computed(judge, found or open_images(path), subjects, batch)
    if found is not None and found.gaussian is not None and judge.reference is not None:
        # statistics of the whole data set, of which the file has some images only
        return replace(judge, reference=replace(judge.reference, gaussian=found.gaussian))
    return judge


def _check_published(
    given: str, detector: str, metrics: Sequence[str], subjects: Sequence[Subject]
) -> None:
    """Refuse a published reference that cannot be used, before it or any weights are fetched."""
    row = published(given, detector=detector)
    if row is None:
        return
    if any(METRICS[name].needs_features for name in metrics):
        raise no_features(reference_name(given))
    for subject in subjects:
        _check_shape(subject, row.image_shape, reference_name(given))


def _as_published(found: Reference, given: str) -> Reference:
    """A reference with what its name or address says of it, and its file does not."""
    if reference_address(given) is None:
        return found
    found, row = replace(found, name=reference_name(given)), published(given)
    if row is None:
        return found
    gaussian = replace(found.gaussian, num=found.num or row.num)
    return replace(found, gaussian=gaussian, image_shape=row.image_shape)


def _with_computed(judge: Judge, images: Images, subjects: Sequence[Subject], batch: int) -> Judge:
    """The judge with the statistics of images: from the cache, else from a pass over all of them.

    All processes must call; after a hit in the cache the main one alone has the reference.
    """
    world, detector = judge.world, judge.detector
    judge.check(Subject(f"reference {images.name}", images.image_shape, len(images)))
    for subject in subjects:
        _check_shape(subject, images.image_shape, images.name)
    cached, key = None, ""
    if world.is_main:
        key = images.content_key()
        cached = cached_reference(key, detector.name, detector.weights_sha256, judge.needs_features)
    world.meet()  # the key of a large folder takes long
    (is_cached,) = world.any(cached is not None)
    if is_cached:
        return replace(judge, reference=cached)
    found = judge.evaluate_images(images, batch)
    made = reference_of(found, detector, images.name, images.image_shape, key)
    if world.is_main:
        store_reference(key, made)
    return replace(judge, reference=made)


def _check_shape(subject: Subject, expected: tuple[int, int, int], name: str) -> None:
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
