"""Noise schedules: from a time t in [0, 1] (0 clean, 1 noisiest) to sigma and back.

Schedules work on floats, numpy arrays and torch tensors alike, in the precision they are given.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class EDMSchedule:
    """The polynomial schedule of EDM: sigma^(1/rho) is linear in time.

    Karras et al. 2022, Eq. 5, with time running from 0 at `sigma_min` to 1 at `sigma_max`.

    Attributes:
        sigma_min: noise level at t = 0, positive.
        sigma_max: noise level at t = 1.
        rho: exponent; 7 spends most steps at small noise, 1 is linear in sigma.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def _ends(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def sigma(self, time: Any) -> Any:
        """Noise level at `time` in [0, 1]."""
        low, high = self._ends()
        return (low + time * (high - low)) ** self.rho

    def time(self, sigma: Any) -> Any:
        """Time in [0, 1] at which the noise level is `sigma`; inverse of `sigma`."""
        low, high = self._ends()
        return (sigma ** (1 / self.rho) - low) / (high - low)


def _expm1(x: Any) -> Any:
    return x.expm1() if isinstance(x, Tensor) else np.expm1(x)


def _log1p(x: Any) -> Any:
    return x.log1p() if isinstance(x, Tensor) else np.log1p(x)


@dataclass(frozen=True)
class VPSchedule:
    """The variance-preserving SDE with linear beta(t) = beta_min + beta_d t.

    Song et al. 2021 ("Score SDE"), Eq. 33, as sigma = s / alpha; Karras et al. 2022, Table 1.

    Attributes:
        beta_d: growth of beta over t in [0, 1].
        beta_min: beta at t = 0.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1

    def sigma(self, time: Any) -> Any:
        """Noise level at `time` in [0, 1], 0 at 0."""
        return _expm1(self.beta_d / 2 * time**2 + self.beta_min * time) ** 0.5

    def time(self, sigma: Any) -> Any:
        """Time at which the noise level is `sigma`; inverse of `sigma`.

        The root of the quadratic in the form that subtracts nothing, exact at small sigma too.
        """
        integral = _log1p(sigma**2)
        root = (self.beta_min**2 + 2 * self.beta_d * integral) ** 0.5
        return 2 * integral / (root + self.beta_min)


def iddpm_levels(num_steps: int = 1000, c_1: float = 0.001, c_2: float = 0.008) -> np.ndarray:
    """The noise levels of improved DDPM's cosine schedule (Nichol & Dhariwal 2021, Eq. 17).

    In the form of Karras et al. 2022, Table 1: entry 0 is pure noise, the last one is 0.

    Args:
        num_steps: M, the number of positive levels.
        c_1: least ratio of successive alpha_bar, which limits the first levels.
        c_2: offset of the cosine.

    Returns:
        u, float64 [M + 1], decreasing.
    """
    index = np.arange(num_steps + 1, dtype=np.float64)
    alpha_bar = np.sin(0.5 * math.pi * index / (num_steps * (c_2 + 1))) ** 2
    u = np.zeros(num_steps + 1)
    for j in range(num_steps, 0, -1):
        ratio = max(alpha_bar[j - 1] / alpha_bar[j], c_1)
        u[j - 1] = math.sqrt((u[j] ** 2 + 1) / ratio - 1)
    return u


def nearest_index(sigma: Tensor, levels: Tensor) -> Tensor:
    """Which entry of a table is nearest to each noise level, the first one of equals.

    Args:
        sigma: noise levels of any shape.
        levels: the table [K].

    Returns:
        Indices, int64 in the shape of sigma.
    """
    return torch.argmin((sigma[..., None] - levels).abs(), dim=-1)
