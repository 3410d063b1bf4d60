"""All that generating needs beside a model: the sampler, and what is wrapped around the denoiser.

One flat mapping, as recipes (`sampler:`), snapshots (`sampling:`) and command lines hold it: the
keys of samplers.settings, and beside them `clip`, `guidance` and `solver_dtype`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from samplers import GRIDS, SAMPLERS
from samplers.settings import SamplerSettings, chosen_grid, settings_from, unknown_option
from torch_utils.errors import UserError, unknown_name
from torch_utils.numbers import number

DEFAULT_SAMPLER = "heun"
GRID_KEYS = ("grid", "discretization")  # ours, and the published one
BATCHES = ("joint", "split")
SOLVER_DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Guidance:
    """How the model is guided; see diffusion.guidance.

    Attributes:
        scale: s; 1 is no guidance, 0 the unconditional model or the guide alone.
        interval: (low, high): guide where low < sigma <= high.
        clip: key of diffusion.guidance.CLIPS; None for `after` if `clip` is set, else `none`.
        batch: joint, one call on a doubled batch; or split, two calls.
    """

    scale: float
    interval: tuple[float, float] = (0.0, math.inf)
    clip: str | None = None
    batch: str = "joint"

    @property
    def is_active(self) -> bool:
        """Whether two estimates are combined anywhere."""
        return self.scale != 1


@dataclass(frozen=True)
class GenerationSettings:
    """Everything but the model, the seeds and the labels.

    Attributes:
        sampler: the sampler with its options and its grid.
        clip: clip D to [-1, 1] in every call.
        guidance: how labels or a second model guide; None for not at all.
        solver_dtype: precision of the solver's state and arithmetic, float64 or float32; the
            noises are the same draws.
    """

    sampler: SamplerSettings
    clip: bool = False
    guidance: Guidance | None = None
    solver_dtype: str = "float64"

    def as_mapping(self) -> dict[str, Any]:
        """The flat form that `generation_settings` reads."""
        flat = {**self.sampler.as_mapping(), "clip": self.clip, "solver_dtype": self.solver_dtype}
        if self.guidance is not None:
            parts = asdict(self.guidance) | {"interval": list(self.guidance.interval)}
            flat["guidance"] = {key: value for key, value in parts.items() if value is not None}
        return flat

    @property
    def clip_rule(self) -> str:
        """What is clipped, a key of diffusion.guidance.CLIPS."""
        if self.guidance is not None and self.guidance.clip is not None:
            return self.guidance.clip
        return "after" if self.clip else "none"


WRAPPING = ("clip", "guidance", "solver_dtype")  # the keys that are not the sampler's

# options that mean something else to other samplers: a threshold, not the end of a churn window
_OWN_MEANING = {"ito_taylor": ("S_max",)}


def generation_settings(mapping: Mapping[str, Any]) -> GenerationSettings:
    """Read the flat form.

    Args:
        mapping: e.g. {"name": "heun", "steps": 18, "clip": True, "guidance": {"w": 0.1}}; what is
            left out has its default. `guidance` is a scale, or a mapping with `scale` or `w`
            (scale = 1 + w), `interval` ([low, high], null for no bound), `clip` and `batch`.

    Raises:
        UserError: unknown keys, or values that cannot be used.
    """
    sampler = {key: value for key, value in mapping.items() if key not in WRAPPING}
    if not isinstance(sampler.get("name", DEFAULT_SAMPLER), str):
        raise UserError(f"sampler name is {sampler['name']!r}: give a name")
    known = known_keys(sampler)
    for key in sampler:
        if key not in known:
            name = sampler.get("name", DEFAULT_SAMPLER)
            raise unknown_option(name, chosen_grid(sampler), key, [*known, *WRAPPING])
    clip = mapping.get("clip", False)
    if not isinstance(clip, bool):
        raise UserError(f"clip is {clip!r}: it must be true or false")
    dtype = _one_of("solver_dtype", mapping.get("solver_dtype", "float64"), SOLVER_DTYPES)
    guidance = _guidance(mapping.get("guidance"))
    return GenerationSettings(settings_from(sampler), clip, guidance, dtype)


def flat_with_numbers(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A flat mapping in which numbers that a reader left as text are numbers.

    An option has the same type in every sampler and grid that has it.
    """
    mended = dict(flat)
    for row in (*GRIDS.values(), *SAMPLERS.values()):
        known = {key: value for key, value in mended.items() if key in row.options}
        mended |= row.with_numbers(known)
    guidance = mended.get("guidance")
    if isinstance(guidance, Mapping):
        mended["guidance"] = {key: _numbers(value) for key, value in guidance.items()}
    elif "guidance" in mended:
        mended["guidance"] = number(guidance)
    return mended


def _numbers(value: Any) -> Any:
    return list(map(number, value)) if isinstance(value, list) else number(value)


def known_keys(mapping: Mapping[str, Any]) -> set[str]:
    """The keys that a flat mapping may have for its sampler and grid, other than `WRAPPING`.

    Raises:
        UserError: there is no such sampler or grid.
    """
    grid = GRIDS[chosen_grid(mapping)]
    row = SAMPLERS[mapping.get("name", DEFAULT_SAMPLER)]
    return {"name", "steps", *GRID_KEYS, *grid.options, *row.options}


def overlay(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given now over what was stored.

    A stored grid belongs to its sampler, and stored options to their sampler and grid: where
    another one is given, they are left behind unless that one has the same option.

    Args:
        stored: the flat form, e.g. of a snapshot.
        given: the same, e.g. of a command line; its `guidance` may lack a scale, which is then
            the stored one, or without any there is no guidance.

    Raises:
        UserError: there is no such sampler or grid.
    """
    left_behind: set[str] = set()
    old = stored.get("name", DEFAULT_SAMPLER)
    new = given.get("name", old)
    if new != old:
        left_behind |= {*GRID_KEYS, *_OWN_MEANING.get(old, ()), *_OWN_MEANING.get(new, ())}
    if any(key in given for key in GRID_KEYS):
        left_behind |= set(GRID_KEYS)
    kept = {key: value for key, value in stored.items() if key not in left_behind}
    if left_behind:
        known = known_keys({**kept, **given})
        kept = {key: value for key, value in kept.items() if key in {*known, *WRAPPING}}
    merged = {**kept, **given}
    guidance = {**_as_parts(kept.get("guidance")), **_as_parts(given.get("guidance"))}
    merged.pop("guidance", None)
    if "scale" in guidance:
        merged["guidance"] = guidance
    return merged


def _as_parts(value: Any) -> dict[str, Any]:
    """Guidance as a mapping whose scale, if any, is called `scale`.

    Raises:
        UserError: it is no guidance.
    """
    if value is None:
        return {}
    parts = dict(value) if isinstance(value, Mapping) else {"scale": value}
    if "w" in parts:
        if "scale" in parts:
            raise UserError("guidance has both scale and w: give one of them, scale = 1 + w")
        parts["scale"] = 1 + _number("guidance w", parts.pop("w"))
    return parts


def _guidance(value: Any) -> Guidance | None:
    """Read a scale or a mapping.

    Raises:
        UserError: unknown keys, or values that cannot be used.
    """
    from diffusion.guidance import CLIPS

    if value is None:
        return None
    parts = _as_parts(value)
    known = ("scale", "interval", "clip", "batch")
    for key in parts:
        if key not in known:
            raise unknown_name("key of guidance:", key, [*known, "w"])
    if "scale" not in parts:
        raise UserError("guidance has no scale: give scale, or w = scale - 1")
    clip = parts.get("clip")
    return Guidance(
        _number("guidance scale", parts["scale"]),
        _interval(parts.get("interval")),
        None if clip is None else _one_of("guidance clip", clip, CLIPS),
        _one_of("guidance batch", parts.get("batch", "joint"), BATCHES),
    )


def _number(what: str, value: Any) -> float:
    """A finite number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise UserError(f"{what} is {value!r}: it must be a number")
    return float(value)


def _one_of(what: str, value: Any, choices: Any) -> str:
    """One of some names."""
    if not isinstance(value, str) or value not in choices:
        raise UserError(f"{what} is {value!r}: it must be one of {', '.join(choices)}")
    return value


def _interval(value: Any) -> tuple[float, float]:
    """(low, high) of noise levels; None, for all or for either, is no bound."""
    if value is None:
        return 0.0, math.inf
    wrong = f"guidance interval is {value!r}: give two noise levels, the lower one first"
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise UserError(wrong)
    bounds = []
    for bound, default in zip(value, (0.0, math.inf), strict=True):
        number = default if bound is None else bound
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            raise UserError(wrong)
        bounds.append(float(number))
    if not 0 <= bounds[0] < bounds[1]:
        raise UserError(wrong)
    return bounds[0], bounds[1]
