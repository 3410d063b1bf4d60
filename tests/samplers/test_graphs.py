"""Captured denoiser calls: fixed inputs, padding, and calls as usual where nothing is captured.

On the CPU a recorder stands in that calls again with the same fixed tensors, as a replay does.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffusion.denoiser import Denoiser
from diffusion.graphs import MAX_PIXELS, GraphedDenoiser, Graphs
from samplers.generate import generate, solve
from samplers.labels import LabelSource
from samplers.sampling import Sampling, sampling_of
from samplers.settings import generation_settings
from samplers.starts import Sample, start_of
from tests.pretend import cases

SAMPLES = [Sample(seed) for seed in range(7)]
BATCH = 3


class Again:
    """A recorder that calls again, with the tensors that the first call saw.

    Attributes:
        shapes: of the results of captured calls.
        replays: how many there were.
        closed: how often memory was to be freed.
        error: what a capture raises; None for none.
    """

    def __init__(self, error: RuntimeError | None = None) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.replays = 0
        self.closed = 0
        self.error = error

    def first(self, call: Callable[[], Tensor]) -> Tensor:
        return call()

    def capture(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        if self.error is not None:
            raise self.error
        made = torch.full_like(call(), float("nan"))
        self.shapes.append(tuple(made.shape))

        def again() -> None:
            self.replays += 1
            made.copy_(call())

        return made, again

    def close(self) -> None:
        self.closed += 1


def model(device: str = "cpu", label_dim: int = 0, seed: int = 0) -> Denoiser:
    return cases.model(device, label_dim=label_dim, seed=seed)


def sampling(case: cases.Sampling, device: str = "cpu") -> Sampling:
    denoiser = cases.model(device, case.preconditioning, case.label_dim)
    guide = cases.model(device, case.preconditioning, case.label_dim, 1)
    settings = generation_settings(case.options)
    return sampling_of(settings, denoiser, guide if case.has_guide else None)


def batches(ready: Sampling, samples: list[Sample], size: int = BATCH) -> list[Tensor]:
    """Images of equal seeds, batch by batch, as `generate` makes them but without its graphs."""
    source = LabelSource(ready.denoiser.label_dim)
    starts = [
        start_of(ready, samples[first : first + size], source=source)
        for first in range(0, len(samples), size)
    ]
    return [solve(ready, start) for start in starts]


@pytest.mark.parametrize("case", cases.SAMPLING, ids=str)
def test_images_are_those_of_plain_calls(case: cases.Sampling) -> None:
    plain, recorder = sampling(case), Again()
    with Graphs(recorder) as graphs:
        found = batches(replace(plain, called=graphs.of), SAMPLES)
    expected = batches(plain, SAMPLES)
    for ours, theirs in zip(found[:-1], expected, strict=False):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(found[-1], expected[-1], rtol=1e-4, atol=1e-4)
    assert recorder.replays > 0


def test_a_kind_of_call_is_captured_once_for_full_and_last_batches() -> None:
    shape = (3, 8, 16)
    joint, alone = (2 * BATCH, *shape), (BATCH, *shape)
    for guidance, has_guide, expected in (
        (1.0, False, [alone]),
        (2.0, False, [joint]),
        ({"scale": 2.0, "interval": [0.1, 10]}, False, [alone, joint]),
        ({"scale": 2.0, "batch": "split"}, False, [alone, alone]),
        (2.0, True, [alone, alone]),
    ):
        options = {"name": "heun", "steps": 6, "guidance": guidance}
        recorder = Again()
        with Graphs(recorder) as graphs:
            plain = sampling(cases.Sampling(options, label_dim=10, has_guide=has_guide))
            batches(replace(plain, called=graphs.of), SAMPLES)
        assert sorted(recorder.shapes) == expected, (guidance, has_guide)


def test_a_padded_image_has_the_bits_of_a_full_batch() -> None:
    plain = sampling(cases.Sampling({"name": "heun", "steps": 4, "S_churn": 4.0}, label_dim=10))
    with Graphs(Again()) as graphs:
        ready = replace(plain, called=graphs.of)
        found = batches(ready, SAMPLES)
    assert torch.equal(found[2], batches(plain, [*SAMPLES, Sample(7), Sample(8)])[2][:1])


def test_a_capture_that_fails_is_told_once_and_changes_no_image(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch_utils.notes._said", set())
    plain = sampling(cases.Sampling({"name": "heun", "steps": 4}))
    recorder = Again(RuntimeError("CUDA error: operation not permitted\nsecond line"))
    with Graphs(recorder) as graphs:
        found = batches(replace(plain, called=graphs.of), SAMPLES)
    for ours, theirs in zip(found, batches(plain, SAMPLES), strict=True):
        assert torch.equal(ours, theirs)
    said = "warning: sampling goes on without CUDA graphs, which may be slower: "
    assert capsys.readouterr().err == f"{said}CUDA error: operation not permitted\n"


def test_a_capture_that_fails_is_told_before_anything_is_freed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch_utils.notes._said", set())
    told: list[str] = []
    recorder = Again(RuntimeError("CUDA error: operation not permitted"))
    monkeypatch.setattr(recorder, "close", lambda: told.append(capsys.readouterr().err))
    with Graphs(recorder) as graphs:
        ready = sampling(cases.Sampling({"name": "heun", "steps": 4}))
        batches(replace(ready, called=graphs.of), SAMPLES)
    assert "warning: sampling goes on without CUDA graphs" in told[0]


def test_a_capture_that_fails_frees_the_graphs_of_all_models() -> None:
    plain = sampling(cases.Sampling({"name": "heun", "steps": 4, "guidance": 2.0}, has_guide=True))
    expected, recorder = batches(plain, SAMPLES), Again()

    def fail_the_second_time(call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        if recorder.shapes:
            recorder.error = torch.OutOfMemoryError("CUDA out of memory")
        return Again.capture(recorder, call)

    recorder.capture = fail_the_second_time  # type: ignore[method-assign]
    with Graphs(recorder) as graphs:
        found = batches(replace(plain, called=graphs.of), SAMPLES)
        assert (len(recorder.shapes), recorder.closed, recorder.replays) == (1, 1, 1)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_only_a_small_call_that_nobody_looks_into_is_captured() -> None:
    recorder, denoiser = Again(), model()
    graphed = GraphedDenoiser(denoiser, recorder)
    x = torch.randn(2, 3, 8, 16, generator=torch.Generator().manual_seed(0))

    def twice(x: Tensor, sigma: float | Tensor = 0.5) -> Tensor:
        graphed(x, sigma)
        return graphed(x, sigma)

    with torch.no_grad():
        expected = denoiser(x, 0.5)
        torch.func.jvp(twice, (x,), (torch.ones_like(x),))
        with FlopCounterMode(display=False) as flops:
            twice(x)
        with torch.autocast("cpu", torch.bfloat16):
            twice(x)
        twice(x, torch.tensor([0.5, 1.0]))
        twice(x.new_zeros(MAX_PIXELS // 128 + 1, 3, 8, 16))
    assert twice(x.clone().requires_grad_()).requires_grad
    assert recorder.shapes == []
    assert flops.get_total_flops() > 0
    with torch.no_grad():
        assert torch.equal(twice(x), expected)
        assert torch.equal(twice(x, torch.tensor(0.5, dtype=torch.float64)), expected)
    assert recorder.shapes == [(2, 3, 8, 16)]


needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_a_gpu
@pytest.mark.parametrize("case", [case for case in cases.SAMPLING if case.rng_device], ids=str)
def test_on_a_gpu_replayed_calls_give_the_images_of_plain_ones(case: cases.Sampling) -> None:
    plain = sampling(case, "cuda")
    made = generate(plain, SAMPLES, batch_size=BATCH)
    found = torch.cat([batch.images for batch in made])
    torch.testing.assert_close(found, torch.cat(batches(plain, SAMPLES)), rtol=1e-4, atol=1e-4)


@needs_a_gpu
def test_on_a_gpu_a_graph_has_the_weights_of_the_day_and_its_memory_is_given_back() -> None:
    denoiser = model("cuda")
    x = torch.randn(2, 3, 8, 16, device="cuda")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    with torch.inference_mode(), Graphs() as graphs:
        call = graphs.of(denoiser)
        for _ in range(3):
            call(x, 0.5)
        for weight in denoiser.parameters():
            weight.mul_(1.5)
        for sigma in (0.5, 2.0):
            torch.testing.assert_close(call(x, sigma), denoiser(x, sigma), rtol=1e-4, atol=1e-4)
        assert torch.cuda.memory_reserved() > before
        del call
    assert torch.cuda.memory_reserved() <= before
