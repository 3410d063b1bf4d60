"""The settings of a generation, and the flat mapping that stands for them in recipes (`sampler:`),
in snapshots (`sampling:`) and in programs.

The mapping has `name`, `steps` (or `calls`) and `grid`, the options of the sampler and of its grid
side by side, and what is wrapped around the denoiser: `clip`, `guidance`, `precision` and
`solver_dtype`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, field_validator

from samplers import DEFAULT_SAMPLER, GRIDS, MAX_STEPS, SAMPLERS, SamplerRow
from samplers.auto import AUTO, COUNTS, WRAPPING, spelled_out, steps_for
from samplers.guidance_settings import Guidance, guidance_parts
from torch_utils.errors import UserError, unknown_name
from torch_utils.numbers import number
from torch_utils.registry import lookup
from torch_utils.sections import Section, validated

Clipping = bool | Literal["dynamic"]
SolverDtype = Literal["float64", "float32"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

# our key of a grid and EDM's, of its option --disc; and the name of a grid that EDM has another for
GRID_KEYS = ("grid", "discretization")
_GRID_NAMES = {"edm": "rho"}
# options that mean something else to other samplers: here a threshold, there the end of churn; here
# a share of the noise, there the strength of an SDE's; or whose best value is another one there
_OWN_MEANING = {
    "ito_taylor": ("S_max",),
    "ddim": ("eta",),
    **dict.fromkeys(("ipndm", "adams", "dpmpp", "unipc"), ("order",)),
}


class GenerationSettings(Section):
    """Everything but the model, the seeds and the labels; made by `generation_settings`.

    Attributes:
        name: key of SAMPLERS.
        steps: number of steps asked for.
        grid_name: key of GRIDS.
        grid: options of the time grid.
        options: options of the sampler.
        clip: clip D to [-1, 1] in every call; `dynamic`, as `diffusion.guidance.dynamic_clip` does.
        guidance: how labels or a second model guide; None for no guidance.
        precision: of the networks: fp32, bf16, fp16, or auto for what the device is fast in.
        solver_dtype: precision of the solver's state and arithmetic, float64 or float32; the
            noises are the same draws. None for what the precision of the networks asks for, see
            `at_precision`.
    """

    name: str
    steps: int = Field(ge=1, le=MAX_STEPS)
    grid_name: str
    grid: dict[str, Any]
    options: dict[str, Any]
    clip: Clipping = False
    guidance: Guidance | None = None
    precision: Precision = "fp32"
    solver_dtype: SolverDtype | None = None

    @field_validator("clip", mode="before")
    @classmethod
    def _clipping(cls, value: Any) -> Any:
        if not isinstance(value, bool) and value != "dynamic":
            raise ValueError("it must be true, false or dynamic")
        return value

    @property
    def row(self) -> SamplerRow:
        """The sampler's registry row."""
        return SAMPLERS[self.name]

    @property
    def clip_rule(self) -> str:
        """What is clipped, a key of diffusion.guidance.CLIPS."""
        if self.guidance is not None and self.guidance.clip is not None:
            return self.guidance.clip
        return "after" if self.clip else "none"

    @property
    def num_calls(self) -> int:
        """Calls of the denoiser for one image."""
        return self.row.num_calls(self.steps, self.options, self.grid_end == "zero")

    @property
    def grid_end(self) -> str:
        """Where the last step goes, one of diffusion.ENDS."""
        return str(self.grid.get("end", "zero"))

    def at_precision(self, precision: str) -> "GenerationSettings":
        """The same settings with networks in fp32, bf16 or fp16, and what follows from it.

        Unless it was given, the solver's dtype is float64 for networks in fp32 and float32 for
        others, whose rounding errors are a thousand times those of a float32 solver.
        """
        dtype = self.solver_dtype or ("float64" if precision == "fp32" else "float32")
        return self.model_copy(update={"precision": precision, "solver_dtype": dtype})

    def as_mapping(self) -> dict[str, Any]:
        """The flat form that `generation_settings` reads; it names a grid that is not the default.

        The default is the sampler's own.
        """
        flat: dict[str, Any] = {"name": self.name, "steps": self.steps}
        if self.grid_name != self.row.grid:
            flat["grid"] = self.grid_name
        flat |= {**self.options, **self.grid, "clip": self.clip, "precision": self.precision}
        if self.solver_dtype is not None:
            flat["solver_dtype"] = self.solver_dtype
        if self.guidance is not None:
            parts = self.guidance.model_dump(exclude_none=True)
            flat["guidance"] = parts | {"interval": list(self.guidance.interval)}
        return flat


def _chosen(mapping: Mapping[str, Any]) -> tuple[str, str]:
    """The sampler and the grid that a flat mapping names, or their defaults.

    Raises:
        UserError: an unknown sampler or grid, or two different grids.
    """
    name = DEFAULT_SAMPLER if mapping.get("name") is None else mapping["name"]
    if not isinstance(name, str):
        raise UserError(f"sampler name is {name!r}: give a name")
    row = lookup("sampler", SAMPLERS, name)
    named = [mapping[key] for key in GRID_KEYS if mapping.get(key) is not None]
    grids = {_GRID_NAMES.get(grid, grid) for grid in map(str, named)} or {row.grid}
    if len(grids) > 1:
        raise UserError(f"grid {named[0]} and discretization {named[1]} differ: give one of them")
    (grid,) = grids
    lookup("grid", GRIDS, grid)
    return name, grid


def _known_keys(mapping: Mapping[str, Any]) -> set[str]:
    """The keys that a flat mapping of the same sampler and grid may have."""
    if mapping.get("name") == AUTO:
        return {"name", "calls", *WRAPPING}
    name, grid = _chosen(mapping)
    return {"name", *COUNTS, *GRID_KEYS, *WRAPPING, *SAMPLERS[name].options, *GRIDS[grid].options}


def _unknown_option(sampler: str, grid: str, key: str, known: Iterable[str]) -> UserError:
    """The error for an option that neither a sampler nor its grid has; it says which ones do."""
    owners = [f"grid {name}" for name, row in GRIDS.items() if key in row.options]
    owners += [f"sampler {name}" for name, row in SAMPLERS.items() if key in row.options]
    if owners:
        return UserError(
            f"{key} is an option of {', '.join(owners)}, not of sampler {sampler} on grid {grid}"
        )
    return unknown_name(f"option of sampler {sampler}:", key, known)


def generation_settings(mapping: Mapping[str, Any]) -> GenerationSettings:
    """Read the flat form.

    If sampler and grid share an option, it has one value for both; the default is the sampler's.

    Args:
        mapping: e.g. {"name": "heun", "steps": 18, "clip": True, "guidance": {"w": 0.1}}. Keys that
            are left out or None have their defaults. `grid` replaces the sampler's default grid.
            `calls` in place of `steps` takes as many steps as make no more calls; with it, the name
            may be `auto`.

    Raises:
        UserError: unknown sampler, grid or key, or a value that cannot be used.
    """
    given = spelled_out(mapping)
    name, grid_name = _chosen(given)
    given = {key: value for key, value in given.items() if key not in ("name", *GRID_KEYS)}
    row, grid = SAMPLERS[name], GRIDS[grid_name]
    common = {key: row.options[key] for key in grid.options if row.options.get(key) is not None}
    grid = replace(grid, options={**grid.options, **common})
    common = {key: grid.options[key] for key in row.options if key in grid.options}
    row = replace(row, options={**row.options, **common})
    for key in given:
        if key not in {*COUNTS, *WRAPPING, *row.options, *grid.options}:
            known = ["name", *COUNTS, *GRID_KEYS, *row.options, *grid.options, *WRAPPING]
            raise _unknown_option(name, grid_name, key, known)
    owner = f"sampler {name}"
    grid_options = grid.resolve(owner, {k: v for k, v in given.items() if k in grid.options})
    options = row.resolve(owner, {k: v for k, v in given.items() if k in row.options})
    tree = {key: given[key] for key in WRAPPING if key in given}
    tree |= {"name": name, "grid_name": grid_name, "grid": grid_options, "options": options}
    if "calls" not in given:
        tree["steps"] = given["steps"] if "steps" in given else row.steps(options)
    elif "steps" in given:
        raise UserError(f"steps {given['steps']} and calls {given['calls']}: give one of them")
    else:
        end = str(grid_options.get("end", "zero"))
        tree["steps"] = steps_for(given["calls"], name, row, options, end)
    settings: GenerationSettings = validated(GenerationSettings, tree, owner)
    return settings.at_precision("fp32") if settings.precision == "fp32" else settings


def with_steps(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings with a number of steps and the sampler's own name, if it has `calls`."""
    if mapping.get("calls") is None:
        return dict(mapping)
    flat = spelled_out(mapping)
    del flat["calls"]
    return {**flat, "steps": generation_settings(mapping).steps}


def flat_with_numbers(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn numbers of a flat mapping that a YAML reader left as text into numbers.

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


def overlay(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Lay what is given now over what was stored.

    A stored grid belongs to its sampler, and stored options belong to their sampler and grid. If
    another one is given, they are left behind, except options that the new one has as well. Stored
    steps or calls are left behind if either is given.

    Args:
        stored: the flat form, e.g. of a snapshot.
        given: the same, e.g. of a command line. Its `guidance` may lack a scale: then the stored
            scale counts, and if that is missing, too, there is no guidance.

    Raises:
        UserError: there is no such sampler or grid.
    """
    old = stored.get("name", DEFAULT_SAMPLER)
    new = given.get("name", old)
    has_grid = any(key in given for key in GRID_KEYS)
    left_behind: set[str] = set(GRID_KEYS) if has_grid or new != old else set()
    if new != old:
        left_behind |= {*_OWN_MEANING.get(old, ()), *_OWN_MEANING.get(new, ())}
    if any(given.get(key) is not None for key in COUNTS):
        left_behind |= set(COUNTS)
    kept = {key: value for key, value in stored.items() if key not in left_behind}
    if has_grid or new != old:
        known = _known_keys({**kept, **given})
        kept = {key: value for key, value in kept.items() if key in known}
    merged = {**kept, **given}
    guidance = {**guidance_parts(kept.get("guidance")), **guidance_parts(given.get("guidance"))}
    merged.pop("guidance", None)
    if "scale" in guidance:
        merged["guidance"] = guidance
    return merged
