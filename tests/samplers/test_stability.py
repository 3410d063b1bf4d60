"""Solvers that fall apart below some number of steps: said before, and no default is one."""

import itertools
import math
from typing import Any

import pytest
import torch

from diffusion.denoiser import Denoiser
from samplers import SAMPLERS
from samplers.levels import solver_of, visited_levels
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from samplers.stability import DATA_STDS, excess_noise, is_unstable, least_steps
from tests.samplers.orders import final_variance
from tests.samplers.test_generate import model

EDM = 0.002, 80.0, float, None  # range, rounding and schedule of a model


def variants(name: str) -> list[dict[str, Any]]:
    """Every combination of a sampler's named options."""
    choices = SAMPLERS[name].choices
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_default_number_of_steps_is_enough_for_every_variant(name: str) -> None:
    for options in variants(name):
        settings = generation_settings({"name": name, **options})
        assert not is_unstable(settings, EDM), options
        fewest = generation_settings({"name": name, **options, "steps": 1})
        least = least_steps(fewest, EDM)
        assert least is not None
        assert least <= settings.steps, options


@pytest.mark.parametrize(
    ("mapping", "least"),
    [
        ({"name": "reverse_sde", "corrector": "shared"}, 15),
        ({"name": "reverse_sde", "corrector": "published"}, 18),
        ({"name": "ito_taylor", "scheme": "strong1.5"}, 17),
        ({"name": "ito_taylor", "scheme": "weak2"}, 16),
        ({"name": "sra1"}, 17),
        ({"name": "sra1", "rho": 3.0}, 33),
        ({"name": "sra1", "beta": 2.0}, 24),
        ({"name": "ddim", "grid": "rho"}, 2),
        ({"name": "euler"}, 2),
        ({"name": "heun"}, 4),
    ],
)
def test_the_least_number_of_steps_is_what_was_measured(
    mapping: dict[str, Any], least: int
) -> None:
    settings = generation_settings({**mapping, "steps": 1})
    found = least_steps(settings, EDM)
    assert found is not None
    assert abs(found - least) <= max(1, least // 10)


@pytest.mark.parametrize("steps", [8, 12, 18, 24])
@pytest.mark.parametrize("name", ["sra1", "reverse_sde", "heun"])
def test_the_trial_finds_the_exact_variance_of_gaussian_data(name: str, steps: int) -> None:
    """Of the deviations tried the worst, within the error of so few samples."""
    settings = generation_settings({"name": name, "steps": steps})
    sigmas, sampler = visited_levels(settings, *EDM)[0], solver_of(settings, *EDM[:2])
    exact = max(
        math.sqrt(final_variance(sampler, sigmas, std, sigmas[0] ** 2 + std**2)) - std
        for std in DATA_STDS
    )
    assert excess_noise(sampler, sigmas) == pytest.approx(exact, rel=0.15, abs=0.05)


def lines(denoiser: Denoiser, guide: Denoiser | None = None, **settings: Any) -> list[str]:
    dropout = settings.pop("label_dropout", None)
    chosen = generation_settings(settings)
    return sampling_of(chosen, denoiser, guide).cautions(label_dropout=dropout)


def test_too_few_steps_are_said_with_a_number_that_is_enough() -> None:
    (line,) = lines(model(), name="sra1", steps=12)
    assert line.startswith("sampler sra1 makes noise with 12 steps of this grid: take ")
    enough = int(line.split("take ")[1].split()[0])
    assert lines(model(), name="sra1", steps=enough) == []
    assert lines(model(), name="sra1") == []
    assert lines(model(), name="ddim", steps=2) == []


def test_guidance_of_a_model_that_never_saw_the_null_label_is_said() -> None:
    assert "without label dropout" in lines(model(), guidance=2, label_dropout=0.0)[0]
    assert "without label dropout" in lines(model(), guidance=0, label_dropout=0.0)[0]
    assert "does not say" in lines(model(), guidance=2)[0]
    assert lines(model(), guidance=2, label_dropout=0.1) == []
    assert lines(model(), guidance=1, label_dropout=0.0) == []
    assert lines(model(), model(), guidance=2, label_dropout=0.0) == []


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"name": "ddim", "spacing": "leading", "steps": 1}, ["starts at noise level 0.01"]),
        ({"name": "ddim", "spacing": "leading", "steps": 50}, []),
        ({"sigma_max": 1e5}, ["highest noise level is cut to e^10 = 22026"]),
        ({"sigma_min": 1e-6}, ["lowest noise level is cut to e^-10 = 4.54e-05"]),
        ({"sigma_min": 1e-6, "grid": "ve"}, []),
        ({"name": "ddim", "levels": "beta_jsd"}, ["highest noise level is cut"]),
        ({"name": "ddim", "levels": "beta_const"}, ["highest noise level is cut"]),
        ({"name": "ddim", "levels": "flow"}, ["highest noise level is cut"]),
        ({"name": "ddim", "levels": "logsnr_cosine"}, []),
        ({"name": "ddim", "levels": "beta_linear"}, []),
        ({}, []),
    ],
)
def test_grids_that_start_too_low_or_end_at_the_cap_say_so(
    mapping: dict[str, Any], words: list[str]
) -> None:
    _, found = visited_levels(generation_settings(mapping), 0.0, math.inf, float)
    notes = [note for note in found if "asked for" not in note]
    assert len(notes) == len(words), notes
    for note, word in zip(notes, words, strict=True):
        assert word in note


def test_churn_is_spread_over_the_steps_that_were_asked_for() -> None:
    """Of 40 steps on 10 levels 10 are taken: each raises the noise by S_churn / 40."""
    levels = torch.linspace(1, 20, 10, dtype=torch.float64).tolist()
    seen: list[float] = []
    for asked in (40, 10):
        settings = generation_settings({"steps": asked, "S_churn": 4.0})
        sampler = solver_of(settings, 0.0, math.inf, steps_taken=10)
        sampler(
            lambda x, sigma: x / (1 + sigma * sigma),
            torch.zeros(1, 1, 1, 1, dtype=torch.float64),
            [*levels[::-1], 0.0],
            noise=torch.zeros_like,
            callback=lambda i, sigma, x, denoised: seen.append(sigma),
        )
    raised = [sigma / level - 1 for sigma, level in zip(seen, levels[::-1] * 2, strict=True)]
    assert raised == pytest.approx([0.1] * 10 + [0.4] * 10)


def test_a_model_with_few_levels_churns_as_was_asked() -> None:
    """The settings, the grid and the solver together: half of the steps fall together."""
    rounding = model(name="ddpm", quantize=True)
    settings = generation_settings({"steps": 2000, "S_churn": 200.0, "grid": "rho"})
    sampling = sampling_of(settings, rounding)
    taken = len(sampling.sigmas) - 1
    assert taken < 2000
    assert "repeated" in " ".join(sampling.notes)
    churn = sampling.solver.keywords["S_churn"]  # type: ignore[attr-defined]
    assert churn / taken == pytest.approx(200 / 2000)
