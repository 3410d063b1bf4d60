"""The order of training images: one permutation per epoch, a function of (seed, epoch)."""

from functools import lru_cache

import numpy as np

from torch_utils.seeding import Stream, derive_seed


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """The order of one epoch, int64 [num_images]."""
    return np.random.default_rng(derive_seed(seed, Stream.ORDER, epoch)).permutation(num_images)


def image_indices(seed: int, first: int, count: int, num_images: int) -> np.ndarray:
    """Indices of the images at positions first .. first + count - 1 of the endless stream.

    Args:
        seed: the run's seed.
        first: position, i.e. images seen before.
        count: how many.
        num_images: size of the data set.

    Returns:
        int64 [count].
    """
    positions = np.arange(first, first + count)
    epochs, offsets = np.divmod(positions, num_images)
    indices = np.empty(count, dtype=np.int64)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        indices[chosen] = permutation(seed, int(epoch), num_images)[offsets[chosen]]
    return indices
