"""The library diffusers judges what is read from its folders, and what is written for it.

It is not needed for anything else: without it these tests are skipped.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion import preconditioning
from diffusion.guidance import dynamic_clip, static_clip
from importers.diffusers import read_diffusers, write_diffusers
from importers.diffusers_schedulers import read_scheduler
from models.build import build
from models.snapshot import SnapshotInfo
from samplers.levels import solver_of, visited_levels
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from tests.importers.diffusers_judge import random_scheduler, random_unet
from tests.importers.test_diffusers import SAMPLING, model_config
from tests.parity.weights import fill_by_rule

diffusers = pytest.importorskip("diffusers")


@pytest.mark.parametrize("seed", range(16))
def test_raw_outputs_of_random_networks_agree(seed: int, tmp_path: Path) -> None:
    config = random_unet(seed)
    theirs = diffusers.UNet2DModel(**config).eval()
    fill_by_rule(theirs)
    theirs.save_pretrained(tmp_path, safe_serialization=seed % 2 == 0)
    ours = read_diffusers(tmp_path).denoiser().model
    size = config["sample_size"]
    sides = [size, size] if isinstance(size, int) else size
    x = torch.randn(3, config["in_channels"], *sides, generator=torch.Generator().manual_seed(1))
    t, classes = torch.tensor([0, 500, 999]), config["num_class_embeds"]
    y = torch.tensor([1, 4, 0]) if classes else None
    with torch.no_grad():
        expected = theirs(x, t, class_labels=y).sample
        found = ours(x, t, torch.eye(classes)[y] if classes else None)
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def _raw(z: Tensor, index: int) -> Tensor:
    """A smooth function that stands for a network's output; the scheduler knows no network."""
    weights = torch.randn(12, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.tanh(z.flatten(1) @ weights / 4 + index / 50).reshape(z.shape)


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler"])
@pytest.mark.parametrize("seed", range(24))
def test_schedulers_and_our_samplers_agree(
    name: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = random_scheduler(seed)
    is_ddim = name == "DDIMScheduler"
    if is_ddim:  # what it does not have; and with linspace its steps do not meet each other
        config.pop("variance_type")
        config["beta_schedule"] = config["beta_schedule"].replace("sigmoid", "linear")
        config["timestep_spacing"] = config["timestep_spacing"].replace("linspace", "leading")
    elif config["timestep_spacing"] == "trailing":  # there it ends with the large noise
        config["variance_type"] = "fixed_small"
    theirs = getattr(diffusers, name)(**config)
    reading = read_scheduler({"_class_name": name, **dict(theirs.config)}, "the config")
    model = preconditioning.create("ddpm", output=reading.prediction, schedule=reading.schedule)
    given = {**reading.sampling, "steps": 10, **({"eta": 0.5} if is_ddim else {})}
    settings = generation_settings(given)
    ends = model.sigma_min, model.sigma_max
    sigmas, _ = visited_levels(settings, *ends, model.round_sigma, model.schedule)
    theirs.set_timesteps(10)
    assert model.table is not None
    assert sigmas[:-1] == model.table.levels[theirs.timesteps.numpy()].tolist()

    draws = torch.Generator().manual_seed(seed)
    z, *tape = torch.randn(12, 2, 3, 2, 2, generator=draws, dtype=torch.float64)
    module = f"diffusers.schedulers.scheduling_{'ddim' if is_ddim else 'ddpm'}"
    calls = iter(tape)
    monkeypatch.setattr(f"{module}.randn_tensor", lambda *_, **__: next(calls))
    expected = z
    for t in theirs.timesteps:
        options = {"eta": 0.5} if is_ddim else {}
        expected = theirs.step(_raw(expected, int(t)), t, expected, **options).prev_sample

    def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
        level = torch.full((1, 1, 1, 1), float(sigma), dtype=torch.float64)
        index = round(float(model.c_noise(level)))
        denoised = model.denoised(x, _raw(model.c_in(level) * x, index), level)
        return denoised.clamp(-1, 1) if settings.clip else denoised

    own = iter(tape)
    noise: Callable[[Tensor], Tensor] = lambda _: next(own)  # noqa: E731
    found = solver_of(settings)(denoise, z * math.hypot(1, sigmas[0]), sigmas, noise=noise)
    # without signal at the end, our levels stop at log-SNR -20
    tolerance = 1e-3 if config.get("rescale_betas_zero_snr") else 1e-4
    assert float((found - expected).abs().max()) < tolerance * max(1, float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *(("DPMSolverMultistepScheduler", {"solver_order": order}) for order in (1, 2, 3)),
        ("DPMSolverMultistepScheduler", {"solver_order": 3, "lower_order_final": False}),
        ("DPMSolverMultistepScheduler", {"thresholding": True}),
        *(
            ("UniPCMultistepScheduler", {"solver_order": order, "solver_type": variant})
            for order in (1, 2, 3)
            for variant in ("bh1", "bh2")
        ),
        ("UniPCMultistepScheduler", {"thresholding": True, "sample_max_value": 1e9}),
    ],
    ids=str,
)
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_multistep_schedulers_and_our_samplers_agree(
    name: str, given: dict[str, Any], prediction: str
) -> None:
    betas = {"num_train_timesteps": 100, "beta_start": 1e-3, "beta_end": 0.15}
    config = {**betas, "timestep_spacing": "trailing", "prediction_type": prediction, **given}
    theirs = getattr(diffusers, name)(**config)
    reading = read_scheduler({"_class_name": name, **dict(theirs.config)}, "the config")
    model = preconditioning.create("ddpm", output=reading.prediction, schedule=reading.schedule)
    settings = generation_settings({**reading.sampling, "steps": 20})
    ends = model.sigma_min, model.sigma_max
    sigmas, _ = visited_levels(settings, *ends, model.round_sigma, model.schedule)
    theirs.set_timesteps(20)
    assert model.table is not None
    assert sigmas[:-1] == model.table.levels[theirs.timesteps.numpy()].tolist()

    draws = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, 2, 2, generator=draws, dtype=torch.float64)
    expected = [z]
    for t in theirs.timesteps:
        expected.append(theirs.step(_raw(expected[-1], int(t)), t, expected[-1]).prev_sample)

    def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
        level = torch.full((1, 1, 1, 1), float(sigma), dtype=torch.float64)
        index = round(float(model.c_noise(level)))
        denoised = model.denoised(x, _raw(model.c_in(level) * x, index), level)
        limit = {True: static_clip, "dynamic": dynamic_clip}.get(settings.clip)
        return denoised if limit is None else limit(denoised)

    found = []
    last = solver_of(settings)(
        denoise,
        z * math.hypot(1, sigmas[0]),
        sigmas,
        noise=_no_noise,
        callback=lambda i, sigma, x, denoised: found.append(x / math.hypot(1, sigma)),
    )
    if given.get("solver_type") == "bh1":  # the library's step to 0 is nan: its B(h) is infinite
        assert expected.pop().isnan().any()
    else:
        found.append(last)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def _no_noise(like: Tensor) -> Tensor:
    raise AssertionError("a deterministic sampler must not draw")


@pytest.mark.parametrize(
    "told",
    [
        SAMPLING | {"steps": 20},
        {"name": "ddim", "grid": "steps", "steps": 10, "spacing": "leading", "clip_x0": True},
        {"name": "ddim", "grid": "steps", "steps": 10, "spacing": "exact"},
    ],
    ids=["ddpm", "ddim", "trailing"],
)
@pytest.mark.parametrize("kind", ["eps", "v-scaled"])
def test_its_pipeline_samples_our_images(kind: str, told: dict[str, Any], tmp_path: Path) -> None:
    options = {} if kind == "eps" else {"modulation": "scale_shift", "resampler": "block"}
    config = model_config(output=kind.split("-")[0], **options)
    denoiser = build(config).eval()
    fill_by_rule(denoiser)
    notes = write_diffusers(tmp_path / "out", denoiser, SnapshotInfo(config, sampling=told))
    steps = told["steps"]
    assert notes == [f"the folder does not keep the steps: give num_inference_steps={steps}"]
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        generator=torch.Generator().manual_seed(7), num_inference_steps=steps, output_type="np"
    ).images
    sampling = sampling_of(generation_settings(told), denoiser)
    draws = torch.Generator().manual_seed(7)
    latents = torch.randn(1, 3, 8, 8, generator=draws).double()
    with torch.no_grad():
        ours = sampling.solver(
            sampling.denoise(None),
            latents * denoiser.prior_scale(sampling.sigmas[0]),
            sampling.sigmas,
            noise=lambda x: torch.randn(x.shape, generator=draws).to(x),
        )
    images = (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.abs(images - theirs).max() < 2e-3
