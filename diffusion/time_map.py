"""Time and scale in which the ablation sampler of EDM takes its steps.

Karras et al. 2022 ("EDM"), Eq. 4 and Table 1: a solver may step in a time t with noise level
sigma(t) and on a scaled state s(t) x. Unlike a `Schedule`, a map has derivatives, covers t > 0 up
to where sigma ends, and its sigma(0) = 0 is where sampling ends. All in host floats.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

Function = Callable[[float], float]


@dataclass(frozen=True)
class TimeMap:
    """sigma(t) and s(t) with their derivatives.

    Attributes:
        sigma: noise level at t > 0.
        dsigma: its derivative.
        inverse: t at a positive noise level.
        s: scale of the state.
        ds: its derivative.
    """

    sigma: Function
    dsigma: Function
    inverse: Function
    s: Function = lambda t: 1.0
    ds: Function = lambda t: 0.0


def vp_sigma(t: float, beta_d: float, beta_min: float) -> float:
    """Noise level of the VP SDE at time t: ln(1 + sigma^2) = beta_d t^2 / 2 + beta_min t."""
    return math.sqrt(math.expm1(beta_d / 2 * t**2 + beta_min * t))


def fit_vp(sigma_min: float, sigma_max: float, epsilon_s: float = 1e-3) -> TimeMap:
    """The VP schedule with sigma(epsilon_s) = sigma_min and sigma(1) = sigma_max, without scaling.

    EDM, Table 1, with both betas fitted. Either may be negative. EDM's range has a negative
    beta_min: there is no level just above t = 0. A large sigma_min has a negative beta_d: sigma
    falls again before t = 1. The inverse is taken where sigma grows.
    """
    low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
    beta_d = 2 * (low / epsilon_s - high) / (epsilon_s - 1)
    beta_min = high - beta_d / 2

    def sigma(t: float) -> float:
        return vp_sigma(t, beta_d, beta_min)

    def dsigma(t: float) -> float:
        level = sigma(t)
        return (beta_min + beta_d * t) * (level + 1 / level) / 2

    def inverse(level: float) -> float:
        integral = math.log1p(level**2)
        root = math.sqrt(beta_min**2 + 2 * beta_d * integral)
        # the form of the root that subtracts nothing
        return 2 * integral / (root + beta_min) if beta_min > 0 else (root - beta_min) / beta_d

    return TimeMap(sigma, dsigma, inverse)


VE = TimeMap(math.sqrt, lambda t: 0.5 / math.sqrt(t), lambda sigma: sigma**2)
LINEAR = TimeMap(lambda t: t, lambda t: 1.0, lambda sigma: sigma)


def by_names(
    schedule: str,
    scaling: str,
    sigma_min: float = math.nan,
    sigma_max: float = math.nan,
    epsilon_s: float = 1e-3,
) -> TimeMap:
    """Build a map. EDM, Table 1, rows schedule and scaling.

    Args:
        schedule: vp, ve (sigma = sqrt(t)) or linear (sigma = t).
        scaling: vp (s = 1 / sqrt(1 + sigma^2)) or none (s = 1).
        sigma_min, sigma_max, epsilon_s: what vp is fitted to; not used by others.
    """
    assert schedule in ("vp", "ve", "linear"), schedule
    assert scaling in ("vp", "none"), scaling
    plain = {"ve": VE, "linear": LINEAR}.get(schedule) or fit_vp(sigma_min, sigma_max, epsilon_s)
    return plain if scaling == "none" else _preserving(plain)


def _preserving(plain: TimeMap) -> TimeMap:
    """The same times on a state of constant variance: s = 1 / sqrt(1 + sigma^2)."""

    def s(t: float) -> float:
        return 1 / math.sqrt(1 + plain.sigma(t) ** 2)

    def ds(t: float) -> float:
        return -plain.sigma(t) * plain.dsigma(t) * s(t) ** 3

    return TimeMap(plain.sigma, plain.dsigma, plain.inverse, s, ds)
