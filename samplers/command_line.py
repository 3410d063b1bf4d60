"""The options by which programs choose a sampler, and their way into the flat mapping.

No torch here, so that `--help` answers at once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from samplers.options import (
    BATCHES,
    SOLVER_DTYPES,
    GenerationSettings,
    flat_with_numbers,
    generation_settings,
    overlay,
)
from torch_utils.errors import UserError
from torch_utils.yaml_files import parse_yaml

_METAVARS = {
    "--sampler": "NAME",
    "--scheme": "NAME",
    "--spacing": "NAME",
    "--guidance": "SCALE",
    "--guidance-interval": "LO,HI",
}

# flag, where its value goes ("guidance." into that mapping, else the flat one), type, meaning
OPTIONS: list[tuple[str, str, Any, str]] = [
    ("--sampler", "name", str, "Sampler; docs/sampling.md lists them.  [default: heun]"),
    (
        "--steps",
        "steps",
        int,
        "Number of sampler steps.  [default: the snapshot's, else the sampler's: 18 or more]",
    ),
    ("--sigma_min", "sigma_min", float, "Lowest noise level.  [default: the grid's]"),
    ("--sigma_max", "sigma_max", float, "Highest noise level.  [default: the grid's]"),
    ("--rho", "rho", float, "Exponent of the grid rho.  [default: 7]"),
    ("--S_churn", "S_churn", float, "Amount of fresh noise; 0 is deterministic.  [default: 0]"),
    ("--S_min", "S_min", float, "Lowest level that gets fresh noise.  [default: 0]"),
    (
        "--S_max",
        "S_max",
        float,
        "Highest level that gets fresh noise; for ito_taylor with scheme published, the level from "
        "which its second-order branch is taken.  [default: the sampler's]",
    ),
    ("--S_noise", "S_noise", float, "Scale of the fresh noise.  [default: 1]"),
    ("--eta", "eta", float, "ddim: share of fresh noise, 0 to 1.  [default: 0]"),
    ("--scheme", "scheme", str, "ito_taylor: which second-order step.  [default: strong1.5]"),
    ("--beta", "beta", float, "ito_taylor, sra1: amount of noise; 0 is the ODE.  [default: 1]"),
    ("--spacing", "spacing", str, "Grid steps: which of the levels.  [default: exact]"),
    ("--solver", "solver", click.Choice(["euler", "heun"]), "ablation: solver.  [default: heun]"),
    (
        "--disc",
        "discretization",
        click.Choice(["vp", "ve", "iddpm", "edm"]),
        "Noise levels, as `--sampler-option grid=`; edm is grid rho.",
    ),
    (
        "--schedule",
        "schedule",
        click.Choice(["vp", "ve", "linear"]),
        "ablation: noise level as a function of time.  [default: linear]",
    ),
    (
        "--scaling",
        "scaling",
        click.Choice(["vp", "none"]),
        "ablation: scale of the state.  [default: none]",
    ),
    ("--guidance", "guidance.scale", str, "Guidance scale, or w=FLOAT for scale 1 + w."),
    (
        "--guidance-interval",
        "guidance.interval",
        str,
        "Guide at noise levels above LO and up to HI only.",
    ),
    (
        "--guidance-clip",
        "guidance.clip",
        click.Choice(["none", "before", "after", "both"]),
        "Clip both estimates before guiding, the result, or both.  [default: none, or after "
        "with --clip]",
    ),
    (
        "--guidance-batch",
        "guidance.batch",
        click.Choice(list(BATCHES)),
        "One call on a doubled batch, or two calls.  [default: joint]",
    ),
    (
        "--solver-dtype",
        "solver_dtype",
        click.Choice(list(SOLVER_DTYPES)),
        "Precision of the solver's state.  [default: float64]",
    ),
]

ABLATION = ("--solver", "--disc", "--schedule", "--scaling")
CHURN = ("S_min", "S_max", "S_noise")
PUBLISHED_UNREAD = ("S_churn", "S_min", "S_noise")


def sampler_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all options of this module; it gets their values as `sampler`, a mapping."""
    clip = "Clip the estimate of the clean image to [-1, 1] in every call.  [default: no-clip]"
    randn_like = "ddb: correlated noises, which is sampler ito_taylor; db: ordinary noise."
    generic = "Any option of the sampler or its grid; repeatable."
    last = [
        click.option("--clip/--no-clip", "clip", default=None, help=clip),
        click.option("--randn_like", type=click.Choice(["db", "ddb"]), help=randn_like),
        click.option(
            "--sampler-option", "sampler_option", metavar="KEY=VALUE", multiple=True, help=generic
        ),
    ]
    for option in reversed(last):
        command = option(command)
    for flag, _, kind, meaning in reversed(OPTIONS):
        metavar = _METAVARS.get(flag) or {int: "INT", float: "FLOAT"}.get(kind)
        option = click.option(flag, _name(flag), type=kind, metavar=metavar, help=meaning)
        command = option(command)
    return command


def _name(flag: str) -> str:
    """The parameter that a flag's value arrives in."""
    return flag[2:].replace("-", "_")


def settings_of(
    stored: Mapping[str, Any], values: Mapping[str, Any], *, has_guide: bool = False
) -> tuple[GenerationSettings, list[str], list[str]]:
    """Read what was given on a command line, over what a snapshot has stored.

    Args:
        stored: the flat mapping of the snapshot.
        values: the values of the options of `sampler_options`; None where not given.
        has_guide: a guidance network was given.

    Returns:
        The settings, remarks on how options were read, warnings of options without effect.

    Raises:
        UserError: values that cannot be used, or that contradict each other.
    """
    given = _flat(values)
    unread = []
    if values.get("randn_like") == "ddb":
        # the published solver takes these options and does not read them
        unread = [f"--{key}" for key in PUBLISHED_UNREAD if given.pop(key, None) is not None]
    settings = generation_settings(overlay(stored, given))
    warnings = [f"{flag} has no effect: --beta sets the noise of ito_taylor" for flag in unread]
    warnings += _warnings(given, settings, has_guide)
    remarks = _remarks(given, settings)
    if values.get("randn_like") == "ddb":
        remarks.insert(0, _correlated_noise(str(settings.sampler.options["scheme"])))
    return settings, remarks, warnings


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The flat mapping of what was given."""
    given: dict[str, Any] = {}
    guidance: dict[str, Any] = {}
    for flag, key, _, _ in OPTIONS:
        value = values.get(_name(flag))
        if value is None:
            continue
        section, _, part = key.rpartition(".")
        if key == "guidance.scale":
            guidance |= _scale(value)
        elif section:
            guidance[part] = _pair(value) if part == "interval" else value
        else:
            given[key] = value
    if values.get("clip") is not None:
        given["clip"] = values["clip"]
    if guidance:
        given["guidance"] = guidance
    for key, value in _key_values(values.get("sampler_option") or ()).items():
        if key in given and given[key] != value:
            raise UserError(f"{key} was given twice: as {given[key]!r} and as {value!r}")
        given[key] = value
    return given | _implied_sampler(given, values)


def _implied_sampler(given: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler that published options stand for."""
    name = given.get("name")
    if values.get("randn_like") == "ddb":
        if name not in (None, "ito_taylor"):
            raise UserError(
                f"--randn_like=ddb is the noise of sampler ito_taylor, but --sampler={name}: "
                "leave one of them out"
            )
        return {"name": "ito_taylor"}
    if name is None and any(values.get(_name(flag)) is not None for flag in ABLATION):
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
        UserError: an entry that is none, or a key twice.
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


def _remarks(given: Mapping[str, Any], settings: GenerationSettings) -> list[str]:
    """How options were read that have two published meanings."""
    options = settings.sampler.options
    if options.get("scheme") == "published":
        level = options["S_max"]
        return [f"S_max={level:g}: the second-order branch is taken at noise levels from there up"]
    if "S_max" in given and options.get("S_churn"):
        return [f"S_max={given['S_max']:g}: the highest noise level that gets fresh noise (churn)"]
    return []


def _correlated_noise(scheme: str) -> str:
    """What `--randn_like=ddb` came to mean."""
    if scheme == "published":
        return "--randn_like=ddb: sampler ito_taylor as published, scheme published"
    return (
        f"--randn_like=ddb: sampler ito_taylor, scheme {scheme}; what the published program "
        "computes is --scheme=published"
    )


def _warnings(given: Mapping[str, Any], settings: GenerationSettings, has_guide: bool) -> list[str]:
    """One line for each option that was given and changes nothing."""
    options = settings.sampler.options
    idle: list[tuple[str, str]] = []
    if not options.get("S_churn", math.inf):
        idle += [(f"--{key}", "S_churn is 0") for key in CHURN if key in given]
    if "S_max" in given and options.get("scheme", "published") != "published":
        idle += [("--S_max", f"scheme {options['scheme']} does not read it")]
    if "fraction" in given and options.get("variance") != "interpolated":
        idle += [("fraction", f"variance is {options['variance']}, not interpolated")]
    guidance = settings.guidance
    parts = given.get("guidance", {})
    parts = parts if isinstance(parts, Mapping) else {"scale": parts}
    if guidance is None or not guidance.is_active:
        why = "there is no guidance" if guidance is None else "a guidance scale of 1 is no guidance"
        idle += [(f"--guidance-{key}", why) for key in ("interval", "batch") if key in parts]
        idle += [("--guidance-clip", why)] if "clip" in parts and guidance is None else []
        idle += [("--guidance-network", why)] if guidance is not None and has_guide else []
    elif "batch" in parts and has_guide:
        idle += [("--guidance-batch", "two networks are always called one after the other")]
    if "clip" in given and guidance is not None and guidance.clip is not None:
        idle += [("--clip", f"the guidance has clip {guidance.clip}")]
    return [f"{flag} has no effect: {why}" for flag, why in idle]
