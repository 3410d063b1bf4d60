"""Distributions of the noise level in training.

Each maps a standard variate to sigma and knows its density in log-SNR, L = -2 ln(sigma).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.schedules import Schedule, VPSchedule
from diffusion.tables import Table
from torch_utils.errors import UserError


class NoiseLevel(ABC):
    """A distribution of the noise level.

    Attributes:
        is_normal: the standard variate is normal; else uniform in [0, 1).
        has_density: the distribution has a density in log-SNR.
    """

    is_normal: ClassVar[bool] = False
    has_density: ClassVar[bool] = True

    @abstractmethod
    def sigma(self, variate: Tensor) -> Tensor:
        """Noise level of a standard variate, elementwise."""

    @abstractmethod
    def log_density(self, log_snr: Tensor) -> Tensor:
        """ln p(L) of the log-SNR L = -2 ln(sigma); -inf where p is 0."""


@dataclass(frozen=True)
class LogNormal(NoiseLevel):
    """ln(sigma) ~ N(P_mean, P_std^2). Karras et al. 2022 ("EDM"), Table 1."""

    is_normal = True

    P_mean: float
    P_std: float

    def sigma(self, variate: Tensor) -> Tensor:
        """Noise level of a standard normal variate, elementwise."""
        return (self.P_mean + self.P_std * variate).exp()

    def log_density(self, log_snr: Tensor) -> Tensor:
        """ln p(L) of the log-SNR L = -2 ln(sigma), which is normal with twice the width."""
        mean, std = -2 * self.P_mean, 2 * self.P_std
        return -0.5 * ((log_snr - mean) / std).square() - math.log(std * math.sqrt(2 * math.pi))


@dataclass(frozen=True)
class VPTime(NoiseLevel):
    """The noise level of a time uniform in [epsilon_t, 1] of the variance-preserving SDE.

    Song et al. 2021 ("Score SDE"); Karras et al. 2022 ("EDM"), Table 1, column VP.
    """

    epsilon_t: float = 1e-5

    def sigma(self, variate: Tensor) -> Tensor:
        """Noise level of a variate uniform in [0, 1); 0 is the noisiest."""
        level: Tensor = VPSchedule().sigma(1 + variate * (self.epsilon_t - 1))
        return level

    def log_density(self, log_snr: Tensor) -> Tensor:
        """ln p(L), from p(t) |dt/dL| with dL/dt = -beta(t) (1 + 1/sigma^2)."""
        return _log_density_of_time(VPSchedule(), log_snr, self.epsilon_t)


@dataclass(frozen=True)
class LogUniform(NoiseLevel):
    """ln(sigma) uniform between two levels. Karras et al. 2022 ("EDM"), Table 1, column VE.

    Raises:
        UserError: the range is empty.
    """

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def __post_init__(self) -> None:
        if not self.sigma_min < self.sigma_max:
            raise UserError(
                f"noise level log_uniform: sigma_min={self.sigma_min:g} must be below"
                f" sigma_max={self.sigma_max:g}"
            )

    def sigma(self, variate: Tensor) -> Tensor:
        """Noise level of a variate uniform in [0, 1)."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** variate

    def log_density(self, log_snr: Tensor) -> Tensor:
        """ln p(L), constant between the two ends."""
        low, high = -2 * math.log(self.sigma_max), -2 * math.log(self.sigma_min)
        slack = 1e-6 * (high - low)  # of levels that were rounded to float32
        inside = (log_snr >= low - slack) & (log_snr <= high + slack)
        return torch.where(inside, -math.log(high - low), -math.inf)


@dataclass(frozen=True, eq=False)
class Discrete(NoiseLevel):
    """A uniform step of a discrete schedule. Ho et al. 2020 ("DDPM"), Eq. 14.

    Raises:
        UserError: the schedule is continuous.
    """

    has_density = False

    schedule: Schedule

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, Table):
            raise UserError(
                "noise level discrete needs a schedule of steps, e.g. beta_linear: for a continuous"
                " one take uniform_time"
            )

    @property
    def table(self) -> Table:
        """The schedule, of which it is known that it is discrete."""
        assert isinstance(self.schedule, Table)
        return self.schedule

    def sigma(self, variate: Tensor) -> Tensor:
        """Noise level of a variate uniform in [0, 1)."""
        index = (variate.double() * self.table.num_steps).long()
        return self.table.at(index).to(variate.dtype)

    def log_density(self, log_snr: Tensor) -> Tensor:
        """Not for a distribution over steps, which has no density: `has_density` is False."""
        raise AssertionError("a discrete distribution has no density")


@dataclass(frozen=True, eq=False)
class UniformTime(NoiseLevel):
    """A uniform time of a schedule. Kingma et al. 2021 ("VDM"), sec. 4; Salimans and Ho 2022.

    Attributes:
        schedule: from time to noise level.
        num_steps: 0 for all times in [0, 1); T for the times 1/T, 2/T, ..., 1.
    """

    schedule: Schedule
    num_steps: int = 0

    def sigma(self, variate: Tensor) -> Tensor:
        """Noise level of a variate uniform in [0, 1)."""
        time = variate.double()
        if self.num_steps:
            time = ((time * self.num_steps).floor() + 1) / self.num_steps
        level: Tensor = self.schedule.sigma(time)
        return level.to(variate.dtype)

    def log_density(self, log_snr: Tensor) -> Tensor:
        """ln p(L) = ln |dt/dL| of continuous times; the limit of many even times."""
        return _log_density_of_time(self.schedule, log_snr, 0.0)


def _log_density_of_time(schedule: Schedule, log_snr: Tensor, first: float) -> Tensor:
    """ln p(L) of a time uniform in [first, 1]: the derivative of t(L), by forward-mode AD."""

    def time_at(value: Tensor) -> Tensor:
        time: Tensor = schedule.time((value / -2).exp())
        return time

    value = log_snr.double()
    time, slope = torch.func.jvp(time_at, (value,), (torch.ones_like(value),))[:2]
    slack = 1e-6  # of levels that were rounded to float32
    inside = (time >= first - slack) & (time <= 1 + slack)
    density = torch.where(inside, slope.abs() / (1 - first), 0.0)
    return density.log().to(log_snr.dtype)
