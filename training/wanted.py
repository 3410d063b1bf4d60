"""The config that was asked for: defaults or a run's own config, recipe, options, overrides.

Some options of the published training commands stand for terms of the loss. CDM: --precond=cdm,
--martingale_lambda, --martingale_steps. SA-DPM: --lamda and --num_consecutive_steps. They change
the terms of the recipe, or add them.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion.preconditioning import PRESETS
from torch_utils.errors import UserError, unknown_name
from torch_utils.registry import split_name
from training.config import TrainingConfig
from training.recipes import load_config
from training.run_dir import read_run_config, run_of

_TERMS = "loss.terms."  # keys below it are options of a term by its name


def wanted_config(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    options: Mapping[str, Any] | None = None,
    flags: Mapping[str, str] | None = None,
    resume: str | None = None,
) -> TrainingConfig:
    """The config that a command line, or a caller from Python, asks for.

    Args:
        recipe: YAML file, or its content as a mapping.
        overrides: `section.key=value` texts; they come last.
        options: dotted key -> value; None for one that was not given. `preconditioning.name` may be
            `cdm`: EDM's preconditioning and CDM's term. `loss.terms.NAME.OPTION` is of that term.
        flags: dotted key -> the option that sets it, for messages.
        resume: a run directory, or a state in it, whose config takes the place of the defaults.

    Raises:
        UserError: a key or value does not fit; the message names what set it.
    """
    base = None
    if resume not in (None, "latest"):
        base = read_run_config(run_of(resume)).model_dump()
        base["data"]["key"] = base["run"]["batch_gpu"] = None  # found anew, and compared
    given = {key: value for key, value in (options or {}).items() if value is not None}
    preset = given.get("preconditioning.name")
    is_cdm = preset == "cdm"
    if is_cdm:
        given["preconditioning.name"] = "edm"
    elif preset is not None and preset not in PRESETS:
        raise unknown_name("preconditioning", preset, [*PRESETS, "cdm"])
    terms, tree = dict[str, Any](), dict[str, Any]()
    for key, value in given.items():
        if key.startswith(_TERMS):
            terms[key] = value
        else:
            section, name = key.split(".")
            tree.setdefault(section, {})[name] = value
    config = load_config(recipe, tree, overrides, base=base, flags=flags)
    config = _with_terms(config, terms, flags or {}, is_cdm=is_cdm)
    if config.data.path is None:
        raise UserError("no data set: give --data=ZIP|DIR or data.path in the recipe")
    return config


def _with_terms(
    config: TrainingConfig, given: Mapping[str, Any], flags: Mapping[str, str], *, is_cdm: bool
) -> TrainingConfig:
    """Change options of a config's loss terms, or add the terms.

    Raises:
        UserError: an option of CDM's term on a run without that term.
    """
    entries = (split_name("loss.terms entry", entry) for entry in config.loss.terms)
    terms: dict[str, dict[str, Any]] = dict(entries)
    if is_cdm:
        terms.setdefault("consistency", {})
    for key, value in given.items():
        name, option = key.removeprefix(_TERMS).split(".")
        if name == "consistency" and name not in terms:
            raise UserError(
                f"{flags.get(key, key)}={value} needs a run with the consistency term: give "
                "--precond=cdm"
            )
        terms.setdefault(name, {})[option] = value
    # lambda 0 removes the term, whatever K is: the published base models have K = 0
    if given.get(f"{_TERMS}sequence_aware.lambda") == 0:
        terms.pop("sequence_aware", None)
    changed = tuple({"name": name, **more} if more else name for name, more in terms.items())
    loss = config.loss.model_copy(update={"terms": changed})
    return config.model_copy(update={"loss": loss})
