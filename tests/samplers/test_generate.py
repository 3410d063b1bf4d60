"""Seeded generation: an image is a function of its seed, in the published order of draws."""

import math
from typing import Any

import pytest
import torch

from diffusion.denoiser import Denoiser
from diffusion.guidance import classifier_free, clipped, conditional, dynamic_clip
from models.build import build
from models.config import ModelConfig, PreconditioningConfig
from samplers import SAMPLERS
from samplers.generate import generate, to_uint8
from samplers.levels import solver_of
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from samplers.starts import Sample
from tests.parity.weights import fill_by_rule
from torch_utils.errors import UserError


def model(label_dim: int = 3, **parts: Any) -> Denoiser:
    config = ModelConfig(
        network={"name": "ddpmpp", "model_channels": 16, "channel_mult": [1], "num_blocks": 1},
        img_resolution=parts.pop("img_resolution", (4, 6)),
        img_channels=1,
        label_dim=label_dim,
        preconditioning=PreconditioningConfig(**parts),
    )
    denoiser = build(config)
    fill_by_rule(denoiser)
    return denoiser.eval()


def images(
    samples: list[Sample],
    batch_size: int = 64,
    label_dim: int = 3,
    guide: Denoiser | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, list[int]]:
    chosen = generation_settings({"steps": 4, **settings})
    sampling = sampling_of(chosen, model(label_dim), guide)
    batches = list(generate(sampling, samples, batch_size=batch_size))
    classes = [index for batch in batches for index in batch.classes or []]
    return torch.cat([batch.images for batch in batches]), classes


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"S_churn": 2.0},
        {"guidance": 2, "clip": True},
        {"name": "ddpm", "guidance": {"w": 1, "batch": "split"}},
        {"name": "ito_taylor", "guidance": {"scale": 2, "interval": [0.1, 10]}},
    ],
)
def test_an_image_depends_on_its_seed_alone(settings: dict[str, Any]) -> None:
    samples = [Sample(seed) for seed in (0, 5, 7, 1 << 33, 9)]
    whole, classes = images(samples, **settings)
    for size in (1, 2, 3):
        parts, same = images(samples, batch_size=size, **settings)
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)
        assert same == classes
    swapped, _ = images(samples[::-1], **settings)
    torch.testing.assert_close(swapped.flip(0), whole, rtol=1e-4, atol=1e-4)


def test_draws_come_in_the_published_order() -> None:
    """Latent in float32, then the class, also when one is given."""
    generator = torch.Generator().manual_seed(11)
    latent = torch.randn(1, 4, 6, generator=generator)
    drawn = int(torch.randint(3, (), generator=generator))
    noise = torch.randn(1, 4, 6, generator=generator, dtype=torch.float64)
    seen: list[torch.Tensor] = []
    settings = generation_settings({"steps": 1, "S_churn": 1.0, "S_noise": 1.0})
    for sample in (Sample(11), Sample(11, class_index=2)):
        (batch,) = generate(
            sampling_of(settings, model()),
            [sample],
            callback=lambda i, sigma, x, d: seen.append(x),
        )
        assert batch.classes == [drawn if sample.class_index is None else 2]
    sigma_hat = 80.0 * math.sqrt(2)
    expected = 80 * latent.double() + math.sqrt(sigma_hat**2 - 80.0**2) * noise
    for x in seen:
        torch.testing.assert_close(x[0], expected)


def test_a_class_changes_the_image_and_an_unconditional_model_has_none() -> None:
    pair, classes = images([Sample(3, 0), Sample(3, 1)])
    assert classes == [0, 1]
    assert not torch.allclose(pair[0], pair[1])
    _, none = images([Sample(3)], label_dim=0)
    assert none == []


@pytest.mark.parametrize(
    ("index", "label_dim", "message"),
    [(0, 0, "unconditional"), (3, 3, "0 to 2"), (-1, 3, "out of range")],
)
def test_a_class_that_is_not_there_is_refused(index: int, label_dim: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        images([Sample(0, index)], label_dim=label_dim)


def test_quantisation_truncates_and_clips() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 0.9999, 1.0, 3.0])
    assert to_uint8(values).tolist() == [0, 0, 128, 255, 255, 255]
    assert to_uint8(torch.tensor([-0.5])).item() == math.floor(127.5 * -0.5 + 128)


PAIR = [Sample(0, 1), Sample(1, 2)]


def test_the_settings_choose_what_the_sampler_calls() -> None:
    """Compared with the same solver run by hand on the same latents."""
    denoiser, labels = model(), torch.eye(3)[[1, 2]]
    one = generation_settings({"steps": 4})
    sigmas = sampling_of(one, denoiser).sigmas
    latents = torch.stack(
        [torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    )
    cases: list[tuple[dict[str, Any], Any]] = [
        ({}, conditional(denoiser, labels)),
        ({"clip": True}, clipped(conditional(denoiser, labels))),
        ({"guidance": 3}, classifier_free(denoiser, labels, scale=3)),
        ({"guidance": {"w": 2}}, classifier_free(denoiser, labels, scale=3)),
        ({"guidance": 3, "clip": True}, classifier_free(denoiser, labels, scale=3, clip="after")),
        (
            {"guidance": {"scale": 3, "clip": "before"}, "clip": True},
            classifier_free(denoiser, labels, scale=3, clip="before"),
        ),
        ({"clip": "dynamic"}, clipped(conditional(denoiser, labels), dynamic_clip)),
        (
            {"guidance": 3, "clip": "dynamic"},
            classifier_free(denoiser, labels, scale=3, clip="after", limit=dynamic_clip),
        ),
        (
            {"guidance": {"scale": 3, "clip": "before"}, "clip": "dynamic"},
            classifier_free(denoiser, labels, scale=3, clip="before", limit=dynamic_clip),
        ),
        (
            {"guidance": {"scale": 3, "interval": [0.1, 5]}},
            classifier_free(denoiser, labels, scale=3, interval=(0.1, 5)),
        ),
    ]
    seen = []
    for settings, denoise in cases:
        with torch.inference_mode():
            start = latents.double() * sigmas[0]
            expected = solver_of(one)(denoise, start, sigmas, noise=torch.zeros_like)
        found, _ = images(PAIR, **settings)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        seen.append(found.numpy().tobytes())
    assert len(set(seen)) == len(cases) - 1  # w=2 is scale 3


def test_guidance_of_scale_one_changes_no_bit_and_zero_forgets_the_class() -> None:
    plain, _ = images(PAIR)
    assert torch.equal(images(PAIR, guidance=1)[0], plain)
    zero, _ = images(PAIR, guidance=0)
    other, _ = images([Sample(0, 0), Sample(1, 0)], guidance=0)
    assert torch.equal(zero, other)
    assert not torch.allclose(zero, plain)
    split, _ = images(PAIR, guidance={"scale": 2, "batch": "split"})
    torch.testing.assert_close(split, images(PAIR, guidance=2)[0], rtol=1e-4, atol=1e-4)


def test_a_second_model_guides() -> None:
    """With itself as guide nothing changes; a guide without labels need not be given any."""
    plain, _ = images(PAIR)
    itself, _ = images(PAIR, guide=model(), guidance=3)
    torch.testing.assert_close(itself, plain, rtol=1e-5, atol=1e-5)
    unconditional = model(0)
    guided, _ = images(PAIR, guide=unconditional, guidance=0)
    unlabelled = [Sample(sample.seed) for sample in PAIR]
    torch.testing.assert_close(guided, images(unlabelled, label_dim=0, guidance=1)[0])
    assert not torch.allclose(images(PAIR, guide=unconditional, guidance=2)[0], plain)
    alone, _ = images([Sample(0)], label_dim=0, guide=unconditional, guidance=2)
    assert alone.shape == (1, 1, 4, 6)


def test_a_float32_solver_has_the_same_noises_and_nearly_the_same_images() -> None:
    several: list[dict[str, Any]] = [
        *({"name": name} for name in SAMPLERS),
        {"S_churn": 4.0},
        {"guidance": 2.0, "clip": True},
    ]
    for settings in several:
        seen: dict[str, list[torch.Tensor]] = {}
        for dtype in ("float64", "float32"):
            chosen = generation_settings({"steps": 6, "solver_dtype": dtype, **settings})
            states: list[torch.Tensor] = []
            (batch,) = generate(
                sampling_of(chosen, model()),
                PAIR,
                callback=lambda i, sigma, x, d, to=states: to.append(x),
            )
            assert batch.images.dtype == getattr(torch, dtype)
            seen[dtype] = [*states, batch.images]
        for exact, rough in zip(seen["float64"], seen["float32"], strict=True):
            scale = float(exact.abs().max())
            torch.testing.assert_close(rough.double(), exact, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize(
    ("settings", "label_dim", "guide", "message"),
    [
        ({"guidance": 2}, 0, None, "guidance 2 needs a model with labels"),
        ({"guidance": 0}, 0, None, "needs a model with labels"),
        ({}, 3, {}, "needs a guidance scale"),
        ({"guidance": 2}, 3, {"label_dim": 2}, "2 labels, the model 3"),
        ({"guidance": 2}, 0, {"label_dim": 3}, "3 labels, the model 0"),
        ({"guidance": 2}, 3, {"img_resolution": (4, 4)}, r"\(1, 4, 4\), the model \(1, 4, 6\)"),
        ({"sigma_min": 5, "sigma_max": 2}, 3, None, "sigma_min"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused_before_any_work(
    settings: dict[str, Any], label_dim: int, guide: dict[str, Any] | None, message: str
) -> None:
    """Also of models without weights, as when a recipe is checked."""
    other = None if guide is None else model(**guide)
    for denoiser in (model(label_dim), model(label_dim).to("meta")):
        with pytest.raises(UserError, match=message):
            sampling_of(generation_settings(settings), denoiser, other)
    with pytest.raises(UserError, match=message):
        images(PAIR, label_dim=label_dim, guide=other, **settings)


def test_the_grid_is_cut_to_what_both_networks_accept() -> None:
    settings = generation_settings({"guidance": 2})
    narrow = model(sigma_min=0.5, sigma_max=7.0)
    for pair in ((model(), narrow), (narrow, model())):
        sampling = sampling_of(settings, *pair)
        assert (sampling.sigmas[0], sampling.sigmas[-2]) == pytest.approx((7.0, 0.5))
        assert len(sampling.notes) == 2


def test_a_model_that_rounds_its_levels_has_no_derivative_for_the_second_order_solver() -> None:
    settings = generation_settings({"name": "ito_taylor", "guidance": 2})
    sampling_of(settings, model(), model())
    rounding = model(name="ddpm", quantize=True)
    for pair in ((rounding, None), (model(), rounding)):
        with pytest.raises(UserError, match="ito_taylor"):
            sampling_of(settings, *pair)


@pytest.mark.parametrize("derivative", ["jvp", "fd"])
def test_second_order_steps_differentiate_a_real_network(derivative: str) -> None:
    settings = {"name": "ito_taylor", "steps": 4, "beta": 0.5, "derivative": derivative}
    plain, _ = images(PAIR, **settings)
    curved, _ = images(PAIR, **settings, laplacian=True)
    assert plain.isfinite().all()
    assert curved.isfinite().all()
    assert not torch.equal(plain, curved)
