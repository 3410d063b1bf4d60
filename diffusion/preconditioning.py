"""Preconditioning: how a raw network F becomes a denoiser D(x, sigma).

D = c_skip x + c_out F(c_in x, c_noise). Three independent tables - what the network predicts,
how its input is scaled, how it is told the noise level - and presets that name a choice of each.
Karras et al. 2022 ("EDM"), Eq. 7 and Table 1: edm, and its forms of VP and VE (Song et al. 2021,
"Score SDE") and improved DDPM (Nichol & Dhariwal 2021). Ho et al. 2020 ("DDPM"): ddpm. Salimans
and Ho 2022: vdiff and v. Lipman et al. 2023: flow.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffusion import SCHEDULES, schedules
from diffusion.outputs import OUTPUTS, Parts
from diffusion.schedules import Schedule, VPSchedule
from diffusion.tables import Table
from torch_utils.errors import UserError
from torch_utils.registry import POSITIVE, Row, lookup, split_name

# (sigma, sigma_data) -> c_in
INPUT_SCALES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "unit_variance": lambda sigma, sigma_data: (sigma.square() + sigma_data**2).rsqrt(),
    "variance_preserving": lambda sigma, _: (sigma.square() + 1).rsqrt(),
    "flow": lambda sigma, _: 1 / (1 + sigma),
    "identity": lambda sigma, _: torch.ones_like(sigma),
}

# The rows above that depend on sigma_data.
_WITH_SIGMA_DATA = {"edm", "unit_variance"}

# sigma -> c_noise, of networks that are told the noise level itself
_OF_SIGMA: dict[str, Callable[[Tensor], Tensor]] = {
    "log_sigma_quarter": lambda sigma: sigma.log() / 4,
    "log_half_sigma": lambda sigma: (sigma / 2).log(),
}

# (time, steps) -> c_noise, of those that are told the time in a schedule
_OF_TIME: dict[str, Callable[[Tensor, int], Tensor]] = {
    "step": lambda time, steps: time * (steps - 1),
    "reversed_step": lambda time, steps: (1 - time) * (steps - 1),
    "time_1000": lambda time, _: 1000 * time,
}

CONDITIONINGS = (*_OF_SIGMA, *_OF_TIME)

_CONTINUOUS_STEPS = 1000  # the steps in which conditioning counts a continuous schedule's time


def _denoised(x: Tensor, parts: Parts, c_skip: Tensor, c_out: Parts) -> Tensor:
    """c_skip x + sum c_out F; parts without a c_out do not count."""
    return sum((c * f for c, f in zip(c_out, parts, strict=False)), c_skip * x)


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
        schedule: the relation of time and noise level in which conditioning counts; None where
            it does not.
        quantize: the model knows the levels of its discrete schedule only, and others are rounded
            to the nearest one.
        preserves_variance: sampling starts from a state of variance 1 in z = alpha x, as for
            models trained as DDPM.
        unused_multiple: channels of the network's output for each predicted one, of which only
            the first count. Others (the variance that improved DDPM learns) are dropped.
        has_table: the table of levels belongs to the published tensors.
    """

    output: str
    input_scale: str
    conditioning: str
    sigma_data: float
    sigma_min: float
    sigma_max: float
    schedule: Schedule | None
    quantize: bool
    preserves_variance: bool = False
    unused_multiple: int = 1
    has_table: bool = False

    @property
    def uses_sigma_data(self) -> bool:
        """Whether the scalings depend on the standard deviation of the data."""
        return bool({self.output, self.input_scale} & _WITH_SIGMA_DATA)

    @property
    def uses_schedule(self) -> bool:
        """Whether the network is told the noise level as a time."""
        return self.conditioning in _OF_TIME

    @property
    def output_multiple(self) -> int:
        """Channels of the network's output for each channel of the image."""
        return OUTPUTS[self.output].num_parts * self.unused_multiple

    @property
    def table(self) -> Table | None:
        """The schedule, if it is discrete."""
        return self.schedule if isinstance(self.schedule, Table) else None

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Parts]:
        """c_skip and one c_out for each predicted image, in the shape and dtype of sigma."""
        return OUTPUTS[self.output].coefficients(sigma, self.sigma_data)

    def target(self, y: Tensor, n: Tensor, sigma: Tensor) -> Parts:
        """F*, what a perfect network would return for x = y + sigma n, image by image."""
        return OUTPUTS[self.output].target(y, n, sigma, self.sigma_data)

    def denoised(self, x: Tensor, raw: Tensor, sigma: Tensor) -> Tensor:
        """D of the network's output.

        Args:
            x: noisy images, [N, C, H, W].
            raw: F, [N, C * output_multiple, H, W].
            sigma: noise levels that broadcast with x.
        """
        return _denoised(x, torch.split(raw, x.shape[1], dim=1), *self.coefficients(sigma))

    def denoised_and_error(
        self, x: Tensor, raw: Tensor, y: Tensor, n: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """D, and D - y as c_out (F - F*), which keeps its digits where D and y nearly agree.

        Args:
            x: noisy images, [M, C, H, W]; the first N <= M belong to y.
            raw: F at x, [M, C * output_multiple, H, W].
            y, n: clean images and unit noise, [N, C, H, W].
            sigma: noise levels that broadcast with x.
        """
        num, parts = len(y), torch.split(raw, x.shape[1], dim=1)
        c_skip, c_out = self.coefficients(sigma)
        exact = self.target(y, n, sigma[:num])
        first, *others = (
            c[:num] * (f[:num] - e) for c, f, e in zip(c_out, parts, exact, strict=False)
        )
        return _denoised(x, parts, c_skip, c_out), sum(others, first)

    def c_in(self, sigma: Tensor) -> Tensor:
        """Scale of the network's input at `sigma`."""
        return INPUT_SCALES[self.input_scale](sigma, self.sigma_data)

    def c_noise(self, sigma: Tensor, log_levels: Tensor | None = None) -> Tensor:
        """The number that tells the network the noise level.

        Args:
            sigma: noise levels of any shape.
            log_levels: a discrete schedule's `Table.log_levels`, for callers that keep it on
                sigma's device.

        Returns:
            c_noise in the shape and dtype of sigma.
        """
        if not self.uses_schedule:
            return _OF_SIGMA[self.conditioning](sigma)
        assert self.schedule is not None, "create() refuses a time without a schedule"
        steps = self.schedule.num_steps or _CONTINUOUS_STEPS
        time = self._time(self.schedule, sigma, log_levels)
        return _OF_TIME[self.conditioning](time, steps).to(sigma.dtype)

    def _time(self, schedule: Schedule, sigma: Tensor, log_levels: Tensor | None) -> Tensor:
        """The time that a noise level is told as; a discrete schedule's ends bound it."""
        if not isinstance(schedule, Table):
            time: Tensor = schedule.time(sigma)
            return time
        if self.quantize:
            index = schedule.nearest(sigma, log_levels).double()
        else:
            index = schedule.index(sigma, log_levels)
        return (index / (schedule.num_steps - 1)).clamp(0, 1)

    def round_sigma(self, sigma: float) -> float:
        """The nearest noise level that the model knows; every one, unless it is quantized."""
        return self.table.round(sigma) if self.table is not None and self.quantize else sigma

    def prior_scale(self, sigma: float) -> float:
        """What unit latents are multiplied by at the start of sampling at `sigma`.

        sqrt(1 + sigma^2) for models that preserve variance: their z starts as noise alone. sigma
        for the others, vp and iddpm among them, because these presets are EDM's, whose samplers
        start from x without data (Algorithm 1, line 2).
        """
        return math.sqrt(1 + sigma**2) if self.preserves_variance else sigma


@dataclass(frozen=True, kw_only=True)
class PresetRow(Row):
    """A published preconditioning; its options are the parts that can be changed one by one.

    Attributes:
        is_fixed: published as it is: only its range of noise levels and the constants of its
            schedule can be changed.
        constants: what else is published with it.
    """

    is_fixed: bool = False
    constants: Mapping[str, Any] = field(default_factory=dict)


def _preset(
    output: str,
    input_scale: str,
    conditioning: str,
    *,
    is_fixed: bool = False,
    constants: Mapping[str, Any] | None = None,
    **others: Any,
) -> PresetRow:
    options = {
        "output": output,
        "input_scale": input_scale,
        "conditioning": conditioning,
        "sigma_data": 0.5,
        "sigma_min": None,  # None for both ends of the schedule's range
        "sigma_max": None,
        "schedule": None,
        "quantize": False,
    }
    return PresetRow(
        target="diffusion.preconditioning:Preconditioning",
        options=options | others,
        choices={
            "output": tuple(OUTPUTS),
            "input_scale": tuple(INPUT_SCALES),
            "conditioning": CONDITIONINGS,
        },
        ranges={"sigma_min": (0, math.inf), "sigma_max": (0, math.inf)},
        rules={"sigma_data": POSITIVE},
        entries={"schedule": ("schedule", SCHEDULES)},
        is_fixed=is_fixed,
        constants=constants or {},
    )


_VP_FIRST_TIME = 1e-5
_OF_VARIANCE = {"preserves_variance": True}

PRESETS: dict[str, PresetRow] = {
    "edm": _preset("edm", "unit_variance", "log_sigma_quarter", sigma_min=0.0, sigma_max=math.inf),
    "vp": _preset(
        "eps",
        "variance_preserving",
        "step",
        schedule="vp",
        sigma_min=float(VPSchedule().sigma(_VP_FIRST_TIME)),
    ),
    "ve": _preset("neg_eps", "identity", "log_half_sigma", sigma_min=0.02, sigma_max=100.0),
    "iddpm": _preset(
        "eps",
        "variance_preserving",
        "step",
        schedule="iddpm",
        quantize=True,
        is_fixed=True,
        constants={"unused_multiple": 2, "has_table": True},
    ),
    "ddpm": _preset(
        "eps", "variance_preserving", "step", schedule="beta_linear", constants=_OF_VARIANCE
    ),
    "vdiff": _preset(
        "v", "variance_preserving", "time_1000", schedule="logsnr_cosine", constants=_OF_VARIANCE
    ),
    "flow": _preset("flow", "flow", "time_1000", schedule="flow"),
}


def create(name: str, **given: Any) -> Preconditioning:
    """Look up a preset and change what is given.

    Args:
        name: key of PRESETS.
        **given: options of its row, all names and constants of `Preconditioning`; None keeps the
            preset's. A schedule is an entry for `schedules.create`, and sets the range of noise
            levels too.

    Raises:
        UserError: unknown names, a value that cannot be, a constant without effect, or an empty
            range.
    """
    row = lookup("preconditioning", PRESETS, name)
    owner = f"preconditioning {name}"
    given = {key: value for key, value in given.items() if value is not None}
    options = row.resolve(owner, given)
    fixed = given.keys() - {"sigma_data", "sigma_min", "sigma_max"}
    if (
        "schedule" in given
        and split_name("schedule", given["schedule"])[0] == row.options["schedule"]
    ):
        fixed -= {"schedule"}  # the same one with other constants
    if row.is_fixed and fixed:
        raise UserError(f"{owner} is fixed: start from ddpm to change its parts")
    if options["schedule"] is not None:
        schedule = options["schedule"] = schedules.create(options["schedule"])
        for key, time in (("sigma_min", 0.0), ("sigma_max", 1.0)):
            if options[key] is None or ("schedule" in given and key not in given):
                options[key] = _level(schedule, time)
    chosen: Preconditioning = row.load()(**options, **row.constants)
    _check(owner, chosen, given)
    return chosen


def _level(schedule: Schedule, time: float) -> float:
    """The noise level at an end of a schedule, as the levels of a table have it."""
    if isinstance(schedule, Table):
        return float(schedule.levels[-1 if time else 0])
    return float(schedule.sigma(time))


def _check(owner: str, chosen: Preconditioning, given: Mapping[str, Any]) -> None:
    """Refuse choices that do not go together."""
    if "sigma_data" in given and not chosen.uses_sigma_data:
        raise UserError(f"{owner} does not depend on sigma_data: leave it out")
    if chosen.uses_schedule and chosen.schedule is None:
        raise UserError(
            f"{owner}: conditioning {chosen.conditioning} counts the time of a schedule: give one"
        )
    if "schedule" in given and not (chosen.uses_schedule or chosen.quantize):
        raise UserError(f"{owner}: conditioning {chosen.conditioning} has no use for a schedule")
    if chosen.quantize and chosen.table is None:
        raise UserError(f"{owner}: quantize needs a discrete schedule")
    if not chosen.sigma_min < chosen.sigma_max:
        raise UserError(
            f"{owner}: noise levels from sigma_min={chosen.sigma_min:g} to"
            f" sigma_max={chosen.sigma_max:g}: sigma_min must be below sigma_max"
        )


def broadcast_sigma(sigma: Tensor | float, x: Tensor) -> Tensor:
    """Shape noise levels for arithmetic with images: scalar or [N] -> [N or 1, 1, 1, 1].

    Args:
        sigma: a number; or a tensor, [N] on the device of x, or without dimensions on any.
        x: images, whose device and dtype the result has.
    """
    if not isinstance(sigma, Tensor):
        return torch.full([1, 1, 1, 1], sigma, dtype=x.dtype, device=x.device)
    if sigma.ndim == 0:
        # a number on the host enters as an argument of the kernel; to copy it would be to wait
        return x.new_ones([1, 1, 1, 1]) * sigma
    return sigma.to(device=x.device, dtype=x.dtype).reshape(-1, 1, 1, 1)
