"""Distributions of the noise level in training.

Each maps a standard variate to sigma and knows its density in log-SNR, L = -2 ln(sigma).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffusion.schedules import VPSchedule
from torch_utils.errors import UserError


class NoiseLevel(Protocol):
    """A distribution of the noise level."""

    def sigma(self, variate: Tensor) -> Tensor:
        """Noise level of a standard variate (normal or uniform in [0, 1)), elementwise."""
        ...

    def draw(self, generator: torch.Generator, num: int) -> Tensor:
        """Draw `num` noise levels, float32 [num], on the generator's device."""
        ...

    def log_density(self, log_snr: Tensor) -> Tensor:
        """ln p(L) of the log-SNR L = -2 ln(sigma); -inf where p is 0."""
        ...


@dataclass(frozen=True)
class LogNormal:
    """ln(sigma) ~ N(P_mean, P_std^2). Karras et al. 2022 ("EDM"), Table 1.

    Raises:
        UserError: P_std is not positive.
    """

    P_mean: float = -1.2
    P_std: float = 1.2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.P_mean) and math.isfinite(self.P_std) and self.P_std > 0):
            raise UserError(
                f"noise level lognormal: P_mean={self.P_mean}, P_std={self.P_std}: "
                "both must be finite and P_std positive"
            )

    def sigma(self, variate: Tensor) -> Tensor:
        """Noise level of a standard normal variate, elementwise."""
        return (self.P_mean + self.P_std * variate).exp()

    def draw(self, generator: torch.Generator, num: int) -> Tensor:
        """Draw `num` noise levels, float32 [num], on the generator's device."""
        return self.sigma(torch.randn(num, generator=generator, device=generator.device))

    def log_density(self, log_snr: Tensor) -> Tensor:
        """ln p(L) of the log-SNR L = -2 ln(sigma), which is normal with twice the width."""
        mean, std = -2 * self.P_mean, 2 * self.P_std
        return -0.5 * ((log_snr - mean) / std).square() - math.log(std * math.sqrt(2 * math.pi))


@dataclass(frozen=True)
class VPTime:
    """The noise level of a time uniform in [epsilon_t, 1] of the variance-preserving SDE.

    Song et al. 2021 ("Score SDE"); Karras et al. 2022 ("EDM"), Table 1, column VP.

    Raises:
        UserError: epsilon_t is not between 0 and 1.
    """

    epsilon_t: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 < self.epsilon_t < 1:
            raise UserError(f"noise level vp: epsilon_t is {self.epsilon_t}: it must be in (0, 1)")

    def sigma(self, variate: Tensor) -> Tensor:
        """Noise level of a variate uniform in [0, 1); 0 is the noisiest."""
        level: Tensor = VPSchedule().sigma(1 + variate * (self.epsilon_t - 1))
        return level

    def draw(self, generator: torch.Generator, num: int) -> Tensor:
        """Draw `num` noise levels, float32 [num], on the generator's device."""
        return self.sigma(torch.rand(num, generator=generator, device=generator.device))

    def log_density(self, log_snr: Tensor) -> Tensor:
        """ln p(L), from p(t) |dt/dL| with dL/dt = -beta(t) (1 + 1/sigma^2)."""
        schedule = VPSchedule()
        time = schedule.time((-log_snr / 2).exp())
        beta = schedule.beta_min + schedule.beta_d * time
        inside = (time >= self.epsilon_t) & (time <= 1)
        density = 1 / ((1 - self.epsilon_t) * beta * (1 + log_snr.exp()))
        return torch.where(inside, density, 0.0).log()


@dataclass(frozen=True)
class LogUniform:
    """ln(sigma) uniform between two levels. Karras et al. 2022 ("EDM"), Table 1, column VE.

    Raises:
        UserError: the range is empty or not positive.
    """

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise UserError(
                f"noise level log_uniform: from {self.sigma_min} to {self.sigma_max}: "
                "sigma_min must be positive and below sigma_max"
            )

    def sigma(self, variate: Tensor) -> Tensor:
        """Noise level of a variate uniform in [0, 1)."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** variate

    def draw(self, generator: torch.Generator, num: int) -> Tensor:
        """Draw `num` noise levels, float32 [num], on the generator's device."""
        return self.sigma(torch.rand(num, generator=generator, device=generator.device))

    def log_density(self, log_snr: Tensor) -> Tensor:
        """ln p(L), constant between the two ends."""
        low, high = -2 * math.log(self.sigma_max), -2 * math.log(self.sigma_min)
        inside = (log_snr >= low) & (log_snr <= high)
        return torch.where(inside, -math.log(high - low), -math.inf)
