"""Training objectives over a denoiser: noise level, weighting, reduction and a sum of terms.

The tables below are torch-free; `create` imports what it needs.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch_utils.errors import UserError
from torch_utils.registry import Row, lookup, merge_options, split_name

if TYPE_CHECKING:
    from losses.objective import Objective

NOISE_LEVELS = {
    "lognormal": Row(
        target="losses.levels:LogNormal",
        options={"P_mean": -1.2, "P_std": 1.2},
        summary="ln(sigma) ~ N(P_mean, P_std^2); EDM, Eq. 8 and Table 1",
    ),
    "vp": Row(
        target="losses.levels:VPTime",
        options={"epsilon_t": 1e-5},
        summary="a uniform time of the variance-preserving SDE; EDM, Table 1",
    ),
    "log_uniform": Row(
        target="losses.levels:LogUniform",
        options={"sigma_min": 0.02, "sigma_max": 100.0},
        summary="ln(sigma) uniform; EDM, Table 1, column VE",
    ),
}

WEIGHTS = {
    "edm": Row(
        target="losses.weights:edm",
        options={"sigma_data": 0.5},
        summary="(sigma^2 + sigma_data^2) / (sigma sigma_data)^2; EDM, Table 1",
    ),
    "snr": Row(
        target="losses.weights:snr",
        summary="1 / sigma^2; DDPM, Eq. 14",
    ),
}

TERMS = {
    "denoising": Row(
        target="losses.terms:Denoising",
        summary="w(sigma) |D - y|^2, denoising score matching; EDM, Eq. 2",
    ),
}

# preconditioning -> (noise level, weight) that it was published with
PUBLISHED = {"edm": ("lognormal", "edm"), "vp": ("vp", "snr"), "ve": ("log_uniform", "snr")}

REDUCTIONS = ("sum", "mean")


def create(
    *,
    noise_level: str | Mapping[str, Any] = "lognormal",
    weight: str | Mapping[str, Any] = "edm",
    reduction: str = "sum",
    terms: Sequence[str | Mapping[str, Any]] = ("denoising",),
    sigma_data: float = 0.5,
) -> "Objective":
    """Build a training objective.

    Args:
        noise_level: distribution of sigma, a key of NOISE_LEVELS, with options if a mapping.
        weight: weighting w(sigma), a key of WEIGHTS.
        reduction: "sum" or "mean" over channels and pixels; over samples it is always the mean.
        terms: what is summed, keys of TERMS.
        sigma_data: the model's; the weighting's default.

    Raises:
        UserError: unknown names or options, or no term at all.
    """
    from losses.objective import Objective

    if reduction not in REDUCTIONS:
        raise UserError(f"loss.reduction is {reduction!r}: it must be one of sum, mean")
    if not terms:
        raise UserError("loss.terms is empty: give at least one, e.g. [denoising]")
    level_name, level_options = split_name("loss.noise_level", noise_level)
    level = lookup("noise level", NOISE_LEVELS, level_name)
    weight_name, weight_options = split_name("loss.weight", weight)
    weighting = lookup("weight", WEIGHTS, weight_name)
    if "sigma_data" in weighting.options:
        weight_options.setdefault("sigma_data", sigma_data)
    built = {}
    for entry in terms:
        name, options = split_name("loss.terms entry", entry)
        row = lookup("loss term", TERMS, name)
        if name in built:
            raise UserError(f"loss.terms names {name} twice: give each term once")
        built[name] = row.load()(**merge_options(f"loss term {name}", row.options, options))
    return Objective(
        noise_level=level.load()(
            **merge_options(f"noise level {level_name}", level.options, level_options)
        ),
        weight=weighting.load()(
            **merge_options(f"weight {weight_name}", weighting.options, weight_options)
        ),
        reduction=reduction,
        terms=built,
    )
