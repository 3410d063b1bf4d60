"""Noises: those of one generator after the other, whoever draws them; none where none is needed."""

from collections.abc import Iterator

import pytest
import torch

from diffusion.denoiser import Denoiser
from samplers import SAMPLERS
from samplers.generate import solve
from samplers.labels import LabelSource
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from samplers.starts import Sample, SeededNoise, start_of
from tests.pretend import cases

CPU = torch.device("cpu")


@pytest.fixture
def three_threads() -> Iterator[None]:
    """Three threads within a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (1, 3, 5), (3, 200, 20)])
@pytest.mark.parametrize("inference", [True, False])
def test_threads_draw_the_numbers_of_one_generator_after_the_other(
    shape: tuple[int, ...], inference: bool, three_threads: None
) -> None:
    seeds = [*range(40), 1 << 33]
    random = SeededNoise(seeds, CPU)
    generators = [torch.Generator().manual_seed(seed % (1 << 32)) for seed in seeds]
    with torch.inference_mode(inference):
        for dtype in (torch.float32, torch.float64, torch.float64):
            rows = [torch.randn(shape, generator=each, dtype=dtype) for each in generators]
            assert torch.equal(random.normal(shape, dtype), torch.stack(rows))
            drawn = [torch.randint(10, (), generator=each) for each in generators]
            assert torch.equal(random.integers(10), torch.stack(drawn))


def test_a_large_draw_is_shared_and_a_small_one_is_not(three_threads: None) -> None:
    def threads(num: int, *shape: int) -> int:
        return SeededNoise([], CPU)._threads_for(torch.empty(num, *shape))

    assert threads(64, 3, 32, 32) == 3
    assert threads(2, 3, 256, 256) == 2  # an image has one generator
    assert threads(22, 3, 32, 32) == 2
    assert threads(4, 3, 32, 32) == 1
    assert threads(4096, 1, 8, 8) == 1


def test_a_deterministic_sampler_draws_nothing_but_latents() -> None:
    denoiser: Denoiser = cases.model("cpu")
    for name, row in SAMPLERS.items():
        settings = generation_settings({"name": name, "steps": 4})
        sampling = sampling_of(settings, denoiser)
        start = start_of(sampling, [Sample(0), Sample(1)], source=LabelSource(0))
        before = [each.get_state() for each in start.random.generators]
        solve(sampling, start)
        after = [each.get_state() for each in start.random.generators]
        same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert same != row.is_stochastic(settings.options), name
