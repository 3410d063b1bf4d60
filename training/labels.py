"""Facts about the data's labels: for previews, and for snapshots, which outlive the data."""

import numpy as np
from torch import Tensor

from models.config import ModelConfig
from models.snapshot import SnapshotInfo
from samplers.labels import LabelSource, label_source
from training.config import ResolvedConfig
from training.data import TrainingData

MAX_EXAMPLES = 1000
MAX_NUMBERS = 1 << 18  # of all examples; as JSON some 2 MB


def label_examples(labels: Tensor | None, kind: str | None) -> list[list[float]] | None:
    """Labels of some training images, chosen by a fixed seed.

    Args:
        labels: of all training images, classes [N] or vectors [N, label_dim], or None.
        kind: class, vector or multi_hot.

    Returns:
        Up to `MAX_EXAMPLES` rows, fewer if they are long, each number as the shortest text that
        reads back as the float32; None for classes, which need no examples.
    """
    if labels is None or kind not in ("vector", "multi_hot"):
        return None
    num, width = labels.shape
    wanted = max(1, min(num, MAX_EXAMPLES, MAX_NUMBERS // width))
    chosen = np.random.RandomState(0).permutation(num)[:wanted]
    rows = labels.cpu().numpy()[chosen]
    return [[float(str(value)) for value in row] for row in rows]


def labels_of(data: TrainingData) -> LabelSource:
    """What labels of generated images are drawn from: those of the training images."""
    examples = label_examples(data.labels, data.label_kind)
    return label_source(
        data.label_dim, data.label_kind, present=data.present_classes, examples=examples
    )


def snapshot_info(
    config: ResolvedConfig, model: ModelConfig, data: TrainingData, seen: int
) -> SnapshotInfo:
    """The metadata of a snapshot that has seen `seen` images."""
    has_labels = bool(model.label_dim)
    names, present = data.label_names, data.present_classes
    return SnapshotInfo(
        model=model,
        sampling=config.sampler,
        label_names=list(names) if names and has_labels else None,
        label_kind=data.label_kind if has_labels else None,
        present_classes=list(present) if present is not None and has_labels else None,
        label_examples=label_examples(data.labels, data.label_kind),
        label_dropout=config.run.label_dropout if has_labels else None,
        images=seen,
        ema=config.ema.model_dump(mode="json"),
    )
