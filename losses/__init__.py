"""Training objectives over a denoiser: noise level, weighting, reduction and a sum of terms.

The tables below are torch-free; `create` imports what it needs. Any level goes with any weighting
and any terms, whatever the network predicts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from diffusion import DEFAULT_STEPS, GRIDS, SCHEDULES
from diffusion import MAX_STEPS as MAX_LEVELS
from torch_utils.errors import UserError
from torch_utils.registry import (
    BETWEEN_0_AND_1,
    FINITE,
    POSITIVE,
    Row,
    lookup,
    resolve_entry,
    split_name,
)

if TYPE_CHECKING:
    from diffusion.schedules import Schedule
    from losses.levels import NoiseLevel
    from losses.objective import Objective
    from losses.terms import Term
    from losses.weights import Weight

SAMPLINGS = {
    "independent": "each sample draws its own",
    "antithetic": "the second half of the global batch mirrors the first; DDIM's and SA-DPM's code",
    "stratified": "one draw from each of as many equal parts as the global batch has samples",
}


_SAMPLING = {"sampling": "independent"}
_SAMPLINGS = {"sampling": tuple(SAMPLINGS)}
_OF_MODEL = {"schedule": ("schedule", SCHEDULES)}  # None is the model's

NOISE_LEVELS: dict[str, Row] = {
    "lognormal": Row(
        target="losses.levels:LogNormal",
        options={"P_mean": -1.2, "P_std": 1.2, **_SAMPLING},
        choices=_SAMPLINGS,
        rules={"P_mean": FINITE, "P_std": POSITIVE},
        summary="ln(sigma) ~ N(P_mean, P_std^2); EDM, Eq. 8 and Table 1",
    ),
    "vp": Row(
        target="losses.levels:VPTime",
        options={"epsilon_t": 1e-5, **_SAMPLING},
        choices=_SAMPLINGS,
        rules={"epsilon_t": BETWEEN_0_AND_1},
        summary="a uniform time of the variance-preserving SDE; EDM, Table 1",
    ),
    "log_uniform": Row(
        target="losses.levels:LogUniform",
        options={"sigma_min": 0.02, "sigma_max": 100.0, **_SAMPLING},
        choices=_SAMPLINGS,
        rules={"sigma_min": POSITIVE, "sigma_max": POSITIVE},
        summary="ln(sigma) uniform; EDM, Table 1, column VE",
    ),
    "discrete": Row(
        target="losses.levels:Discrete",
        options={"schedule": None, **_SAMPLING},
        choices=_SAMPLINGS,
        entries=_OF_MODEL,
        summary="a uniform step of a discrete schedule; DDPM, Eq. 14",
    ),
    "uniform_time": Row(
        target="losses.levels:UniformTime",
        options={"schedule": None, "num_steps": 0, **_SAMPLING},
        choices=_SAMPLINGS,
        ranges={"num_steps": (0, math.inf)},
        entries=_OF_MODEL,
        summary="a uniform time, or one of num_steps even times; Salimans and Ho 2022",
    ),
}

WEIGHTS: dict[str, Row] = {
    "constant": Row(target="losses.weights:constant", summary="1: the error in y"),
    "snr": Row(target="losses.weights:snr", summary="1 / sigma^2: the error in noise; DDPM"),
    "snr_trunc": Row(
        target="losses.weights:snr_trunc",
        summary="max(1, 1 / sigma^2); Salimans and Ho 2022, sec. 4",
    ),
    "snr_1plus": Row(
        target="losses.weights:snr_1plus",
        summary="1 + 1 / sigma^2: the error in v; Salimans and Ho 2022, sec. 4",
    ),
    "edm": Row(
        target="losses.weights:edm",
        options={"sigma_data": 0.5},
        rules={"sigma_data": POSITIVE},
        summary="(sigma^2 + sigma_data^2) / (sigma sigma_data)^2; EDM, Table 1",
    ),
    "flow": Row(
        target="losses.weights:flow",
        summary="(1 + 1 / sigma)^2: the error in velocity; Lipman et al. 2023",
    ),
    "min_snr": Row(
        target="losses.weights:min_snr",
        options={"gamma": 5.0},
        rules={"gamma": POSITIVE},
        summary="min(1 / sigma^2, gamma); Hang et al. 2023, Eq. 9",
    ),
    "vlb": Row(
        target="losses.weights:vlb",
        summary="SNR / (2 p(log-SNR)): the variational bound; Kingma et al. 2021, Eq. 17",
    ),
}

MAX_STEPS = 10_000  # each is a call of the network, or images in memory, for one step of training
# grids as neighbouring steps are counted in, which are not those of the sampler alone
COUNTED_GRIDS = {
    name: replace(
        row,
        options={"steps": DEFAULT_STEPS, **row.options},
        ranges={"steps": (1, MAX_LEVELS), **row.ranges},
    )
    for name, row in GRIDS.items()
}
# Every row's lambda is the factor of the whole term; 0 leaves the term out.
TERMS: dict[str, Row] = {
    "denoising": Row(
        target="losses.terms:Denoising",
        options={"lambda": 1.0},
        ranges={"lambda": (0, math.inf)},
        summary="w(sigma) |D - y|^2, denoising score matching; EDM, Eq. 2",
    ),
    "sequence_aware": Row(
        target="losses.sequence_aware:SequenceAware",
        options={
            "lambda": 1.0,
            "K": 2,
            "normaliser": "K2",
            "shared_noise": False,
            "weights": "none",
            "grid": None,
        },
        choices={"normaliser": ("K2", "K"), "weights": ("none", "trajectory")},
        ranges={"lambda": (0, math.inf), "K": (2, MAX_STEPS)},
        entries={"grid": ("grid", COUNTED_GRIDS)},
        summary="the summed error over K neighbouring steps; SA-DPM",
    ),
    "consistency": Row(
        target="losses.consistency:Consistency",
        options={
            "lambda": 10.0,
            "num_steps": 6,
            "epsilon_min": 0.0,
            "epsilon_max": 0.05,
            "rho": 7.0,
            "sigma_floor": 0.002,
            "batch_fraction": 1.0,
            "rollout": "online",
            "step": "euler_maruyama",
        },
        choices={"rollout": ("online", "ema"), "step": ("euler_maruyama", "posterior")},
        ranges={
            "lambda": (0, math.inf),
            "num_steps": (2, MAX_STEPS),
            "epsilon_min": (0, math.inf),
            "rho": (1e-3, 1e3),
            "sigma_floor": (1e-9, math.inf),
            "batch_fraction": (1e-9, 1),
        },
        summary="predictions agree along the model's own trajectories; CDM",
    ),
    "vlb": Row(
        target="losses.vlb:VariationalBound",
        options={"lambda": 1.0, "variance": "large", "fraction": 0.0},
        choices={"variance": ("small", "large", "interpolated")},
        ranges={"lambda": (0, math.inf), "fraction": (0, 1)},
        summary="the discrete variational bound in bits per dimension; DDPM, Eq. 5",
    ),
}


@dataclass(frozen=True)
class PublishedObjective:
    """The objective that a preconditioning was published with."""

    noise_level: str
    weight: str
    reduction: str = "sum"


PUBLISHED_OBJECTIVES = {
    "edm": PublishedObjective("lognormal", "edm"),
    "vp": PublishedObjective("vp", "snr"),
    "ve": PublishedObjective("log_uniform", "snr"),
    "iddpm": PublishedObjective("discrete", "snr", "mean"),
    "ddpm": PublishedObjective("discrete", "snr"),
    "vdiff": PublishedObjective("uniform_time", "snr_trunc", "mean"),
    "flow": PublishedObjective("uniform_time", "flow", "mean"),
}

REDUCTIONS = ("sum", "mean")


def create(
    *,
    noise_level: str | Mapping[str, Any] = "lognormal",
    weight: str | Mapping[str, Any] = "edm",
    reduction: str = "sum",
    terms: Sequence[str | Mapping[str, Any]] = ("denoising",),
    input_perturbation: float = 0.0,
    uncertainty: bool = False,
    sigma_data: float = 0.5,
    schedule: "Schedule | None" = None,
) -> "Objective":
    """Build a training objective.

    Args:
        noise_level: distribution of sigma, a key of NOISE_LEVELS, with options if a mapping.
        weight: weighting w(sigma), a key of WEIGHTS.
        reduction: "sum" or "mean" over channels and pixels; over samples it is always the mean.
        terms: what is summed, keys of TERMS.
        input_perturbation: standard deviation of what is added to the noise of the network's
            input but not to its target. Ning et al. 2023 ("DDPM-IP"), 0.1 there.
        uncertainty: learn the loss's variance as a function of sigma and weight by its inverse.
            Karras et al. 2024 ("EDM2"), Eq. 21.
        sigma_data: the model's; the weighting's default.
        schedule: the model's; for noise levels that do not name one.

    Raises:
        UserError: unknown names or options, a combination that cannot be, or no term at all.
    """
    from losses.objective import Objective
    from losses.uncertainty import LogVariance

    if reduction not in REDUCTIONS:
        raise UserError(f"loss.reduction is {reduction!r}: it must be one of sum, mean")
    if not input_perturbation >= 0:
        raise UserError(f"loss.input_perturbation is {input_perturbation}: it must be at least 0")
    level, sampling = _noise_level(noise_level, schedule)
    built = _terms(terms, level, schedule)
    if uncertainty and "denoising" not in built:
        raise UserError("loss.uncertainty is of the term denoising, which this loss does not have")
    return Objective(
        noise_level=level,
        sampling=sampling,
        weight=_weight(weight, level, sigma_data),
        reduction=reduction,
        terms=built,
        input_perturbation=input_perturbation,
        uncertainty=LogVariance() if uncertainty else None,
    )


def _noise_level(
    entry: str | Mapping[str, Any], schedule: "Schedule | None"
) -> tuple["NoiseLevel", str]:
    """The distribution of an entry, and how it is sampled."""
    name, row, options = resolve_entry("noise level", NOISE_LEVELS, entry, "loss.noise_level")
    sampling = options.pop("sampling")
    if "schedule" in options:
        options["schedule"] = _schedule(f"noise level {name}", options["schedule"], schedule)
    return row.load()(**options), sampling


def _schedule(owner: str, entry: Any, default: "Schedule | None") -> "Schedule":
    from diffusion import schedules

    if entry is not None:
        return schedules.create(entry)
    if default is None:
        raise UserError(f"{owner}: the model has no schedule: give one, e.g. schedule: beta_linear")
    return default


def _weight(entry: str | Mapping[str, Any], level: "NoiseLevel", sigma_data: float) -> "Weight":
    name, given = split_name("loss.weight", entry)
    row = lookup("weight", WEIGHTS, name)
    if "sigma_data" in row.options:
        given = {"sigma_data": sigma_data, **given}
    options = row.resolve(f"weight {name}", given)
    weight: Weight = row.load()(**options, **({"level": level} if name == "vlb" else {}))
    return weight


def _terms(
    entries: Sequence[str | Mapping[str, Any]], level: "NoiseLevel", schedule: "Schedule | None"
) -> "dict[str, tuple[float, Term]]":
    """Each term's factor and function; those with factor 0 are left out."""
    if not entries:
        raise UserError("loss.terms is empty: give at least one, e.g. [denoising]")
    built: dict[str, tuple[float, Term]] = {}
    names = set()
    for entry in entries:
        name, row, options = resolve_entry("loss term", TERMS, entry, "loss.terms entry")
        if name in names:
            raise UserError(f"loss.terms names {name} twice: give each term once")
        names.add(name)
        factor = options.pop("lambda")
        if factor > 0:
            built[name] = (factor, row.load().from_options(options, level, schedule))
    if not built:
        raise UserError("loss.terms: every lambda is 0: nothing is left to train for")
    return built
