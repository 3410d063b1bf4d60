"""Randomness as a function of progress: a generator's seed is a hash of what it is for.

seed = SeedSequence([seed, stream, k, m]).generate_state(1), so that resuming needs no saved
generator and a micro-batch draws the same numbers whichever process computes it.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What randomness is for. Numbers are part of every run's result: never reuse one."""

    INIT = 0  # initial weights
    ORDER = 1  # data order of an epoch
    STEP = 2  # quantities of the global batch
    MICRO = 3  # noise level, noise and label dropout of a micro-batch
    DROPOUT = 4  # the device's default generator while a micro-batch is computed
    AUGMENT = 5  # augmentation of a micro-batch, drawn on the CPU


def derive_seed(seed: int, stream: Stream, k: int = 0, m: int = 0) -> int:
    """A 32-bit generator seed.

    Args:
        seed: the run's seed.
        stream: what the randomness is for.
        k: images seen at the start of the step (or the epoch, for ORDER).
        m: index of the micro-batch within the step.
    """
    return int(np.random.SeedSequence([seed, int(stream), k, m]).generate_state(1)[0])
