"""The table of metrics, each a function from what a detector saw to numbers. No torch here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metrics.detectors import row as detector_row
from torch_utils.errors import UserError
from torch_utils.registry import Row, lookup


@dataclass(frozen=True, kw_only=True)
class MetricRow(Row):
    """One row; its target is a function `(Evaluation, Reference, device) -> {value: number}`.

    Attributes:
        values: the names of its numbers, the one to compare models by first.
        is_distance: whether a smaller number is better.
        needs_classes: whether it needs the detector's logits.
        needs_reference: whether it compares with a reference at all.
        needs_features: whether it needs the features of every image, also of the reference.
        least: images that it needs, in either set.
    """

    values: tuple[str, ...]
    is_distance: bool = False
    needs_classes: bool = False
    needs_reference: bool = True
    needs_features: bool = False
    least: int = 2


METRICS: Mapping[str, MetricRow] = {
    "fid": MetricRow(
        target="metrics.measures:fid",
        summary="Frechet distance of Gaussians (Heusel et al., 2017)",
        values=("fid",),
        is_distance=True,
    ),
    "is": MetricRow(
        target="metrics.measures:inception_score",
        summary="classifier score over 10 splits (Salimans et al., 2016)",
        values=("is", "is_std", "is_all"),
        needs_classes=True,
        needs_reference=False,
        least=1,
    ),
    "kid": MetricRow(
        target="metrics.measures:kid",
        summary="unbiased kernel distance, 100 subsets of 1,000 (Binkowski et al., 2018)",
        values=("kid", "kid_std"),
        is_distance=True,
        needs_features=True,
        least=1000,
    ),
    "pr": MetricRow(
        target="metrics.measures:precision_recall",
        summary="precision and recall, k = 3 (Kynkaanniemi et al., 2019)",
        values=("precision", "recall"),
        needs_features=True,
        least=4,
    ),
}


def metric(name: str) -> MetricRow:
    """Look up a metric; the UserError for an unknown name suggests the nearest one."""
    return lookup("metric", METRICS, name)


def choose_metrics(names: Sequence[str] | None, detector: str) -> tuple[str, ...]:
    """The metrics to compute, in the order of the table.

    Args:
        names: what was asked for; None for what costs nothing beside the detector: the distance
            and, if the detector has classes, the score.
        detector: a key of DETECTORS.

    Raises:
        UserError: an unknown name, none at all, or a score of a detector without classes.
    """
    classifies = detector_row(detector).classifies
    if names is None:
        return ("fid", "is") if classifies else ("fid",)
    if not names:
        raise UserError(f"no metric was named: give some of {', '.join(METRICS)}")
    for name in names:
        if metric(name).needs_classes and not classifies:
            raise UserError(f"metric {name!r} needs classes, and detector {detector!r} has none")
    return tuple(name for name in METRICS if name in names)


def check_count(names: Sequence[str], count: int, whose: str) -> None:
    """Check that there are enough images.

    Args:
        names: the metrics.
        count: images of a set.
        whose: which set, for the message.

    Raises:
        UserError: too few for one of the metrics.
    """
    for name in names:
        least = METRICS[name].least
        if count < least:
            raise UserError(f"metric {name!r} needs {least:,} images, {whose} has {count:,}")
