"""Sampling with networks in half precision: the same images up to rounding, and what says so."""

from typing import Any

import pytest
import torch

from samplers import SAMPLERS
from samplers.float_images import float_images
from samplers.generate import generate
from samplers.labels import LabelSource
from samplers.records import difference, request_of
from samplers.requests import LabelWords
from samplers.sampling import Sampling, sampling_of
from samplers.settings import generation_settings, overlay
from samplers.starts import Sample
from tests.samplers.test_generate import model
from torch_utils import precision as precisions
from torch_utils.errors import UserError

SEEDS = [Sample(seed) for seed in (0, 5, 9)]
HALVABLE = sorted(name for name, row in SAMPLERS.items() if not row.takes_derivatives)


def ready(**settings: Any) -> Sampling:
    return sampling_of(generation_settings({"steps": 6, **settings}), model()).at_precision()


def images(batch_size: int = 64, **settings: Any) -> torch.Tensor:
    made = generate(ready(**settings), SEEDS, batch_size=batch_size)
    return torch.cat([batch.images.double() for batch in made])


def rms(x: torch.Tensor) -> float:
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize("name", HALVABLE)
def test_the_rounding_of_a_half_network_dwarfs_that_of_a_float32_solver(name: str) -> None:
    """Which is why float32 is the solver's default there; the noises are the same draws."""
    how: dict[str, Any] = {"name": name, "steps": max(6, SAMPLERS[name].least_steps)}
    exact = images(**how)
    half = images(**how, precision="bf16", solver_dtype="float64")
    both = images(**how, precision="bf16")
    alone = images(**how, solver_dtype="float32")
    scale = rms(exact)
    assert 0 < rms(half - exact) < 0.05 * scale
    assert rms(alone - exact) < 0.02 * rms(half - exact)
    assert rms(both - exact) < 1.5 * rms(half - exact)


@pytest.mark.parametrize("settings", [{}, {"S_churn": 2.0}, {"guidance": 2, "clip": True}], ids=str)
def test_in_half_precision_too_an_image_depends_on_its_seed_alone(
    settings: dict[str, Any],
) -> None:
    whole = images(precision="bf16", **settings)
    rounding = rms(whole - images(**settings))
    for size in (1, 2):
        parts = images(size, precision="bf16", **settings)
        assert rms(parts - whole) < 1.5 * rounding


def test_the_default_solver_dtype_follows_the_precision_unless_it_is_given() -> None:
    for given, precision, dtype in [
        ({}, "fp32", torch.float64),
        ({"precision": "bf16"}, "bf16", torch.float32),
        ({"precision": "fp16", "solver_dtype": "float64"}, "fp16", torch.float64),
        ({"solver_dtype": "float32"}, "fp32", torch.float32),
    ]:
        sampling = sampling_of(generation_settings(given), model())
        assert (sampling.settings.precision, sampling.dtype) == (precision, dtype)


@pytest.mark.parametrize(("is_fast", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_device_is_fast_in(
    is_fast: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precisions, "has_fast_bf16", lambda: is_fast)
    asked = generation_settings({"precision": "auto"})
    assert asked.as_mapping()["precision"] == "auto"
    settings = sampling_of(asked, model()).settings
    assert settings.precision == expected
    assert settings.as_mapping()["precision"] == expected


def test_a_solver_that_takes_derivatives_stays_in_float32_and_says_so() -> None:
    settings = generation_settings({"name": "ito_taylor", "steps": 24, "precision": "bf16"})
    sampling = sampling_of(settings, model())
    assert (sampling.settings.precision, sampling.dtype) == ("fp32", torch.float64)
    assert sampling.notes == [
        "precision bf16 has no effect: sampler ito_taylor takes derivatives of the network, in fp32"
    ]
    weights = sampling.at_precision().denoiser.parameters()
    assert {weight.dtype for weight in weights} == {torch.float32}


def test_the_guidance_network_has_the_same_precision() -> None:
    given = generation_settings({"guidance": 2, "precision": "bf16"})
    weak = model(label_dim=0)
    sampling = sampling_of(given, model(), weak).at_precision()
    assert sampling.guide is not None
    for network in (sampling.denoiser, sampling.guide):
        assert torch.bfloat16 in {p.dtype for p in network.parameters()}
    assert {p.dtype for p in weak.parameters()} == {torch.float32}


def test_a_snapshots_precision_is_kept_until_another_is_given() -> None:
    stored = {"name": "ddim", "precision": "bf16"}
    assert generation_settings(overlay(stored, {"name": "heun"})).precision == "bf16"
    assert generation_settings(overlay(stored, {"precision": "fp32"})).precision == "fp32"


@pytest.mark.parametrize("value", ["tf32", "float16", 16, True])
def test_an_unknown_precision_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"precision.*auto, fp32, bf16 or fp16"):
        generation_settings({"precision": value})


def test_images_of_another_precision_are_another_request() -> None:
    def request(**settings: Any) -> dict[str, Any]:
        return request_of(ready(**settings), LabelWords(), rng_device="cpu", subdirs=False)

    whole, half = request(), request(precision="bf16")
    assert half["sampler"]["precision"] == "bf16"
    told = difference(half, request(precision="bf16", solver_dtype="float64"))
    assert told == "sampler: solver_dtype was float32, now it is float64"
    for before, now in ((whole, half), (half, whole)):
        was, is_ = (request["sampler"]["precision"] for request in (before, now))
        told = difference(before, now)
        assert told == f"sampler: precision was {was}, now it is {is_}"
    del whole["sampler"]["precision"]  # as in records from before there was a choice
    assert difference(whole, request()) is None


def test_from_python_the_model_is_left_as_it_is() -> None:
    denoiser = model()
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    how: dict[str, Any] = {"label": None, "source": LabelSource(3), "stored": {"steps": 4}}
    made, notes = float_images(
        denoiser, [0, 5, 9], given={"precision": "bf16"}, progress=False, **how
    )
    (half,) = made
    ((exact,), _) = float_images(denoiser, [0, 5, 9], given={}, progress=False, **how)
    assert notes == []
    assert 0 < rms((half - exact).double()) < 0.05
    assert all(torch.equal(tensor, before[k]) for k, tensor in denoiser.state_dict().items())
