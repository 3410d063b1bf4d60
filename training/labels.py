"""What a snapshot stores of the labels that it was trained on."""

import numpy as np
from torch import Tensor

MAX_EXAMPLES = 1000
MAX_NUMBERS = 1 << 18  # of all examples; as JSON some 2 MB


def label_examples(labels: Tensor | None, kind: str | None) -> list[list[float]] | None:
    """Labels of some training images, chosen by a fixed seed.

    Args:
        labels: of all training images, classes [N] or vectors [N, label_dim], or None.
        kind: class, vector or multi_hot.

    Returns:
        Up to `MAX_EXAMPLES` rows, fewer if they are long, each number the shortest that is the
        float32; None for classes, of which no examples are needed.
    """
    if labels is None or kind not in ("vector", "multi_hot"):
        return None
    num, width = labels.shape
    wanted = max(1, min(num, MAX_EXAMPLES, MAX_NUMBERS // width))
    chosen = np.random.RandomState(0).permutation(num)[:wanted]
    rows = labels.cpu().numpy()[chosen]
    return [[float(str(value)) for value in row] for row in rows]
