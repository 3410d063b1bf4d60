"""Discrete noise schedules: tables of noise levels, made from betas.

Index 0 is the least noise, T - 1 the most. Between the levels ln(sigma) is linear in the index, so
that a discrete model can be asked about every noise level and differentiated in it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion import IDDPM_C_1, IDDPM_C_2, IDDPM_STEPS
from diffusion.schedules import LARGEST_SIGMA, LEAST_SIGMA, Schedule, capped
from torch_utils.errors import UserError

_TIE = 1e-6  # relative distance of levels that the cap would make equal


class Table(Schedule):
    """A discrete schedule; its time is index / (T - 1).

    Attributes:
        levels: noise levels, float64 [T], strictly increasing.
        num_steps: T.
    """

    def __init__(self, levels: np.ndarray) -> None:
        ordered = np.asarray(capped(levels), dtype=np.float64)
        # levels at the cap stay distinct, so that each still has an index of its own
        place = np.arange(len(ordered))
        ordered = np.minimum(ordered, LARGEST_SIGMA * (1 - _TIE * place[::-1]))
        ordered = np.maximum(ordered, LEAST_SIGMA * (1 + _TIE * place))
        assert len(ordered) > 1, "a table has at least two levels"
        assert (np.diff(ordered) > 0).all(), "levels must increase"
        self.levels = ordered
        self._log_levels = {torch.device("cpu"): torch.from_numpy(np.log(ordered))}
        self.num_steps = len(ordered)
        self._is_cut = bool(levels[0] < LEAST_SIGMA), bool(levels[-1] > LARGEST_SIGMA)

    @property
    def is_cut(self) -> tuple[bool, bool]:
        """Whether the cap changes the (smallest, largest) noise level."""
        return self._is_cut

    def log_levels(self, like: Tensor) -> Tensor:
        """ln(sigma) of every level, float64 [T], on the device of `like`; copied there once."""
        if like.device not in self._log_levels:
            with torch.inference_mode(False):  # training may ask for it next
                on_host = self._log_levels[torch.device("cpu")]
                self._log_levels[like.device] = on_host.to(like.device)
        return self._log_levels[like.device]

    def index(self, sigma: Tensor, log_levels: Tensor | None = None) -> Tensor:
        """The fractional index of noise levels, linear in ln(sigma), also beyond the table's ends.

        Args:
            sigma: noise levels of any shape.
            log_levels: what the method `log_levels` gives, for callers that keep it on the device.

        Returns:
            float64 in the shape of sigma; differentiable in it.
        """
        nodes = self.log_levels(sigma) if log_levels is None else log_levels
        value = sigma.double().log()
        right = torch.searchsorted(nodes, value.detach().contiguous())
        right = right.clamp(1, self.num_steps - 1)
        low, high = nodes[right - 1], nodes[right]
        return right - 1 + (value - low) / (high - low)

    def at(self, index: Tensor, log_levels: Tensor | None = None) -> Tensor:
        """Noise level at a fractional index, float64; the inverse of `index`."""
        nodes = self.log_levels(index) if log_levels is None else log_levels
        place = index.double()
        left = place.detach().floor().clamp(0, self.num_steps - 2).long()
        low, high = nodes[left], nodes[left + 1]
        return (low + (place - left) * (high - low)).exp()

    def nearest(self, sigma: Tensor, log_levels: Tensor | None = None) -> Tensor:
        """Index of the level nearest to each noise level; the noisier of two at equal distance."""
        nodes = self.log_levels(sigma) if log_levels is None else log_levels
        levels, value = nodes.exp(), sigma.double()
        right = torch.searchsorted(levels, value.detach().contiguous())
        right = right.clamp(1, self.num_steps - 1)
        return torch.where(value - levels[right - 1] < levels[right] - value, right - 1, right)

    def round(self, sigma: float) -> float:
        """The level nearest to a noise level; the noisier of two at equal distance."""
        distances = np.abs(self.levels[::-1] - sigma)
        return float(self.levels[::-1][np.argmin(distances)])

    def _sigma(self, time: Any) -> Any:
        if isinstance(time, Tensor):
            return self.at(time * (self.num_steps - 1))
        return self.at(torch.as_tensor(time) * (self.num_steps - 1)).numpy()[()]

    def _time(self, sigma: Any) -> Any:
        if isinstance(sigma, Tensor):
            return self.index(sigma) / (self.num_steps - 1)
        return self.index(torch.as_tensor(sigma)).numpy()[()] / (self.num_steps - 1)


def from_betas(betas: np.ndarray) -> Table:
    """The table of a chain whose step i keeps 1 - beta_i of the variance. Ho et al. 2020, Eq. 4.

    sigma_i^2 = 1 / abar_i - 1 with abar_i = prod_{j <= i} (1 - beta_j), without cancellation.
    """
    with np.errstate(divide="ignore", over="ignore"):
        log_kept = np.cumsum(np.log1p(-np.asarray(betas, dtype=np.float64)))
        return Table(np.sqrt(np.expm1(-log_kept)))


def _check_rise(name: str, low: float, high: float) -> None:
    if low > high:
        raise UserError(f"schedule {name}: beta_start={low:g} must not be above beta_end={high:g}")


def beta_linear(num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Table:
    """Betas in even steps, both ends included. Ho et al. 2020 ("DDPM"), sec. 4.

    Raises:
        UserError: the betas fall.
    """
    _check_rise("beta_linear", beta_start, beta_end)
    return from_betas(np.linspace(beta_start, beta_end, num_steps))


def beta_quad(num_steps: int, beta_start: float, beta_end: float) -> Table:
    """Square roots of betas in even steps.

    Raises:
        UserError: as `beta_linear`.
    """
    _check_rise("beta_quad", beta_start, beta_end)
    return from_betas(np.linspace(beta_start**0.5, beta_end**0.5, num_steps) ** 2)


def beta_const(num_steps: int, beta_end: float) -> Table:
    """The same beta in every step."""
    return from_betas(np.full(num_steps, beta_end))


def beta_jsd(num_steps: int) -> Table:
    """beta = 1/T, 1/(T-1), ..., 1: alpha_bar falls linearly to 0, where the cap takes over.

    Sohl-Dickstein et al. 2015, sec. 2.4.
    """
    return from_betas(1 / np.arange(num_steps, 0, -1, dtype=np.float64))


def beta_sigmoid(num_steps: int, beta_start: float, beta_end: float) -> Table:
    """Betas along a logistic curve over [-6, 6].

    Raises:
        UserError: as `beta_linear`.
    """
    _check_rise("beta_sigmoid", beta_start, beta_end)
    rise = 1 / (1 + np.exp(-np.linspace(-6, 6, num_steps)))
    return from_betas(beta_start + (beta_end - beta_start) * rise)


def beta_cosine(num_steps: int, offset: float, beta_max: float) -> Table:
    """alpha_bar a squared cosine of time, betas capped. Nichol and Dhariwal 2021, Eq. 17."""
    times = np.arange(num_steps + 1) / num_steps
    signal = np.cos(math.pi / 2 * (times + offset) / (1 + offset)) ** 2
    return from_betas(np.minimum(1 - signal[1:] / signal[:-1], beta_max))


def beta_list(betas: Sequence[float]) -> Table:
    """The betas of every step, at least two; 1 is the end of a chain without signal."""
    return from_betas(np.asarray(betas, dtype=np.float64))


def iddpm_levels(
    num_steps: int = IDDPM_STEPS, c_1: float = IDDPM_C_1, c_2: float = IDDPM_C_2
) -> np.ndarray:
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


def iddpm(num_steps: int = IDDPM_STEPS, c_1: float = IDDPM_C_1, c_2: float = IDDPM_C_2) -> Table:
    """The positive levels of `iddpm_levels`, ascending."""
    return Table(iddpm_levels(num_steps, c_1, c_2)[-2::-1])
