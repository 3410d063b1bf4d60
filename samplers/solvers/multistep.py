"""Weights of multistep methods: integrals of the polynomial through old values, times a kernel.

A step from u = 0 to u = 1 has values at places u_k <= 0, and a corrector one at u = 1. The integral
of kernel(u) times the Lagrange polynomial through them is sum_k w_k value_k. The weights are right
for each power of u, sum_k w_k u_k^j = moment_j, so they follow from the kernel's moments. With
kernel 1 these are the methods of Adams; `samplers.solvers.log_snr_steps` has the other kernel.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor


def even_moments(count: int) -> list[float]:
    """Integrals of u^j from 0 to 1 for j = 0, ..., count - 1."""
    return [1 / (power + 1) for power in range(count)]


def quadrature_weights(places: Sequence[float], moments: Sequence[float]) -> list[float]:
    """The weights of values at `places` that integrate polynomials of a lower degree exactly.

    Args:
        places: distinct u_k, as many as there are values.
        moments: integrals of kernel(u) u^j from 0 to 1, as many.
    """
    powers = np.vander(np.array(places), increasing=True).T
    weights: list[float] = np.linalg.solve(powers, np.array(moments)).tolist()
    return weights


def weighted_sum(weights: Iterable[float], values: Iterable[Tensor]) -> Tensor:
    """sum_k w_k value_k, of at least one value."""
    terms = [weight * value for weight, value in zip(weights, values, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
