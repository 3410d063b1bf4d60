"""The reverse SDEs of a diffusion model, in the time of the polynomial grid, and their noise.

With v = sigma^(1/rho) and time t = -v, steps that are even on EDM's grid (Karras et al. 2022,
Eq. 5) are even in t, and sigma falls as t grows. For every g(t) >= 0,

    dx = kappa f(x, sigma) dt + g dW,   f = (x - D) / sigma,   kappa = sigma' - g^2 / (2 sigma),

has the marginals of the diffusion (Karras et al. 2022, Eq. 6). Here g^2 = -2 beta sigma sigma':
beta = 0 is the probability-flow ODE, beta = 1 the reverse SDE. The noise is additive, so a step of
order 1.5 needs only dW and its time integral dZ.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Increment = Tensor | float


@dataclass(frozen=True)
class Rates:
    """Coefficients at one noise level; a prime is d/dt with t = -sigma^(1/rho).

    Attributes:
        sigma, sigma_second: sigma' < 0 and sigma''.
        drift, drift_rate: kappa and kappa'.
        noise, noise_rate: g and g'.
    """

    sigma: float
    sigma_second: float
    drift: float
    drift_rate: float
    noise: float
    noise_rate: float


def rates(sigma: float, rho: float, beta: float) -> Rates:
    """The coefficients at noise level `sigma` > 0 for a noise of strength `beta` >= 0."""
    v: float = sigma ** (1 / rho)
    first = -rho * v ** (rho - 1)
    second = rho * (rho - 1) * v ** (rho - 2)
    g = math.sqrt(-2 * beta * sigma * first)
    return Rates(
        sigma=first,
        sigma_second=second,
        drift=(1 + beta) * first,
        drift_rate=(1 + beta) * second,
        noise=g,
        noise_rate=-(2 * rho - 1) / (2 * v) * g,
    )


def step_size(sigma: float, sigma_next: float, rho: float) -> float:
    """Length h > 0 of a step in t."""
    return float(sigma ** (1 / rho) - sigma_next ** (1 / rho))


def correlated(noise: Callable[[Tensor], Tensor], x: Tensor, h: float) -> tuple[Tensor, Tensor]:
    """(dW, dZ): a Wiener increment over h and the integral of W - W(start), from two draws.

    Covariance [[h, h^2/2], [h^2/2, h^3/3]] in every pixel; Kloeden and Platen 1992, sec. 10.4.
    """
    first, second = noise(x), noise(x)
    dZ = math.sqrt(h**3 / 3) * first
    dW = math.sqrt(3 * h) / 2 * first + math.sqrt(h) / 2 * second
    return dW, dZ


def parallel(noise: Callable[[Tensor], Tensor], x: Tensor, h: float) -> tuple[Tensor, Tensor]:
    """(dW, h dW / 2): what order 2 in law needs, from one draw. Kloeden and Platen, sec. 14.2."""
    dW = math.sqrt(h) * noise(x)
    return dW, h / 2 * dW
