"""Frechet distance of two Gaussians (Dowson and Landau, 1982; Heusel et al., 2017).

It uses symmetric eigenvalues instead of the square root of the non-symmetric product S1 S2: that is
faster, real by construction, and exact also if a covariance is singular (fewer images than
features), where a square root loses half the digits.
"""

import numpy as np

from metrics.statistics import Gaussian


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    With factors S1 = R1 R1^T and S2 = R2 R2^T, the eigenvalues of S1 S2 other than 0 are those of
    the symmetric M M^T, M = R1^T R2, so that the trace of the root is the sum of their square
    roots. It is the same for M^T M; the smaller one has no eigenvalues that are 0 up to rounding,
    whose roots would be 1e-8.

    Args:
        first: one Gaussian, F features.
        second: the other one, F features.

    Returns:
        The (squared) distance, in squared units of the features; at least 0, 0 for equal ones.
    """
    import scipy.linalg  # where it is needed: it takes long to load

    assert first.mu.shape == second.mu.shape, (first.mu.shape, second.mu.shape)
    product = _factor(first.sigma).T @ _factor(second.sigma)
    if product.shape[0] > product.shape[1]:
        product = product.T
    eigenvalues = scipy.linalg.eigvalsh(product @ product.T)
    trace_of_root = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    offset = first.mu - second.mu
    traces = np.trace(first.sigma) + np.trace(second.sigma)
    return max(float(offset @ offset + traces - 2 * trace_of_root), 0.0)


def _factor(sigma: np.ndarray) -> np.ndarray:
    """R [F, r] with R R^T = sigma: Cholesky with pivots, which ends at the rank r."""
    from scipy.linalg.lapack import dpstrf

    triangle, pivots, rank, _ = dpstrf(sigma, lower=1)
    factor: np.ndarray = np.empty([len(sigma), rank])
    factor[pivots - 1] = np.tril(triangle)[:, :rank]
    return factor
