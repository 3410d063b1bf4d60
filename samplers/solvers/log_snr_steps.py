"""Steps in log-SNR, where the part of the ODE that is linear in x is solved exactly.

With lambda = -ln(sigma), half of the log-SNR, the probability-flow ODE is dx/dlambda = D - x. A
step of length h = ln(sigma / sigma_next), with u from 0 to 1 along it, is

    x_next = exp(-h) x + integral of kernel(u) D(u) du,   kernel(u) = h exp(-h (1 - u)).

Lu et al. 2022 ("DPM-Solver++"), Eq. 9, in x = y + sigma n.
"""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from samplers.solvers.multistep import quadrature_weights, weighted_sum

_ROUNDING = 1e-17


def log_snr_step(sigma: float, sigma_next: float) -> float:
    """h = ln(sigma / sigma_next), positive downwards; both levels are positive."""
    return math.log(sigma / sigma_next)


def kernel_moments(h: float, count: int) -> list[float]:
    """Integrals of h exp(-h (1 - u)) u^j from 0 to 1 for j = 0, ..., count - 1.

    By the series h exp(-h) sum_i h^i / (i! (i + j + 1)), whose terms are all positive. The papers'
    phi functions say the same, but their recursion cancels where h is small. Upwards, where h is
    negative, the series in -h has terms of one sign.
    """
    if h < 0:
        return [_moment_upwards(h, j) for j in range(count)]
    sums = [0.0] * count
    term, i = h * math.exp(-h), 0  # h^(i+1) exp(-h) / i!
    while term > _ROUNDING * sums[-1]:
        sums = [total + term / (i + j + 1) for j, total in enumerate(sums)]
        i += 1
        term *= h / i
    return sums


def _moment_upwards(h: float, j: int) -> float:
    """The same integral by h sum_i (-h)^i j! / (i + j + 1)!, for negative h."""
    total, term, i = 0.0, h / (j + 1), 0
    while abs(term) > _ROUNDING * abs(total):
        total += term
        i += 1
        term *= -h / (i + j + 1)
    return total


def exponential_step(
    x: Tensor,
    sigma: float,
    sigma_next: float,
    values: Sequence[tuple[float, Tensor]],
    moments: Callable[[float, int], list[float]] = kernel_moments,
) -> Tensor:
    """The step with D replaced by the polynomial through values of it.

    Args:
        x: state at `sigma`.
        sigma: current noise level.
        sigma_next: next one, positive.
        values: (noise level, D) of distinct levels.
        moments: the kernel's, as of `kernel_moments`, or what a method has in their place.

    Returns:
        State at `sigma_next`.
    """
    h = log_snr_step(sigma, sigma_next)
    places = [log_snr_step(sigma, level) / h for level, _ in values]
    weights = quadrature_weights(places, moments(h, len(places)))
    return math.exp(-h) * x + weighted_sum(weights, [denoised for _, denoised in values])
