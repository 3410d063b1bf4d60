"""The options by which programs choose a sampler, and how they become the flat mapping.

The options of samplers and grids come from the tables: `Row.flags` names and explains them, and the
row has their types, choices and defaults. No torch is imported here, so that `--help` is quick.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import click

from diffusion import DEFAULT_STEPS
from samplers import DEFAULT_SAMPLER, GRIDS, SAMPLERS
from samplers.auto import AUTO, pick_for
from samplers.guidance_settings import Batch, Clip
from samplers.idle import idle_settings
from samplers.settings import (
    GenerationSettings,
    Precision,
    SolverDtype,
    flat_with_numbers,
    generation_settings,
    overlay,
)
from torch_utils.errors import UserError
from torch_utils.registry import Row
from torch_utils.yaml_files import parse_yaml


@dataclass(frozen=True)
class Flag:
    """An option of a program.

    Attributes:
        name: with dashes.
        key: where its value goes: with the prefix `guidance.` into that mapping, otherwise into the
            flat one.
        kind: int, float or str; `generation_settings` checks the value.
        metavar: what stands for the value.
        meaning: a line, with the default.
    """

    name: str
    key: str
    kind: type
    metavar: str
    meaning: str

    @property
    def parameter(self) -> str:
        """The keyword that its value arrives in."""
        return self.name[2:].replace("-", "_")


def _one_of(literal: Any) -> str:
    return "|".join(get_args(literal))


def _of_tables() -> Iterator[Flag]:
    """The options that the rows of grids and samplers offer as flags."""
    rows: list[tuple[str, Row]] = [(f"grid {name}", row) for name, row in GRIDS.items()]
    rows += SAMPLERS.items()
    for key in dict.fromkeys(key for _, row in rows for key in row.flags):
        owners = {name: row for name, row in rows if key in row.options}
        row = next(row for row in owners.values() if key in row.flags)
        is_one_kind = len({name.startswith("grid ") for name in owners}) == 1
        prefix = f"{', '.join(owners)}: " if is_one_kind and len(owners) < 3 else ""
        defaults = {owner.options[key] for owner in owners.values()} - {None}
        default = defaults.pop() if len(defaults) == 1 else None
        number = f"{default:g}" if isinstance(default, float) else default or "the sampler's"
        kind = type(row.options[key])
        metavar = {int: "INT", float: "FLOAT"}.get(kind) or "|".join(row.choices[key])
        meaning = row.flags[key]
        meaning = f"{prefix}{meaning[0].lower()}{meaning[1:]}" if prefix else meaning
        yield Flag(f"--{key}", key, kind, metavar, f"{meaning}  [default: {number}]")


def _flags() -> list[Flag]:
    of_sampler = [
        Flag("--sampler", "name", str, "NAME", "Sampler; docs/sampling.md lists them. auto: the "
             f"best one for few --calls.  [default: {DEFAULT_SAMPLER}]"),
        Flag("--steps", "steps", int, "INT", "Number of sampler steps.  "
             f"[default: the snapshot's, else the sampler's: {DEFAULT_STEPS} or more]"),
        Flag("--calls", "calls", int, "INT", "As many steps as make no more network calls for an "
             "image; instead of --steps."),
    ]  # fmt: skip
    grids = "|".join(["vp", "ve", "iddpm", "edm"])  # as published; any name of GRIDS works
    disc = "Noise levels, as `--sampler-option grid=`; edm is grid rho."
    of_guidance = [
        Flag("--guidance", "guidance.scale", str, "SCALE",
             "Guidance scale, or w=FLOAT for scale 1 + w."),
        Flag("--guidance-interval", "guidance.interval", str, "LO,HI",
             "Guide at noise levels above LO and up to HI only."),
        Flag("--guidance-clip", "guidance.clip", str, _one_of(Clip),
             "Clip both estimates before guiding, the result, or both.  "
             "[default: none, or after with --clip]"),
        Flag("--guidance-batch", "guidance.batch", str, _one_of(Batch),
             "One call on a doubled batch, or two calls.  [default: joint]"),
        Flag("--precision", "precision", str, _one_of(Precision),
             "Precision of the networks; auto: what the device is fast in.  [default: fp32]"),
        Flag("--solver-dtype", "solver_dtype", str, _one_of(SolverDtype),
             "Precision of the solver's state.  [default: float64, with --precision below fp32 "
             "float32]"),
    ]  # fmt: skip
    of_grid = Flag("--disc", "discretization", str, grids, disc)
    return [*of_sampler, *_of_tables(), of_grid, *of_guidance]


FLAGS = _flags()
# setting -> how it is given
NAMES = {flag.key: flag.name for flag in FLAGS} | {"clip": "--clip", "guide": "--guidance-network"}
ABLATION = ("solver", "disc", "schedule", "scaling")
PUBLISHED_UNREAD = ("S_churn", "S_min", "S_noise")


def sampler_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all options of this module; it gets their values as `sampler`, a mapping."""
    clip = "Clip the estimate of the clean image to [-1, 1] in every call.  [default: no-clip]"
    dynamic = (
        "Clip it at a quantile of its own values instead, and scale it (dynamic thresholding)."
    )
    randn_like = "ddb: correlated noises, which is sampler ito_taylor; db: ordinary noise."
    generic = "Any option of the sampler or its grid; repeatable."
    last = [
        click.option("--clip/--no-clip", "clip", default=None, help=clip),
        click.option("--dynamic-clip", is_flag=True, default=None, help=dynamic),
        click.option("--randn_like", type=click.Choice(["db", "ddb"]), help=randn_like),
        click.option(
            "--sampler-option", "sampler_option", metavar="KEY=VALUE", multiple=True, help=generic
        ),
    ]
    for option in reversed(last):
        command = option(command)
    for flag in reversed(FLAGS):
        command = click.option(
            flag.name, flag.parameter, type=flag.kind, metavar=flag.metavar, help=flag.meaning
        )(command)
    return command


def settings_of(
    stored: Mapping[str, Any], values: Mapping[str, Any], *, has_guide: bool = False
) -> tuple[GenerationSettings, list[str], list[str]]:
    """Read what was given on a command line, over what a snapshot has stored.

    Args:
        stored: the flat mapping of the snapshot.
        values: the values of the options of `sampler_options`; None where not given.
        has_guide: a guidance network was given.

    Returns:
        The settings, remarks on how options were read, and warnings of options without effect.

    Raises:
        UserError: values that cannot be used, or that contradict each other.
    """
    given = _flat(values)
    unread = []
    if values.get("randn_like") == "ddb":
        # the published solver takes these options and does not read them
        unread = [f"--{key}" for key in PUBLISHED_UNREAD if given.pop(key, None) is not None]
    wanted = overlay(stored, given)
    settings = generation_settings(wanted)
    warnings = [f"{flag} has no effect: --beta sets the noise of ito_taylor" for flag in unread]
    idle = idle_settings(given, settings, has_guide=has_guide)
    warnings += [f"{NAMES.get(key, key)} has no effect: {why}" for key, why in idle]
    remarks = [*_call_remarks(wanted, settings), *_remarks(given, settings)]
    if values.get("randn_like") == "ddb":
        remarks.insert(0, _correlated_noise(str(settings.options["scheme"])))
    return settings, remarks, warnings


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The given options as a flat mapping."""
    given: dict[str, Any] = {}
    guidance: dict[str, Any] = {}
    for flag in FLAGS:
        value = values.get(flag.parameter)
        if value is None:
            continue
        section, _, part = flag.key.rpartition(".")
        if flag.key == "guidance.scale":
            guidance |= _scale(value)
        elif section:
            guidance[part] = _pair(value) if part == "interval" else value
        else:
            given[flag.key] = value
    if values.get("clip") is not None:
        given["clip"] = values["clip"]
    if values.get("dynamic_clip"):
        if values.get("clip") is not None:
            raise UserError("--dynamic-clip and --clip or --no-clip: give one of them")
        given["clip"] = "dynamic"
    if guidance:
        given["guidance"] = guidance
    for key, value in _key_values(values.get("sampler_option") or ()).items():
        if key in given and given[key] != value:
            raise UserError(f"{key} was given twice: as {given[key]!r} and as {value!r}")
        given[key] = value
    return given | _implied_sampler(given, values)


def _implied_sampler(given: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler that EDM's and SA-DPM's options imply, if they do."""
    name = given.get("name")
    if values.get("randn_like") == "ddb":
        if name not in (None, "ito_taylor"):
            raise UserError(
                f"--randn_like=ddb is the noise of sampler ito_taylor, but --sampler={name}: "
                "leave one of them out"
            )
        return {"name": "ito_taylor"}
    if name is None and any(values.get(key) is not None for key in ABLATION):
        return {"name": "ablation"}
    return {}


def _scale(text: str) -> dict[str, Any]:
    """`2` or `w=0.1`."""
    name, equals, number = text.rpartition("=")
    if equals and name not in ("w", "scale"):
        raise UserError(f"--guidance={text}: give a scale, or w=FLOAT")
    try:
        return {name or "scale": float(number)}
    except ValueError:
        raise UserError(f"--guidance={text}: {number!r} is not a number") from None


def _pair(text: str) -> list[float | None]:
    """`LO,HI`; either may be empty."""
    parts = text.split(",")
    try:
        if len(parts) == 2:
            return [float(part) if part.strip() else None for part in parts]
    except ValueError:
        pass
    raise UserError(f"--guidance-interval={text}: give two noise levels, LO,HI")


def _key_values(entries: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE entries, the values in YAML; `1e-3` and `inf` are numbers where numbers belong.

    Raises:
        UserError: an entry of another form, or a key twice.
    """
    found: dict[str, Any] = {}
    for entry in entries:
        key, equals, text = entry.partition("=")
        if not (key and equals):
            raise UserError(f"--sampler-option {entry}: give KEY=VALUE")
        if key in found:
            raise UserError(f"--sampler-option {key} was given twice")
        found[key] = parse_yaml(text, f"--sampler-option {entry}")
    return flat_with_numbers(found)


def _call_remarks(wanted: Mapping[str, Any], settings: GenerationSettings) -> list[str]:
    """A line on what a number of calls has become."""
    if "calls" not in wanted:
        return []
    who, num, calls = f"sampler {settings.name}:", settings.steps, settings.num_calls
    grid = f"grid {settings.grid_name} ending at {settings.grid_end}"
    if wanted.get("name") == AUTO:
        who = f"sampler auto: {settings.name},"
        chosen = pick_for(calls)
        own = [f"{k}={v}" for k, v in chosen.items() if k not in ("name", "grid", "end")]
        grid += f" with {', '.join(own)}" if own else ""
    counts = [f"{num} step{'s' * (num != 1)}", f"{calls} call{'s' * (calls != 1)}"]
    return [f"{who} {counts[0]} on {grid}, {counts[1]}"]


def _remarks(given: Mapping[str, Any], settings: GenerationSettings) -> list[str]:
    """A line for each option with two published meanings: which of them it has here."""
    options = settings.options
    if options.get("scheme") == "published":
        level = options["S_max"]
        return [f"S_max={level:g}: the second-order branch is taken at noise levels from there up"]
    if "S_max" in given and options.get("S_churn"):
        level = options["S_max"]
        return [f"S_max={level:g}: the highest noise level that gets fresh noise (churn)"]
    return []


def _correlated_noise(scheme: str) -> str:
    """A line on how `--randn_like=ddb` was read."""
    if scheme == "published":
        return "--randn_like=ddb: sampler ito_taylor as published, scheme published"
    return (
        f"--randn_like=ddb: sampler ito_taylor, scheme {scheme}; what the published program "
        "computes is --scheme=published"
    )
