"""Noise schedules: from a time t in [0, 1] (0 clean, 1 noisiest) to sigma and back.

Schedules take floats, numpy arrays and torch tensors alike; they compute in float64 and answer in
the precision they were given. Noise levels are capped at log-SNR = +-20 (`legacy`: 20.72), so that
they are finite and positive at both ends. Formulas in log-SNR L = -2 ln(sigma) are for
alpha^2 = sigmoid(L).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from diffusion import MAX_LOG_SNR as MAX_LOG_SNR
from diffusion import SCHEDULES
from torch_utils.errors import UserError
from torch_utils.registry import resolve_entry

LEAST_SIGMA = math.exp(-MAX_LOG_SNR / 2)
LARGEST_SIGMA = math.exp(MAX_LOG_SNR / 2)
_ROUNDING = 1e-9  # a level this near to the cap, relative to it, is not beyond it


def elementwise(name: str, x: Any) -> Any:
    """Apply a function that numpy and torch have under the same name."""
    return getattr(x, name)() if isinstance(x, Tensor) else getattr(np, name)(x)


def capped(sigma: Any, least: float = LEAST_SIGMA) -> Any:
    """Cut noise levels to log-SNR within +-20."""
    if isinstance(sigma, Tensor):
        return sigma.clamp(least, LARGEST_SIGMA)
    return np.clip(sigma, least, LARGEST_SIGMA)


class Schedule(ABC):
    """A relation between time and noise level; subclasses give both directions in float64.

    Attributes:
        num_steps: number of levels of a discrete schedule; 0 for a continuous one.
        least_sigma: where small noise levels are capped.
    """

    num_steps: int = 0
    least_sigma: ClassVar[float] = LEAST_SIGMA

    @property
    def is_cut(self) -> tuple[bool, bool]:
        """Whether the cap changes the (smallest, largest) noise level."""
        first, last = (float(self._sigma(np.float64(time))) for time in (0, 1))
        return first < self.least_sigma * (1 - _ROUNDING), last > LARGEST_SIGMA * (1 + _ROUNDING)

    def sigma(self, time: Any) -> Any:
        """Noise level at `time` in [0, 1], capped; in the type and precision of `time`."""
        if isinstance(time, Tensor):
            level: Tensor = capped(self._sigma(time.double()), self.least_sigma)
            return level.to(time.dtype)
        return capped(self._sigma(np.asarray(time, dtype=np.float64)[()]), self.least_sigma)

    def time(self, sigma: Any) -> Any:
        """Time at which the noise level is `sigma`; the inverse of `sigma`, caps aside."""
        if isinstance(sigma, Tensor):
            time: Tensor = self._time(sigma.double())
            return time.to(sigma.dtype)
        return self._time(np.asarray(sigma, dtype=np.float64)[()])

    @abstractmethod
    def _sigma(self, time: Any) -> Any: ...

    @abstractmethod
    def _time(self, sigma: Any) -> Any: ...


def _check_order(owner: str, low: str, high: str, values: tuple[float, float]) -> None:
    """Refuse an empty range."""
    if not values[0] < values[1]:
        raise UserError(f"schedule {owner}: {low}={values[0]:g} must be below {high}={values[1]:g}")


@dataclass(frozen=True)
class EDMSchedule(Schedule):
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

    def __post_init__(self) -> None:
        _check_order("edm", "sigma_min", "sigma_max", (self.sigma_min, self.sigma_max))

    def _ends(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def _sigma(self, time: Any) -> Any:
        low, high = self._ends()
        return (low + time * (high - low)) ** self.rho

    def _time(self, sigma: Any) -> Any:
        low, high = self._ends()
        return (sigma ** (1 / self.rho) - low) / (high - low)


@dataclass(frozen=True)
class VPSchedule(Schedule):
    """The variance-preserving SDE with linear beta(t) = beta_min + beta_d t.

    Song et al. 2021 ("Score SDE"), Eq. 33, as sigma = s / alpha; Karras et al. 2022, Table 1.

    Attributes:
        beta_d: growth of beta over t in [0, 1].
        beta_min: beta at t = 0.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1

    def _sigma(self, time: Any) -> Any:
        return elementwise("expm1", self.beta_d / 2 * time**2 + self.beta_min * time) ** 0.5

    def _time(self, sigma: Any) -> Any:
        # the root of the quadratic in the form that subtracts nothing, exact at small sigma too
        integral = elementwise("log1p", sigma**2)
        root = (self.beta_min**2 + 2 * self.beta_d * integral) ** 0.5
        return 2 * integral / (root + self.beta_min)


@dataclass(frozen=True)
class VESchedule(Schedule):
    """The variance-exploding SDE: ln(sigma) linear in time. Song et al. 2021, sec. 3.4.

    Attributes:
        sigma_min: noise level at t = 0, positive.
        sigma_max: noise level at t = 1.
    """

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        _check_order("ve", "sigma_min", "sigma_max", (self.sigma_min, self.sigma_max))

    def _sigma(self, time: Any) -> Any:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** time

    def _time(self, sigma: Any) -> Any:
        ratio = math.log(self.sigma_max / self.sigma_min)
        return elementwise("log", sigma / self.sigma_min) / ratio


@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """Straight paths (1 - t) y + t n, seen as sigma = t / (1 - t). Lipman et al. 2023, Eq. 22."""

    is_cut = (True, True)  # from 0 to infinity

    def _sigma(self, time: Any) -> Any:
        rest = 1 - time  # 0 at t = 1, where the cap takes over
        return time / (rest + (rest == 0) / LARGEST_SIGMA)

    def _time(self, sigma: Any) -> Any:
        return sigma / (1 + sigma)


@dataclass(frozen=True)
class _LogSNRSchedule(Schedule):
    """A schedule between two values of the log-SNR.

    Attributes:
        logsnr_min: log-SNR at t = 1.
        logsnr_max: log-SNR at t = 0.
    """

    logsnr_min: float = -20.0
    logsnr_max: float = 20.0

    def __post_init__(self) -> None:
        ends = self.logsnr_min, self.logsnr_max
        _check_order(type(self).__name__, "logsnr_min", "logsnr_max", ends)


class LogSNRCosine(_LogSNRSchedule):
    """alpha the cosine of an angle that is linear in time: sigma = tan(pi u / 2).

    Nichol and Dhariwal 2021; with bounds, Salimans and Ho 2022, sec. 3: u runs from that of
    `logsnr_max` to that of `logsnr_min`.
    """

    def _ends(self) -> tuple[float, float]:
        first, last = (math.atan(math.exp(-end / 2)) for end in (self.logsnr_max, self.logsnr_min))
        return 2 / math.pi * first, 2 / math.pi * last

    def _sigma(self, time: Any) -> Any:
        first, last = self._ends()
        return elementwise("tan", math.pi / 2 * ((1 - time) * first + time * last))

    def _time(self, sigma: Any) -> Any:
        first, last = self._ends()
        return (2 / math.pi * elementwise("arctan", sigma) - first) / (last - first)


class Alpha2Linear(_LogSNRSchedule):
    """alpha^2 linear in time, from that of `logsnr_max` to that of `logsnr_min`."""

    def _ends(self) -> tuple[float, float]:
        """1 - alpha^2 = sigmoid(-L) at both ends, which keeps its digits near alpha = 1."""
        return 1 / (1 + math.exp(self.logsnr_max)), 1 / (1 + math.exp(self.logsnr_min))

    def _sigma(self, time: Any) -> Any:
        first, last = self._ends()
        noise = (1 - time) * first + time * last
        signal = (1 - time) / (1 + math.exp(-self.logsnr_max)) + time / (
            1 + math.exp(-self.logsnr_min)
        )
        return (noise / signal) ** 0.5

    def _time(self, sigma: Any) -> Any:
        first, last = self._ends()
        return (sigma**2 / (1 + sigma**2) - first) / (last - first)


class LogSNRLinear(_LogSNRSchedule):
    """Log-SNR linear in time. Kingma et al. 2021 ("VDM"), sec. 4, with fixed ends."""

    def _sigma(self, time: Any) -> Any:
        return elementwise("exp", ((1 - time) * self.logsnr_max + time * self.logsnr_min) / -2)

    def _time(self, sigma: Any) -> Any:
        log_snr = -2 * elementwise("log", sigma)
        return (self.logsnr_max - log_snr) / (self.logsnr_max - self.logsnr_min)


@dataclass(frozen=True)
class LogSNRLegacy(Schedule):
    """What DDPM's linear betas become for many steps; `legacy` in v-diffusion.

    ln(alpha^2) = A(t) is the integral of 1000 ln(1 - b) over t, b = 1e-4 + 0.0199 t. With
    H(b) = (1 - b) ln(1 - b) + b, which is about b^2 / 2, A = -1000 (H(b) - H(1e-4)) / 0.0199.
    sigma^2 = exp(-A) - exp(-1e-9): at t = 0 a trace of noise remains, at log-SNR 20.72, which is
    its own cap: the published likelihoods are those of a chain that ends there.
    """

    least_sigma = math.sqrt(-math.expm1(-1e-9))

    _START = 1e-4
    _GROWTH = 0.0199
    _STEPS = 1000
    _REST = -math.expm1(-1e-9)

    @staticmethod
    def _integral(b: Any) -> Any:
        return (1 - b) * elementwise("log1p", -b) + b

    def _sigma(self, time: Any) -> Any:
        grown = self._integral(self._START + self._GROWTH * time) - self._integral(self._START)
        return (elementwise("expm1", self._STEPS / self._GROWTH * grown) + self._REST) ** 0.5

    def _time(self, sigma: Any) -> Any:
        log_signal = elementwise("log1p", sigma**2 - self._REST)
        target = self._integral(self._START) + self._GROWTH / self._STEPS * log_signal
        b = (2 * target) ** 0.5
        for _ in range(5):  # Newton's method; H is nearly a parabola
            b = b + (self._integral(b) - target) / elementwise("log1p", -b)
        return (b - self._START) / self._GROWTH


def create(entry: str | Mapping[str, Any]) -> Schedule:
    """Build a schedule.

    Args:
        entry: a name in `diffusion.SCHEDULES`, or a mapping with a name and options.

    Raises:
        UserError: an unknown name or option, or an invalid value.
    """
    _, row, options = resolve_entry("schedule", SCHEDULES, entry)
    schedule: Schedule = row.load()(**options)
    return schedule
