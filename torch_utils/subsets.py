"""Which images of a set are used if not all are: the published rule of EDM's `max_size`."""

import numpy as np


def subset_indices(num: int, max_size: int | None, seed: int = 0) -> np.ndarray:
    """Choose which images of a set to use.

    Args:
        num: images in the set.
        max_size: images to keep; None, or a number not below `num`, keeps all.
        seed: seed of the choice, taken modulo 2^31.

    Returns:
        int64 [min(num, max_size)], ascending.
    """
    indices = np.arange(num, dtype=np.int64)
    if max_size is not None and max_size < num:
        np.random.RandomState(seed % 2**31).shuffle(indices)
        indices = np.sort(indices[:max_size])
    return indices
