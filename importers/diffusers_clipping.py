"""How schedulers of the library diffusers clip estimates, in our terms."""

from collections.abc import Mapping
from typing import Any

from torch_utils.errors import UserError
from torch_utils.numbers import is_number

_RATIO = 0.995  # the library's default, and ours
UNBOUNDED = 1e6  # a sample_max_value that no quantile reaches


def clipping(config: Mapping[str, Any], where: str) -> tuple[bool | str, list[str]]:
    """The clip of DDPMScheduler and DDIMScheduler, and lines about what is done otherwise.

    Args:
        config: key -> value, with the library's defaults for `thresholding`, `clip_sample` and
            `clip_sample_range`.
        where: its file, for messages.

    Raises:
        UserError: a bound that is not a number.
    """
    if config["thresholding"]:
        return thresholding(config, where)
    if not config["clip_sample"]:
        return False, []
    bound = config["clip_sample_range"]
    if not is_number(bound) or not 0 < bound < float("inf"):
        raise UserError(
            f"{where}: clip_sample_range is {bound!r:.60}: it must be a positive, finite number"
        )
    if bound == 1:
        return True, []
    instead = "clipped to [-1, 1]" if bound < 1 else "not clipped"
    return bound < 1, [f"clip_sample_range {bound:g} is not available: estimates are {instead}"]


def thresholding(config: Mapping[str, Any], where: str) -> tuple[bool | str, list[str]]:
    """How estimates are clipped, and what is done otherwise than there.

    The library bounds its quantile by sample_max_value, which is 1 by default: then [-1, 1] stays.
    """
    bound = config.get("sample_max_value", 1.0)
    ratio = config.get("dynamic_thresholding_ratio", _RATIO)
    for key, value in (("sample_max_value", bound), ("dynamic_thresholding_ratio", ratio)):
        if not is_number(value):
            raise UserError(f"{where}: {key} is {value!r:.60}: it must be a number")
    if bound == 1:
        return True, []
    if bound < 1:
        return True, [f"sample_max_value {bound:g} is not available: 1 takes its place"]
    notes = []
    if bound < UNBOUNDED:
        notes.append(f"sample_max_value {bound:g} is not available: there is no bound")
    if ratio != _RATIO:
        notes.append(f"dynamic_thresholding_ratio {ratio:g} is not available: it is {_RATIO}")
    return "dynamic", notes
