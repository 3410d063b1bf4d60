"""Guidance on a denoiser whose labels matter: formulas, special scales, intervals, clipping."""

import math

import pytest
import torch
from torch import Tensor

from diffusion.guidance import (
    CLIPS,
    autoguidance,
    classifier_free,
    clipped,
    conditional,
    dynamic_clip,
)
from samplers.levels import visited_levels
from samplers.settings import generation_settings
from samplers.solvers.heun import heun
from tests.closed_form import GaussianMixture

MEANS = (-0.8, 0.1, 0.7)
LABELS = torch.eye(3)[[0, 1, 2, 2]]


def mixture(std: float = 0.3, means: tuple[float, ...] = MEANS) -> GaussianMixture:
    return GaussianMixture(
        torch.stack([torch.full([1, 2, 3], m, dtype=torch.float64) for m in means]), std
    )


def state(sigma: float, n: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return sigma * torch.randn(n, 1, 2, 3, generator=generator, dtype=torch.float64)


class Counted:
    """A denoiser that notes the batch size of each of its calls."""

    def __init__(self) -> None:
        self.model = mixture()
        self.sizes: list[int] = []

    def __call__(self, x: Tensor, sigma: Tensor | float, *conditions: Tensor | None) -> Tensor:
        self.sizes.append(len(x))
        return self.model(x, sigma, *conditions)


def exact(x: Tensor, sigma: float, means: tuple[float, ...], std: float = 0.3) -> Tensor:
    """D of an equal mixture of N(m, std^2) in every pixel, written out on its own."""
    variance = std**2 + sigma**2
    distance = torch.stack([(x - mean).square().sum((1, 2, 3)) for mean in means])
    shares = (-distance / (2 * variance)).softmax(0)[:, :, None, None, None]
    each = torch.stack([(mean * sigma**2 + x * std**2) / variance for mean in means])
    return (shares * each).sum(0)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.1, 4.0, -1.0])
def test_classifier_free_extrapolates_from_the_mixture_through_the_component(
    scale: float, split: bool
) -> None:
    """A swap of the two would show: at scale s it gives the formula at 1 - s."""
    sigma, x = 0.7, state(0.9)
    with_label = torch.cat(
        [exact(x[i : i + 1], sigma, (MEANS[c],)) for i, c in enumerate((0, 1, 2, 2))]
    )
    without = exact(x, sigma, MEANS)
    expected = (1 - scale) * without + scale * with_label
    found = classifier_free(mixture(), LABELS, scale=scale, split=split)(x, sigma)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert (with_label - without).abs().max() > 0.1


@pytest.mark.parametrize(
    ("scale", "split", "sizes"),
    [
        (1.0, False, [4]),
        (0.0, False, [4]),
        (2.0, False, [8]),
        (1.0, True, [4]),
        (0.0, True, [4]),
        (2.0, True, [4, 4]),
    ],
)
def test_the_number_of_calls(scale: float, split: bool, sizes: list[int]) -> None:
    model = Counted()
    classifier_free(model, LABELS, scale=scale, split=split)(state(1.0), 1.0)
    assert model.sizes == sizes


def test_scale_one_is_the_conditional_model_to_the_bit_and_zero_the_unconditional_one() -> None:
    x, model = state(2.0), mixture()
    one = classifier_free(model, LABELS, scale=1)(x, 2.0)
    assert torch.equal(one, conditional(model, LABELS)(x, 2.0))
    zero = classifier_free(model, LABELS, scale=0)(x, 2.0)
    assert torch.equal(zero, conditional(model, None)(x, 2.0))


def test_one_doubled_batch_and_two_calls_agree() -> None:
    x = state(1.0)
    joint = classifier_free(mixture(), LABELS, scale=3)(x, 1.0)
    split = classifier_free(mixture(), LABELS, scale=3, split=True)(x, 1.0)
    torch.testing.assert_close(joint, split, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("sigma", "is_guided"), [(0.2, False), (0.21, True), (3.0, True), (3.01, False), (80, False)]
)
def test_guidance_acts_in_its_interval_only(sigma: float, is_guided: bool) -> None:
    model, x = Counted(), state(1.0)
    found = classifier_free(model, LABELS, scale=3, interval=(0.2, 3.0))(x, sigma)
    assert model.sizes == [8 if is_guided else 4]
    plain = conditional(mixture(), LABELS)(x, sigma)
    assert torch.equal(found, plain) is not is_guided
    guide = mixture(0.5)
    pair = conditional(mixture(), LABELS), conditional(guide, LABELS)
    auto = autoguidance(*pair, scale=3, interval=(0.2, 3.0))(x, sigma)
    assert torch.equal(auto, plain) is not is_guided


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("split", [False, True])
def test_clipping_before_and_after(clip: str, split: bool) -> None:
    """Wide components and a wide state, so that all four results differ."""
    sigma, x, scale = 0.5, state(2.0), 2.5
    model = mixture(1.0)
    near, far = conditional(model, LABELS)(x, sigma), conditional(model, None)(x, sigma)
    if clip in ("before", "both"):
        near, far = near.clamp(-1, 1), far.clamp(-1, 1)
    expected = far + scale * (near - far)
    if clip in ("after", "both"):
        expected = expected.clamp(-1, 1)
    found = {
        name: classifier_free(model, LABELS, scale=scale, clip=name, split=split)(x, sigma)
        for name in CLIPS
    }
    torch.testing.assert_close(found[clip], expected, rtol=0, atol=1e-12)
    assert all(not torch.allclose(found[other], found[clip]) for other in CLIPS if other != clip)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_single_call_is_clipped_too(clip: str, scale: float) -> None:
    """Otherwise the result would jump between scale 1 and 1 + 1e-9."""
    x, model = state(3.0), mixture(1.0)
    found = classifier_free(model, LABELS, scale=scale, clip=clip)(x, 0.5)
    near = classifier_free(model, LABELS, scale=scale + 1e-9, clip=clip)(x, 0.5)
    torch.testing.assert_close(found, near, rtol=0, atol=1e-7)
    assert (found.abs().max().item() > 1) is (clip == "none")


def test_clipped_keeps_what_is_inside() -> None:
    x, model = state(3.0), mixture(1.0)
    plain = conditional(model, LABELS)(x, 0.5)
    found = clipped(conditional(model, LABELS))(x, 0.5)
    assert plain.abs().max() > 1
    assert torch.equal(found, plain.clamp(-1, 1))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.5])
def test_autoguidance_extrapolates_from_the_guide_through_the_model(scale: float) -> None:
    x, sigma = state(1.0), 0.6
    model, guide = mixture(0.3), mixture(0.6, (-0.5, 0.0, 0.4))
    near, far = model(x, sigma, LABELS), guide(x, sigma, LABELS)
    pair = conditional(model, LABELS), conditional(guide, LABELS)
    found = autoguidance(*pair, scale=scale)(x, sigma)
    torch.testing.assert_close(found, (1 - scale) * far + scale * near, rtol=0, atol=1e-12)
    if scale in (0, 1):
        assert torch.equal(found, near if scale == 1 else far)
    pair = conditional(model, None), conditional(guide, None)
    without = autoguidance(*pair, scale=scale)(x, sigma)
    expected = (1 - scale) * guide(x, sigma) + scale * model(x, sigma)
    torch.testing.assert_close(without, expected, rtol=0, atol=1e-12)


def test_dynamic_clipping_divides_by_the_quantile_of_each_image() -> None:
    """The quantile lies between two values, and is their interpolation; at most 1, it is 1."""
    wide = torch.arange(1, 202, dtype=torch.float64).reshape(1, 1, 3, 67) / 20
    images = torch.cat([wide, -wide, wide / 20])
    found = dynamic_clip(images)
    bound = 200.0 / 20  # 0.995 of the way from the first to the last of 201 values
    torch.testing.assert_close(found[0], (wide[0] / bound).clamp(max=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(found[1], -found[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(found[2], images[2], rtol=0, atol=0)


def test_guidance_is_differentiable_in_the_state_and_the_noise_level() -> None:
    """What the second-order solver needs, with an interval decided on the value of sigma."""
    x, sigma = state(1.0), torch.tensor(0.7, dtype=torch.float64)
    for make in (
        lambda: classifier_free(mixture(), LABELS, scale=2, interval=(0.1, 5.0)),
        lambda: classifier_free(mixture(), LABELS, scale=2, split=True),
        lambda: autoguidance(
            conditional(mixture(), LABELS), conditional(mixture(0.6), LABELS), scale=2
        ),
    ):
        denoise = make()
        direction = state(1.0).flip(0)
        _, tangent = torch.func.jvp(denoise, (x, sigma), (direction, torch.ones_like(sigma)))
        step = 1e-5
        ahead = denoise(x + step * direction, float(sigma) + step)
        behind = denoise(x - step * direction, float(sigma) - step)
        torch.testing.assert_close(tangent, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


def test_a_guided_sampler_goes_farther_from_the_other_classes() -> None:
    """Guidance away from the mixture's mean 0: samples of the outer class move outwards."""
    sigmas = visited_levels(generation_settings({"steps": 25}), 0, math.inf, float)[0]
    model = mixture(0.3, (-0.6, 0.6))
    labels = torch.eye(2)[[1] * 64]
    means = [
        heun(
            classifier_free(model, labels, scale=scale),
            state(sigmas[0], 64),
            sigmas,
            noise=torch.zeros_like,
        ).mean()
        for scale in (0.0, 1.0, 2.0)
    ]
    assert means[0].abs() < 0.2
    assert means[1].item() == pytest.approx(0.6, abs=0.05)
    assert means[2] > means[1] + 0.02
