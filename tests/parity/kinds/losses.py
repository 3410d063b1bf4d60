"""Golden cases of objectives, on the closed-form denoiser with given draws."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from losses.batch import Batch, Draws
from losses.levels import Discrete, UniformTime
from losses.objective import Objective
from tests.parity.harness import Case, NotBuilt, relative_error
from tests.parity.kinds.common import OUTPUTS, VARIANCES, WEIGHTS, log_snr_schedule, mixture
from training.config import TrainingConfig
from training.setup import create_objective


def training_losses(case: Case) -> float:
    """An objective on the closed-form denoiser, its draws from the arrays."""
    adapters = {
        "edm": _published_loss,
        "vp": _published_loss,
        "ve": _published_loss,
        "sequence_aware": _sequence_aware_loss,
        "consistency": _consistency_loss,
        "log_snr": _log_snr_loss,
        "vlb": _vlb_loss,
    }
    if case.spec["loss"] not in adapters:
        raise NotBuilt(f"loss {case.spec['loss']}")
    found, golden = adapters[case.spec["loss"]](case).numpy(), case.arrays[f"loss/{case.name}"]
    return relative_error(np.atleast_1d(found), np.atleast_1d(golden))


def objective_of(precond: str, loss: dict[str, Any], **parts: Any) -> Objective:
    """The objective of a recipe with these sections."""
    tree = {"preconditioning": {"name": precond, **parts}, "loss": loss}
    return create_objective(TrainingConfig.model_validate(tree))


def _array(case: Case, name: str) -> Tensor:
    return torch.from_numpy(case.arrays[name])


def _published_loss(case: Case) -> Tensor:
    objective = objective_of(case.spec["loss"], {})
    draws = Draws(
        objective.noise_level.sigma(_array(case, case.spec["noise_level_from"])),
        _array(case, "noise"),
    )
    return objective(mixture(case), Batch(_array(case, "y")), draws).values["denoising"]


def _sequence_aware_loss(case: Case) -> Tensor:
    spec = case.spec
    terms = ["denoising", {"name": "sequence_aware", "lambda": spec["lam"], "K": spec["K"]}]
    objective = objective_of("ddpm", {"terms": terms})
    assert isinstance(objective.noise_level, Discrete)
    sigma = torch.from_numpy(objective.noise_level.table.levels[spec["t"]])
    extra = {"noise": _array(case, "extra_noise")}
    draws = Draws(sigma, _array(case, "noise"), terms={"sequence_aware": extra})
    return objective(mixture(case), Batch(_array(case, "y")), draws).total()


def _consistency_loss(case: Case) -> Tensor:
    spec = case.spec
    options = {key: spec[key] for key in ("num_steps", "epsilon_min", "epsilon_max", "sigma_floor")}
    term = {"name": "consistency", "lambda": spec["lam"], "rho": float(spec["rho"]), **options}
    level = {"name": "lognormal", "P_mean": spec["P_mean"], "P_std": spec["P_std"]}
    objective = objective_of("edm", {"noise_level": level, "terms": ["denoising", term]},
                             sigma_data=spec["sigma_data"])  # fmt: skip
    y = _array(case, "y")
    tape = np.random.RandomState(3).standard_normal((12, 2 * y.shape[0], *y.shape[1:]))
    drawn = {
        "window": torch.tensor(spec["eps_u"], dtype=torch.float64),
        "noise": torch.from_numpy(tape[: spec["num_steps"] - 1]),
    }
    sigma = objective.noise_level.sigma(_array(case, "z").flatten())
    draws = Draws(sigma, _array(case, "noise"), terms={"consistency": drawn})
    values = objective(mixture(case), Batch(y), draws).values
    return values["denoising"] + values["consistency"]


def schedule_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Our entry for the schedule of a case."""
    low, high = map(float, spec["logsnr"])
    return log_snr_schedule(spec["schedule"], {"logsnr_min": low, "logsnr_max": high})


def _log_snr_objective(spec: dict[str, Any], num_steps: int, **loss: Any) -> Objective:
    level = {"name": "uniform_time", "num_steps": num_steps}
    output = OUTPUTS.get(spec["prediction"], spec["prediction"])
    return objective_of(
        "vdiff", {"noise_level": level, **loss}, schedule=schedule_of(spec), output=output
    )


def _log_snr_loss(case: Case) -> Tensor:
    spec = case.spec
    weight = WEIGHTS.get(spec["weight"], spec["weight"])
    objective = _log_snr_objective(spec, 0, weight=weight)
    return _at_times(case, objective, torch.tensor(spec["t"], dtype=torch.float64), "denoising")


def _vlb_loss(case: Case) -> Tensor:
    spec = case.spec
    variance = VARIANCES[spec["variance"]]
    term = {"name": "vlb", "variance": variance, "fraction": spec.get("intp_frac") or 0.0}
    steps = spec["sample_timesteps"]
    objective = _log_snr_objective(spec, steps, terms=[term])
    times = (torch.tensor(spec["t"], dtype=torch.float64) * steps).ceil() / steps
    return _at_times(case, objective, times, "vlb")


def _at_times(case: Case, objective: Objective, times: Tensor, term: str) -> Tensor:
    assert isinstance(objective.noise_level, UniformTime)
    draws = Draws(objective.noise_level.schedule.sigma(times), _array(case, "noise"))
    return objective(mixture(case), Batch(_array(case, "y")), draws).per_sample(term)
