"""Preconditioning: how a raw network F becomes a denoiser D(x, sigma).

D = c_skip x + c_out F(c_in x, c_noise). Three independent tables - what the network predicts,
how its input is scaled, how it is told the noise level - and presets that name a choice of each.
Karras et al. 2022 ("EDM"), Eq. 7 and Table 1: edm, and its forms of VP and VE (Song et al. 2021,
"Score SDE") and improved DDPM (Nichol & Dhariwal 2021).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from diffusion.schedules import VPSchedule, iddpm_levels, nearest_index
from torch_utils.errors import UserError, unknown_name


@dataclass(frozen=True)
class Output:
    """What the network predicts.

    Attributes:
        coefficients: (sigma, sigma_data) -> (c_skip, c_out).
        target: (y, n, sigma, sigma_data) -> F*, the exact value for clean y and unit noise n,
            so that c_skip x + c_out F* = y.
    """

    coefficients: Callable[[Tensor, float], tuple[Tensor, Tensor]]
    target: Callable[[Tensor, Tensor, Tensor, float], Tensor]


def _edm_coefficients(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
    variance = sigma.square() + sigma_data**2
    return sigma_data**2 / variance, sigma * sigma_data / variance.sqrt()


def _edm_target(y: Tensor, n: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    return (sigma * y / sigma_data - sigma_data * n) / (sigma.square() + sigma_data**2).sqrt()


# neg_eps is sigma times the score: the network predicts the noise with its sign turned.
OUTPUTS = {
    "edm": Output(_edm_coefficients, _edm_target),
    "eps": Output(
        lambda sigma, _: (torch.ones_like(sigma), -sigma),
        lambda y, n, sigma, _: n,
    ),
    "neg_eps": Output(
        lambda sigma, _: (torch.ones_like(sigma), sigma),
        lambda y, n, sigma, _: -n,
    ),
}

# (sigma, sigma_data) -> c_in
INPUT_SCALES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "unit_variance": lambda sigma, sigma_data: (sigma.square() + sigma_data**2).rsqrt(),
    "variance_preserving": lambda sigma, _: (sigma.square() + 1).rsqrt(),
    "identity": lambda sigma, _: torch.ones_like(sigma),
}

# The rows above that depend on sigma_data.
_WITH_SIGMA_DATA = {"edm", "unit_variance"}

VP = VPSchedule(beta_d=19.9, beta_min=0.1)
_VP_STEPS = 1000  # the discretisation that time is counted in
_VP_FIRST_TIME = 1e-5


def _reversed_index(sigma: Tensor, levels: Tensor | None) -> Tensor:
    """M - 1 - j, where entry j of the M + 1 levels is nearest."""
    assert levels is not None, "a discrete model has a table"
    return (len(levels) - 2 - nearest_index(sigma, levels)).to(sigma.dtype)


# (sigma, the table of a discrete model) -> c_noise, in the shape and dtype of sigma
CONDITIONINGS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "log_sigma_quarter": lambda sigma, _: sigma.log() / 4,
    "log_half_sigma": lambda sigma, _: (sigma / 2).log(),
    "vp_step": lambda sigma, _: (_VP_STEPS - 1) * VP.time(sigma),
    "reversed_index": _reversed_index,
}


@dataclass(frozen=True)
class Preconditioning:
    """One choice from each table, with its constants.

    Attributes:
        output: key of OUTPUTS.
        input_scale: key of INPUT_SCALES.
        conditioning: key of CONDITIONINGS.
        sigma_data: standard deviation of the data that the scalings assume, in [-1, 1] units;
            only those of edm do.
        sigma_min: smallest noise level that the model accepts.
        sigma_max: largest noise level that the model accepts.
        levels: the noise levels that a discrete model knows, decreasing, the last one 0; empty for
            a continuous model.
        output_multiple: channels of the network's output for each channel of the image. The
            first of them are used, others (the variance that improved DDPM learns) dropped.
    """

    output: str
    input_scale: str
    conditioning: str
    sigma_data: float = 0.5
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    levels: tuple[float, ...] = field(default=(), repr=False)
    output_multiple: int = 1

    @property
    def uses_sigma_data(self) -> bool:
        """Whether the scalings depend on the standard deviation of the data."""
        return bool({self.output, self.input_scale} & _WITH_SIGMA_DATA)

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(c_skip, c_out) at `sigma`, in its shape and dtype."""
        return OUTPUTS[self.output].coefficients(sigma, self.sigma_data)

    def target(self, y: Tensor, n: Tensor, sigma: Tensor) -> Tensor:
        """F*, what a perfect network would return for x = y + sigma n."""
        return OUTPUTS[self.output].target(y, n, sigma, self.sigma_data)

    def c_in(self, sigma: Tensor) -> Tensor:
        """Scale of the network's input at `sigma`."""
        return INPUT_SCALES[self.input_scale](sigma, self.sigma_data)

    def c_noise(self, sigma: Tensor, levels: Tensor | None = None) -> Tensor:
        """The number that tells the network the noise level.

        Args:
            sigma: noise levels of any shape.
            levels: the table of a discrete model as a tensor on sigma's device, for callers
                that keep one; None makes it from `self.levels`.

        Returns:
            c_noise in the shape and dtype of sigma.
        """
        if levels is None and self.levels:
            levels = sigma.new_tensor(self.levels)
        return CONDITIONINGS[self.conditioning](sigma, levels)

    def round_sigma(self, sigma: float) -> float:
        """The nearest noise level that the model knows; every one, for a continuous model."""
        return min(self.levels, key=lambda level: abs(level - sigma)) if self.levels else sigma

    def prior_scale(self, sigma: float) -> float:
        """What unit latents are multiplied by at the start of sampling at `sigma`.

        sigma for vp and iddpm too, though their processes preserve variance: the presets here are
        those of EDM, whose samplers start from noise without data (Algorithm 1, line 2).
        """
        return sigma


_IDDPM_LEVELS = tuple(iddpm_levels().tolist())

PRESETS = {
    "edm": Preconditioning("edm", "unit_variance", "log_sigma_quarter"),
    "vp": Preconditioning(
        "eps",
        "variance_preserving",
        "vp_step",
        sigma_min=float(VP.sigma(_VP_FIRST_TIME)),
        sigma_max=float(VP.sigma(1.0)),
    ),
    "ve": Preconditioning("neg_eps", "identity", "log_half_sigma", sigma_min=0.02, sigma_max=100.0),
    "iddpm": Preconditioning(
        "eps",
        "variance_preserving",
        "reversed_index",
        sigma_min=_IDDPM_LEVELS[-2],
        sigma_max=_IDDPM_LEVELS[0],
        levels=_IDDPM_LEVELS,
        output_multiple=2,
    ),
}


def create(
    name: str,
    *,
    sigma_data: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Preconditioning:
    """Look up a preset and set its constants.

    Args:
        name: key of PRESETS.
        sigma_data: standard deviation of the data; None keeps the preset's.
        sigma_min: smallest noise level that the model accepts; None keeps the preset's.
        sigma_max: largest one; None keeps the preset's.

    Raises:
        UserError: unknown preset, sigma_data not a positive number or without effect, or an
            impossible range.
    """
    if name not in PRESETS:
        raise unknown_name("preconditioning", name, PRESETS)
    preset = PRESETS[name]
    if sigma_data is not None:
        if not preset.uses_sigma_data:
            raise UserError(f"preconditioning {name} does not depend on sigma_data: leave it out")
        if not (math.isfinite(sigma_data) and sigma_data > 0):
            raise UserError(f"sigma_data is {sigma_data}: it must be a positive number")
    given: dict[str, Any] = {
        "sigma_data": sigma_data,
        "sigma_min": sigma_min,
        "sigma_max": sigma_max,
    }
    chosen = replace(preset, **{key: value for key, value in given.items() if value is not None})
    _check_range(name, chosen)
    return chosen


def _check_range(name: str, chosen: Preconditioning) -> None:
    low, high = chosen.sigma_min, chosen.sigma_max
    if not (0 <= low < high and math.isfinite(low)):
        raise UserError(
            f"preconditioning {name}: noise levels from sigma_min={low:g} to sigma_max={high:g}:"
            " sigma_min must be at least 0 and below sigma_max"
        )
    if chosen.levels and chosen.round_sigma(low) == 0:
        raise UserError(
            f"preconditioning {name}: sigma_min is {low:g}, the smallest noise level that the"
            f" model knows is {chosen.levels[-2]:.6g}"
        )


def broadcast_sigma(sigma: Tensor | float, x: Tensor) -> Tensor:
    """Shape noise levels for arithmetic with images: scalar or [N] -> [N or 1, 1, 1, 1]."""
    level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    return level.reshape(-1, 1, 1, 1)
