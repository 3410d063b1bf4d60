"""Frechet distance of two Gaussians (Dowson and Landau, 1982; Heusel et al., 2017).

It uses symmetric eigenvalues instead of the square root of the non-symmetric product S1 S2: that is
faster, and real by construction, even if a covariance is singular (fewer images than features).
"""

import numpy as np
import scipy.linalg

from metrics.statistics import Gaussian


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    With a factor S1 = R R^T, the eigenvalues of S1 S2 other than 0 are those of the symmetric
    R^T S2 R, so that the trace of the root is the sum of their square roots.

    Args:
        first: one Gaussian, F features.
        second: the other one, F features.

    Returns:
        The (squared) distance, in squared units of the features; at least 0, 0 for equal ones.
    """
    assert first.mu.shape == second.mu.shape, (first.mu.shape, second.mu.shape)
    root = _factor(first.sigma)
    product = root.T @ second.sigma @ root
    eigenvalues = scipy.linalg.eigvalsh((product + product.T) / 2)
    trace_of_root = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    offset = first.mu - second.mu
    traces = np.trace(first.sigma) + np.trace(second.sigma)
    return max(float(offset @ offset + traces - 2 * trace_of_root), 0.0)


def _factor(sigma: np.ndarray) -> np.ndarray:
    """R [F, r] with R R^T = sigma: Cholesky, or the eigenvectors whose values exceed rounding."""
    try:
        factor: np.ndarray = scipy.linalg.cholesky(sigma, lower=True)
        return factor
    except scipy.linalg.LinAlgError:
        eigenvalues, vectors = scipy.linalg.eigh(sigma)
    # Rounding leaves +-eps |sigma| where the eigenvalue is 0; its root would be 1e-8, not 1e-16.
    floor = len(sigma) * np.finfo(np.float64).eps * max(eigenvalues[-1], 0)
    keep = eigenvalues > floor
    kept: np.ndarray = vectors[:, keep] * np.sqrt(eigenvalues[keep])
    return kept
