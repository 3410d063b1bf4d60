"""What each metric of the table computes from a pass of the detector and a reference."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from metrics.evaluate import Evaluation
from metrics.frechet import frechet_distance
from metrics.kernel import kernel_distance
from metrics.manifold import precision_recall as manifold_overlap
from metrics.scores import NUM_SPLITS, classifier_score, probabilities, split_score
from metrics.table import METRICS

if TYPE_CHECKING:
    from metrics.reference import Reference


def measure(
    names: Sequence[str],
    found: Evaluation,
    reference: "Reference | None",
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Compute metrics.

    Args:
        names: keys of METRICS.
        found: what the detector saw of the images, with features if a metric needs them.
        reference: what they are compared with, with features if a metric needs them; None if no
            metric needs it.
        device: where to compute distances between features.

    Returns:
        The numbers by the names that the table gives them.
    """
    values: dict[str, float] = {}
    for name in names:
        values |= METRICS[name].load()(found, reference, torch.device(device))
    return values


def fid(found: Evaluation, reference: "Reference", device: torch.device) -> dict[str, float]:
    """Frechet distance of the Gaussians of the two sets."""
    return {"fid": frechet_distance(found.statistics.finalize(), reference.gaussian)}


def inception_score(
    found: Evaluation, reference: "Reference | None", device: torch.device
) -> dict[str, float]:
    """Score over 10 splits, with its deviation; and over all images at once, which is higher.

    With fewer images than splits there is only the latter.
    """
    assert found.logits is not None
    chances = probabilities(found.logits)
    whole = classifier_score(chances)
    if len(chances) < NUM_SPLITS:
        return {"is": whole, "is_all": whole}
    mean, std = split_score(chances)
    return {"is": mean, "is_std": std, "is_all": whole}


def kid(found: Evaluation, reference: "Reference", device: torch.device) -> dict[str, float]:
    """Kernel distance, mean and deviation over the subsets."""
    assert found.features is not None
    assert reference.features is not None
    mean, std = kernel_distance(found.features, reference.features, device=device)
    return {"kid": mean, "kid_std": std}


def precision_recall(
    found: Evaluation, reference: "Reference", device: torch.device
) -> dict[str, float]:
    """The share of the images near real ones, and of the real ones near images."""
    assert found.features is not None
    assert reference.features is not None
    precision, recall = manifold_overlap(found.features, reference.features, device=device)
    return {"precision": precision, "recall": recall}
