"""Configs of schedulers of the library diffusers in our terms.

They say how the network was trained (betas, prediction) and how it is sampled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion import SCHEDULES, schedules
from diffusion.tables import Table
from importers.diffusers_clipping import clipping
from importers.diffusers_multistep import SAMPLERS as MULTISTEP
from importers.diffusers_multistep import multistep_sampling
from torch_utils.errors import UserError, unknown_name
from torch_utils.numbers import is_integer
from torch_utils.registry import resolve_entry

CLASSES = ("DDPMScheduler", "DDIMScheduler", *MULTISTEP)

# key -> the library's default
DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "variance_type": "fixed_small",
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "prediction_type": "epsilon",
    "thresholding": False,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "set_alpha_to_one": True,
    "rescale_betas_zero_snr": False,
}
SCHEDULE_NAMES = {
    "linear": "beta_linear",
    "scaled_linear": "beta_quad",
    "squaredcos_cap_v2": "beta_cosine",
    "sigmoid": "beta_sigmoid",
}
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned": "small",
    "learned_range": "small",
}
SPACINGS = {"leading": "leading", "linspace": "linspace_rounded", "trailing": "exact"}
LEFT_OUT = "the variance that the network predicts is left out, variance small takes its place"
DDIM_STEPS = 50  # of the library's pipeline


@dataclass(frozen=True)
class SchedulerReading:
    """What a config of a scheduler says.

    Attributes:
        schedule: our entry of the noise schedule.
        prediction: our name of what the network predicts.
        sampling: the flat mapping of samplers.settings.
        notes: lines about what is done otherwise than there.
    """

    schedule: dict[str, Any]
    prediction: str
    sampling: dict[str, Any]
    notes: list[str]


def read_scheduler(config: Mapping[str, Any], where: str) -> SchedulerReading:
    """Read a config.

    Args:
        config: key -> value; those that are not there have the library's defaults.
        where: its file, for messages.

    Raises:
        UserError: another scheduler, or a value that no scheduler can have.
    """
    name = str(config.get("_class_name", CLASSES[0]))[:80]
    if name not in CLASSES:
        raise UserError(f"{where}: the scheduler is {name}: known are {', '.join(CLASSES)}")
    values = DEFAULTS | {key: value for key, value in config.items() if key in DEFAULTS}
    if config.get("predict_epsilon") is False and "prediction_type" not in config:
        values["prediction_type"] = "sample"  # as early releases say it
    for key, default in DEFAULTS.items():
        if isinstance(default, bool) and not isinstance(values[key], bool):
            raise UserError(f"{where}: {key} is {values[key]!r:.60}: it must be true or false")
    schedule = _schedule(values, where)
    prediction = _looked_up("prediction_type", PREDICTIONS, values, where)
    num_steps = resolved(schedule).num_steps
    if name in MULTISTEP:
        sampling, notes = multistep_sampling(name, config, num_steps, where)
        return SchedulerReading(schedule, prediction, sampling, notes)
    is_ddim = name == "DDIMScheduler"
    sampling = {
        "name": "ddim" if is_ddim else "ddpm",
        "grid": "steps",
        "steps": min(DDIM_STEPS, num_steps) if is_ddim else num_steps,
        "spacing": _looked_up("timestep_spacing", SPACINGS, values, where),
    }
    offset = values["steps_offset"]
    if not is_integer(offset, 0, num_steps - 1):
        raise UserError(
            f"{where}: steps_offset is {offset!r:.60}: it must be an integer from 0 to"
            f" {num_steps - 1}"
        )
    if offset and values["timestep_spacing"] == "leading" and is_ddim:
        sampling["offset"] = offset
    variance = _looked_up("variance_type", VARIANCES, values, where)
    if not is_ddim:
        sampling["variance"] = variance
    clip, notes = clipping({**config, **values}, where)
    if clip == "dynamic" and is_ddim:  # it clips the image, but not the direction of the noise
        clip, notes = True, ["dynamic thresholding is not available: clip_x0 takes its place"]
    if clip:
        sampling["clip_x0" if is_ddim else "clip"] = clip
    if not is_ddim and values["variance_type"].startswith("learned"):
        notes.append(LEFT_OUT)
    return SchedulerReading(schedule, prediction, sampling, notes)


def resolved(schedule: Mapping[str, Any]) -> Table:
    """The table of a schedule's entry."""
    table = schedules.create(dict(schedule))
    assert isinstance(table, Table), schedule
    return table


def _looked_up(key: str, table: Mapping[str, str], values: Mapping[str, Any], where: str) -> str:
    value = values[key]
    if not isinstance(value, str) or value not in table:
        raise unknown_name(f"{key} in {where}:", str(value)[:80], table)
    return table[value]


def _schedule(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Our entry for the betas."""
    if values["trained_betas"] is not None:
        schedule: dict[str, Any] = {"name": "beta_list", "betas": values["trained_betas"]}
    else:
        ours = _looked_up("beta_schedule", SCHEDULE_NAMES, values, where)
        given = {"num_steps": values["num_train_timesteps"]}
        given |= {key: values[key] for key in ("beta_start", "beta_end")}
        options = SCHEDULES[ours].options
        schedule = {"name": ours, **{k: v for k, v in given.items() if k in options}}
    try:
        resolve_entry("schedule", SCHEDULES, schedule)
        table = resolved(schedule)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if not values["rescale_betas_zero_snr"]:
        return schedule
    return {"name": "beta_list", "betas": zero_snr_betas(table).tolist()}


def zero_snr_betas(table: Table) -> np.ndarray:
    """Betas after which the last level has no signal. Lin et al. 2024, Algorithm 1.

    sqrt(alpha_bar) is shifted to end in 0 and scaled to keep its first value.
    """
    signal = 1 / np.hypot(1, table.levels)
    shifted = (signal - signal[-1]) * (signal[0] / (signal[0] - signal[-1]))
    kept = np.append(shifted[0] ** 2, (shifted[1:] / shifted[:-1]) ** 2)
    betas: np.ndarray = 1 - kept
    return betas
