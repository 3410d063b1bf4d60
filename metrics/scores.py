"""Classifier score exp(mean KL(p(y|x) || p(y))) (Salimans et al., 2016), in float64.

With Inception's probabilities this is the Inception score; with any other detector's it is
printed as `classifier score (NAME)`, see `metrics.detectors.score_name`.
"""

import itertools

import numpy as np

from torch_utils.errors import UserError

NUM_SPLITS = 10
SPLIT_SEED = 2020  # permutation and splits of the published Inception scores (torch-fidelity)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Class probabilities, float64 [N, K]: the softmax of logits [N, K], computed in float64."""
    import scipy.special  # where it is needed: it takes long to load

    chances: np.ndarray = scipy.special.softmax(np.asarray(logits, dtype=np.float64), axis=1)
    return chances


def classifier_score(probabilities: np.ndarray) -> float:
    """The score over all images at once.

    Args:
        probabilities: [N, K], rows sum to 1, N >= 1.

    Returns:
        A number from 1 (every image has the same class probabilities) to K (every image has one
        class without doubt, all classes equally often).
    """
    import scipy.special

    p = np.asarray(probabilities, dtype=np.float64)
    assert p.ndim == 2, p.shape
    # a mean of the smallest numbers there are could round to 0
    mean = np.maximum(p.mean(0), np.finfo(np.float64).tiny)
    divergence = scipy.special.rel_entr(p, mean).sum(1)
    return float(np.exp(divergence.mean()))


def split_score(
    probabilities: np.ndarray, num_splits: int = NUM_SPLITS, seed: int = SPLIT_SEED
) -> tuple[float, float]:
    """The score over each of `num_splits` parts of the permuted images.

    Part i holds the permuted images from i N // num_splits on. The result depends on the order
    of the images, so `probabilities` must be in the order of the data set.

    Args:
        probabilities: [N, K], rows sum to 1.
        num_splits: number of parts.
        seed: of the permutation, numpy's RandomState.

    Returns:
        Mean and population standard deviation over the parts.

    Raises:
        UserError: fewer images than parts.
    """
    num = len(probabilities)
    if num < num_splits:
        raise UserError(f"a score over {num_splits} splits needs as many images, got {num}")
    order = np.random.RandomState(seed).permutation(num)
    edges = [i * num // num_splits for i in range(num_splits + 1)]
    parts = [order[start:stop] for start, stop in itertools.pairwise(edges)]
    scores = [classifier_score(probabilities[part]) for part in parts]
    return float(np.mean(scores)), float(np.std(scores))
