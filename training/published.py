"""Options of the published training commands that stand for terms of the loss.

CDM: --precond=cdm, --martingale_lambda, --martingale_steps. SA-DPM: --lamda and
--num_consecutive_steps. They change the terms of the recipe, or add them.
"""

from collections.abc import Mapping
from typing import Any

from diffusion.preconditioning import PRESETS
from torch_utils.errors import UserError, unknown_name
from torch_utils.registry import split_name
from training.config import TrainingConfig

# option -> (term, key of the term)
TERM_OPTIONS = {
    "martingale_lambda": ("consistency", "lambda"),
    "martingale_steps": ("consistency", "num_steps"),
    "lamda": ("sequence_aware", "lambda"),
    "num_consecutive_steps": ("sequence_aware", "K"),
}


def preset_of(precond: str | None) -> tuple[str | None, bool]:
    """What --precond stands for: the preconditioning, and whether it brings CDM's term.

    Raises:
        UserError: no preconditioning has this name.
    """
    if precond == "cdm":
        return "edm", True
    if precond is not None and precond not in PRESETS:
        raise unknown_name("preconditioning", precond, [*PRESETS, "cdm"])
    return precond, False


def with_terms(
    config: TrainingConfig, given: Mapping[str, Any], *, is_cdm: bool = False
) -> TrainingConfig:
    """Change a config's loss terms as published options ask.

    Args:
        config: as read.
        given: option, a key of TERM_OPTIONS -> value; None for one that was not given.
        is_cdm: add the consistency term if there is none.

    Raises:
        UserError: an option of CDM's on a run without its term.
    """
    terms: dict[str, dict[str, Any]] = {}
    for entry in config.loss.terms:
        name, options = split_name("loss.terms entry", entry)
        terms[name] = options
    if is_cdm:
        terms.setdefault("consistency", {})
    for option, (name, key) in TERM_OPTIONS.items():
        value = given.get(option)
        if value is None:
            continue
        if name == "consistency" and name not in terms:
            raise UserError(
                f"--{option}={value} needs a run with the consistency term: give --precond=cdm"
            )
        terms.setdefault(name, {})[key] = value
    # K counts for nothing without the term, and the published base models have K = 0
    if given.get("lamda") == 0:
        terms.pop("sequence_aware", None)
    entries = [{"name": name, **options} if options else name for name, options in terms.items()]
    return config.model_copy(
        update={"loss": config.loss.model_copy(update={"terms": tuple(entries)})}
    )
