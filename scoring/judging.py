"""From what a user says to a judge: its detector loaded, its reference found, read or computed.

What can be wrong is found out here, before images are generated.
"""

from collections.abc import Sequence
from dataclasses import replace

from metrics.foreign import open_reference
from metrics.published import published, reference_address, reference_file, reference_name
from metrics.reference import Reference, no_features, reference_of
from metrics.reference_cache import cached_reference, store_reference
from metrics.table import METRICS, check_count, choose_metrics
from scoring.images import Images, open_images
from scoring.judge import Criteria, Judge, Subject, check_shape
from torch_utils.distributed import World
from torch_utils.errors import UserError


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
        check_shape(subject, row.image_shape, reference_name(given))


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
        check_shape(subject, images.image_shape, images.name)
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
