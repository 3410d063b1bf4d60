"""Configs of DPMSolverMultistepScheduler and UniPCMultistepScheduler, of the library diffusers.

Exact are steps in x0 over the spacing trailing with a last step to 0. What is otherwise in a config
is named in a note, with what takes its place.
"""

from collections.abc import Mapping
from typing import Any

from importers.diffusers_clipping import thresholding
from torch_utils.errors import UserError
from torch_utils.numbers import is_integer

SAMPLERS = {"DPMSolverMultistepScheduler": "dpmpp", "UniPCMultistepScheduler": "unipc"}
_LOWERED_BELOW = 15  # steps; with more, the library's DPM-Solver keeps its order to the end
_STEPS = 50  # of the library's pipelines

# key -> (the library's default, the values that we have)
_SHARED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "final_sigmas_type": ("zero", ("zero",)),
    "timestep_spacing": ("linspace", ("trailing",)),
    "use_karras_sigmas": (False, (False,)),
    "use_exponential_sigmas": (False, (False,)),
    "use_beta_sigmas": (False, (False,)),
    "use_flow_sigmas": (False, (False,)),
}
_KEYS = {
    "dpmpp": {
        "algorithm_type": ("dpmsolver++", ("dpmsolver++",)),
        "solver_type": ("midpoint", ("midpoint",)),
        "use_lu_lambdas": (False, (False,)),
        **_SHARED,
    },
    "unipc": {
        "predict_x0": (True, (True,)),
        "disable_corrector": ([], ([],)),
        "solver_p": (None, (None,)),
        "solver_type": ("bh2", ("bh2", "bh1")),
        **_SHARED,
    },
}


def multistep_sampling(
    name: str, config: Mapping[str, Any], num_levels: int, where: str
) -> tuple[dict[str, Any], list[str]]:
    """The flat mapping of a config's sampler, and lines about what is done otherwise than there.

    Args:
        name: key of SAMPLERS.
        config: key -> value; those that are not there have the library's defaults.
        num_levels: of the noise schedule.
        where: its file, for messages.

    Raises:
        UserError: a value that the scheduler cannot have.
    """
    sampler = SAMPLERS[name]
    order = config.get("solver_order", 2)
    if not is_integer(order, 1, 3):
        raise UserError(f"{where}: solver_order is {order!r:.60}: it must be 1, 2 or 3")
    is_lowered = config.get("lower_order_final", True)
    if not isinstance(is_lowered, bool):
        raise UserError(
            f"{where}: lower_order_final is {is_lowered!r:.60}: it must be true or false"
        )
    steps = min(_STEPS, num_levels)
    sampling: dict[str, Any] = {"name": sampler, "grid": "steps", "steps": steps, "order": order}
    sampling |= {"spacing": "exact", "lower_order_final": is_lowered}
    notes = []
    if sampler == "dpmpp" and order == 3 and is_lowered and steps >= _LOWERED_BELOW:
        sampling["lower_order_final"] = False
        notes.append(
            f"lower_order_final holds there below {_LOWERED_BELOW} steps: it is set to false"
        )
    for key, (default, known) in _KEYS[sampler].items():
        value = config.get(key, default)
        if value not in known:
            notes.append(f"{key} {value!s:.60} is not available: {known[0]!s} takes its place")
    if sampler == "unipc" and config.get("solver_type") == "bh1":
        sampling["variant"] = "bh1"
    if config.get("thresholding", False):
        clip, note = thresholding(config, where)
        sampling["clip"] = clip
        notes += note
    return sampling, notes
