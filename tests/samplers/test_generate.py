"""Seeded generation: an image is a function of its seed, in the published order of draws."""

import math

import pytest
import torch

from models.build import build
from models.config import ModelConfig
from samplers.generate import Sample, generate, to_uint8
from samplers.settings import settings_from
from tests.parity.weights import fill_by_rule
from torch_utils.errors import UserError


def model(label_dim: int = 3):  # type: ignore[no-untyped-def]
    config = ModelConfig(
        network={"name": "ddpmpp", "model_channels": 16, "channel_mult": [1], "num_blocks": 1},
        img_resolution=(4, 6),
        img_channels=1,
        label_dim=label_dim,
    )
    denoiser = build(config)
    fill_by_rule(denoiser)
    return denoiser.eval()


def images(samples: list[Sample], batch_size: int = 64, label_dim: int = 3, **settings: float):  # type: ignore[no-untyped-def]
    chosen = settings_from({"steps": 4, **settings})
    batches = list(generate(model(label_dim), chosen, samples, batch_size=batch_size))
    classes = [index for batch in batches for index in batch.classes or []]
    return torch.cat([batch.images for batch in batches]), classes


@pytest.mark.parametrize("settings", [{}, {"S_churn": 2.0}])
def test_an_image_depends_on_its_seed_alone(settings: dict[str, float]) -> None:
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
    settings = settings_from({"steps": 1, "S_churn": 1.0, "S_noise": 1.0})
    for sample in (Sample(11), Sample(11, class_index=2)):
        (batch,) = generate(
            model(), settings, [sample], callback=lambda i, sigma, x, d: seen.append(x)
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
