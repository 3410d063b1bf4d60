"""A number of network calls in place of a number of steps, and the sampler `auto`.

`PICKS` says which solver and grid are best for few calls, as measured by benchmarks/few_steps.py:
on exact denoisers and on a model of real digits (docs/sampling.md, "Few steps"). No torch here.
"""

from collections.abc import Mapping
from typing import Any

from samplers import MAX_STEPS, SamplerRow
from samplers.row import Options
from torch_utils.errors import UserError

AUTO = "auto"
COUNTS = ("steps", "calls")  # two ways to say how much work an image takes
WRAPPING = ("clip", "guidance", "precision", "solver_dtype")  # the keys that are not the sampler's

# calls -> the flat settings of solver and grid. Each makes one call a step and ends at 0, because a
# model's least noise level may be one that can be seen.
_GRID = {"grid": "log_sigma", "sigma_min": 0.03, "end": "zero"}
PICKS: dict[int, dict[str, Any]] = {
    5: {"name": "ipndm", "order": 3, **_GRID},
    6: {"name": "ipndm", "order": 3, **_GRID},
    8: {"name": "ipndm", "order": 3, **_GRID},
    10: {"name": "ipndm", "order": 3, **_GRID},
    15: {"name": "ipndm", "order": 4, **_GRID},
    20: {"name": "ipndm", "order": 4, **_GRID},
}


def pick_for(calls: int) -> dict[str, Any]:
    """The settings for a number of calls: those of the largest number in the table up to it.

    Fewer calls than the table has get the settings of its smallest number.
    """
    return PICKS[max((known for known in PICKS if known <= calls), default=min(PICKS))]


def spelled_out(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A flat mapping in which `auto` has become the name, grid and options that it stands for.

    Args:
        mapping: of any sampler; `calls` stays in it.

    Raises:
        UserError: auto without calls, or with steps or options of a sampler or grid.
    """
    flat = {key: value for key, value in mapping.items() if value is not None}
    if flat.get("name") != AUTO:
        return flat
    del flat["name"]
    if "steps" in flat:
        raise UserError(
            "sampler auto chooses the number of steps: give the number of network calls, calls "
            "(--calls), in place of steps (--steps)"
        )
    if "calls" not in flat:
        raise UserError("sampler auto needs a number of network calls: give calls (--calls)")
    for key in flat:
        if key not in ("calls", *WRAPPING):
            raise UserError(
                f"sampler auto takes calls, {', '.join(WRAPPING)}, not {key}: leave it out, or "
                "name a sampler"
            )
    return {**pick_for(checked_calls(flat["calls"])), **flat}


def checked_calls(calls: Any) -> int:
    """A number of calls that was given.

    Raises:
        UserError: it is not a whole number of 1 or more.
    """
    if not isinstance(calls, int) or isinstance(calls, bool) or calls < 1:
        raise UserError(f"calls is {calls!r}: it must be a whole number of 1 or more")
    return calls


def steps_for(calls: Any, name: str, row: SamplerRow, options: Options, end: str) -> int:
    """The largest number of steps that makes no more than so many calls.

    Args:
        calls: as given.
        name, row, options: the sampler.
        end: where the last step goes, one of diffusion.ENDS.

    Raises:
        UserError: a single step makes more calls, or it is not a number of calls.
    """
    wanted = checked_calls(calls)

    def made(steps: int) -> int:
        return row.num_calls(steps, options, end == "zero")

    if made(1) > wanted:
        raise UserError(f"calls is {wanted}: a single step of sampler {name} makes {made(1)}")
    low, high = 1, MAX_STEPS + 1  # the calls of low steps are few enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if made(middle) <= wanted else (low, middle)
    return low
