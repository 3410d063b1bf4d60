"""A number of calls: how many steps it is for every sampler, and what `auto` picks."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.preconditioning import PRESETS
from samplers import SAMPLERS
from samplers.auto import AUTO, PICKS, pick_for
from samplers.command_line import settings_of
from samplers.sampling import sampling_of
from samplers.settings import generation_settings, overlay, with_steps
from samplers.stability import VISIBLE, excess_noise
from tests.closed_form import GaussianMixture
from tests.samplers.orders import forbidden
from tests.samplers.test_generate import model
from torch_utils.errors import UserError

MANY = (*range(1, 24), 35, 79, 1000)


@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_as_many_steps_are_taken_as_the_calls_allow(name: str, end: str) -> None:
    for calls in MANY:
        flat = {"name": name, "grid": "rho", "end": end, "calls": calls}
        options = generation_settings({**flat, "calls": None}).options
        fewest = SAMPLERS[name].num_calls(1, options, end == "zero")
        if fewest > calls:
            with pytest.raises(UserError, match=f"calls is {calls}: a single step .* {fewest}"):
                generation_settings(flat)
            continue
        settings = generation_settings(flat)
        more = settings.model_copy(update={"steps": settings.steps + 1})
        assert settings.num_calls <= calls < more.num_calls
        if end == "zero":  # the default of the grid and of the mapping
            counted = generation_settings({"name": name, "grid": "rho", "steps": settings.steps})
            assert counted == settings


@pytest.mark.parametrize("calls", MANY)
def test_auto_makes_as_many_calls_as_were_asked_for(calls: int) -> None:
    settings = generation_settings({"name": AUTO, "calls": calls})
    assert settings.num_calls == calls
    known = [number for number in PICKS if number <= calls] or [min(PICKS)]
    assert generation_settings({**PICKS[max(known)], "steps": settings.steps}) == settings


def test_between_the_numbers_of_the_table_the_smaller_one_counts() -> None:
    assert pick_for(1) == pick_for(4) == PICKS[5]
    assert pick_for(7) == PICKS[6]
    assert pick_for(8) == PICKS[8]
    assert pick_for(14) == PICKS[10]
    assert pick_for(10_000) == PICKS[20]


@pytest.mark.parametrize("name", PRESETS)
def test_a_pick_is_sound_on_the_noise_levels_of_every_kind_of_model(name: str) -> None:
    denoiser = model(name=name)
    for calls in (1, 3, *PICKS, 40):
        sampling = sampling_of(generation_settings({"name": AUTO, "calls": calls}), denoiser)
        assert len(sampling.sigmas) - 1 == calls
        assert not [note for note in sampling.notes if "cut to the model's" not in note]
        assert sampling.sigmas[0] >= 0.99 * min(80.0, denoiser.sigma_max)
        # what is left of the noise is no more than a grey level of 255
        assert sampling.sigmas[-1] < 2 / 255
        if calls > 1:
            assert excess_noise(sampling.solver, sampling.sigmas) < VISIBLE


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"name": "auto"}, r"needs a number of network calls: give calls \(--calls\)"),
        ({"name": "auto", "steps": 5}, r"chooses the number of steps: .*\(--calls\), in place of"),
        ({"name": "auto", "calls": 5, "steps": 5}, "chooses the number of steps"),
        ({"name": "auto", "calls": 5, "order": 2}, "takes calls, clip, .*, not order: leave it"),
        ({"name": "auto", "calls": 5, "grid": "rho"}, "not grid: leave it out"),
        ({"name": "auto", "calls": 0}, "calls is 0: it must be a whole number of 1 or more"),
        ({"calls": -3}, "calls is -3: it must be"),
        ({"calls": 2.5}, r"calls is 2\.5: it must be"),
        ({"calls": True}, "calls is True: it must be"),
        ({"calls": "many"}, "calls is 'many': it must be"),
        ({"calls": 5, "steps": 3}, "steps 3 and calls 5: give one of them"),
    ],
)
def test_what_cannot_be_meant_is_refused(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generation_settings(mapping)


def test_what_is_wrapped_around_the_denoiser_goes_with_auto() -> None:
    wrapped = {"clip": "dynamic", "guidance": 2, "solver_dtype": "float32"}
    settings = generation_settings({"name": AUTO, "calls": 5, **wrapped})
    assert settings.clip == "dynamic"
    assert settings.guidance is not None
    assert settings.guidance.scale == 2
    assert settings.solver_dtype == "float32"


@pytest.mark.parametrize(
    ("stored", "given", "expected"),
    [
        ({"steps": 18, "rho": 5}, {"calls": 10}, {"rho": 5, "calls": 10}),
        ({"calls": 10, "rho": 5}, {"steps": 18}, {"rho": 5, "steps": 18}),
        ({"steps": 18, "rho": 5}, {"calls": None}, {"steps": 18, "rho": 5, "calls": None}),
        (
            {"name": "heun", "steps": 18, "S_churn": 2, "rho": 5, "clip": True},
            {"name": "auto", "calls": 10},
            {"name": "auto", "calls": 10, "clip": True},
        ),
        ({"name": "auto", "calls": 10}, {"name": "euler"}, {"name": "euler", "calls": 10}),
        (
            {"name": "auto", "calls": 10},
            {"name": "euler", "steps": 3},
            {"name": "euler", "steps": 3},
        ),
        (
            {"name": "auto", "calls": 10, "clip": True},
            {"calls": 5},
            {"name": "auto", "calls": 5, "clip": True},
        ),
    ],
)
def test_steps_and_calls_replace_each_other(
    stored: dict[str, Any], given: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert overlay(stored, given) == expected


def test_what_is_stored_has_steps_and_a_sampler_of_its_own() -> None:
    for mapping in (
        {"name": AUTO, "calls": 10, "clip": True},
        {"name": "heun", "calls": 35, "S_churn": 3.0},
        {"calls": 35},
    ):
        stored = with_steps(mapping)
        assert generation_settings(stored) == generation_settings(mapping)
        assert "calls" not in stored
        assert stored.get("name") != AUTO
    assert with_steps({"steps": 3, "clip": True}) == {"steps": 3, "clip": True}


def test_the_command_line_says_what_the_calls_became() -> None:
    for stored, values, expected in [
        ({}, {"calls": 35}, "sampler heun: 18 steps on grid rho ending at zero, 35 calls"),
        (
            {"steps": 4},
            {"calls": 36},
            "sampler heun: 18 steps on grid rho ending at zero, 35 calls",
        ),
        (
            {"name": "auto", "calls": 1},
            {"sampler": "euler"},
            "sampler euler: 1 step on grid rho ending at zero, 1 call",
        ),
    ]:
        assert settings_of(stored, values)[1] == [expected]
    settings, (line,), warnings = settings_of({}, {"sampler": "auto", "calls": 9, "clip": True})
    assert line.startswith(f"sampler auto: {settings.name}, 9 steps on grid {settings.grid_name} ")
    assert line.endswith(", 9 calls")
    own = pick_for(9).keys() - {"name", "grid", "end"}
    assert all(f"{key}={pick_for(9)[key]}" in line for key in own)
    assert warnings == []
    assert settings_of({}, {"steps": 5})[1] == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_pick_is_nearer_to_the_exact_flow_than_solvers_of_lower_order(name: str) -> None:
    denoiser = model(name=name)
    generator = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    mixture, latents = GaussianMixture(draw(3, 1, 4, 6), 0.2), draw(64, 1, 4, 6)

    def end(**flat: Any) -> Tensor:
        sampling = sampling_of(generation_settings(flat), denoiser)
        start = latents * sampling.sigmas[0]
        return sampling.solver(mixture, start, sampling.sigmas, noise=forbidden)

    exact = end(name="heun", steps=300)
    for calls in PICKS:
        picked = (end(name=AUTO, calls=calls) - exact).square().mean()
        for other in ("euler", "heun"):
            assert picked < (end(name=other, calls=calls) - exact).square().mean(), (calls, other)
