"""What is asserted of CUDA graphs on a pretended GPU; run by `tests.pretend.checks`."""

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion.denoiser import Denoiser
from diffusion.graphs import MAX_PIXELS
from samplers.destination import destination_of
from samplers.generate import GeneratedBatch, generate
from samplers.outputs import PictureWriter, write_batches
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from samplers.starts import Sample
from tests.pretend.cases import model
from tests.pretend.events import WAITS, Events
from torch_utils.failed_captures import end_abandoned

DEVICE = "cuda:0"
REPLAY = "cudaGraphLaunch"
AROUND = 20  # kernels for a call, to fill its inputs, to copy its result and of the solver


def made(denoiser: Denoiser, options: dict[str, Any], *, batch: int, num: int) -> Any:
    """Batches of generated images."""
    settings = generation_settings(options)
    samples = [Sample(seed) for seed in range(num)]
    return generate(sampling_of(settings, denoiser), samples, batch_size=batch)


def a_batch_is_replayed() -> None:
    """From the second batch on each call is one launch, also of a batch that is not full."""
    for guidance, calls in ((None, 11), (2.0, 11), ({"scale": 2.0, "batch": "split"}, 22)):
        denoiser = model(DEVICE, label_dim=0 if guidance is None else 10)
        options = {"name": "heun", "steps": 6, "guidance": guidance}
        batches: Iterator[GeneratedBatch] = made(denoiser, options, batch=3, num=7)
        first = next(batches)
        for num in (3, 1):
            with Events(names=True) as events:
                assert len(next(batches).images) == num
            found = events.kernels.pop(REPLAY)
            assert found == calls, (guidance, num, found)
            around = sum(events.kernels.values())
            assert around < AROUND * calls, (guidance, num, around)
            assert not events.of(*WAITS, "d2h"), (guidance, str(events))
        assert len(first.images) == 3


def graphs_leave_no_memory() -> None:
    """What was captured is given back when the last batch was made, or nobody wants it."""
    denoiser = model(DEVICE)
    for is_stopped in (False, True):
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        batches = made(denoiser, {"name": "heun", "steps": 6}, batch=3, num=6)
        next(batches)
        assert torch.cuda.memory_reserved() > before
        if is_stopped:
            batches.close()
        else:
            assert len(list(batches)) == 1
        after = torch.cuda.memory_reserved()
        assert after <= before, (is_stopped, before, after)


def large_batches_are_not_captured() -> None:
    """A graph saves no time where the device has more to do than the host."""
    largest = MAX_PIXELS // (8 * 16)
    for batch, is_captured in ((largest, True), (largest + 1, False)):
        with Events(names=True) as events:
            list(made(model(DEVICE), {"name": "euler", "steps": 3}, batch=batch, num=batch))
        assert (events.kernels[REPLAY] > 0) == is_captured, batch


def only_writers_wait_for_images() -> None:
    """A batch is launched while the one before is downloaded, also where labels are drawn there."""
    denoiser = model(DEVICE, label_dim=10)
    settings = generation_settings({"name": "heun", "steps": 3})
    for rng_device in ("cpu", DEVICE):
        samples = [Sample(seed) for seed in range(9)]
        batches = generate(
            sampling_of(settings, denoiser), samples, batch_size=3, rng_device=rng_device
        )
        num_waits: list[int] = []

        def watched(
            batches: Iterator[GeneratedBatch], seen: list[int], events: Events
        ) -> Iterator[GeneratedBatch]:
            for batch in batches:
                seen.append(len(events.of(*WAITS)))
                yield batch
            seen.append(len(events.of(*WAITS)))

        with Events() as events:
            names = [str(seed) for seed in range(9)]
            writer = _Deaf(destination_of("nowhere"))
            write_batches(watched(batches, num_waits, events), names, writer, num_waits.append)
        assert num_waits == [0, 3, 0, 3, 0, 3, 0], (rng_device, str(events))
        waits = {line.partition(" ")[2] for *_, line in events.of(*WAITS)}
        assert waits == {"self._arrived.synchronize()"}, (rng_device, str(events))


class _Deaf(PictureWriter):
    """A writer that drops what it is given, so that none of its threads waits."""

    def write_when_there(self, name: str, picture: Callable[[], np.ndarray | None]) -> None:
        del name, picture


class _Waiting(nn.Module):
    """A network that looks at its input, which cannot be captured."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        found: Tensor = self.inner(x, *conditions)
        return found * (1.0 if x.sum().item() == 0 else 0.5)


def what_cannot_be_captured_is_called() -> None:
    """A network that waits for the device is sampled without graphs, and frees what there was."""
    denoiser = model(DEVICE)
    denoiser.model = _Waiting(denoiser.model)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    with Events(names=True) as events:
        batches = list(made(denoiser, {"name": "heun", "steps": 4}, batch=3, num=6))
    assert [len(batch.images) for batch in batches] == [3, 3]
    assert events.kernels[REPLAY] == 0, str(events)
    del batches
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before
    torch.randn(3, device=DEVICE)


class _Forgetful(torch.cuda.CUDAGraph):
    """Allocator and generator believe in a failed capture for ever, as in PyTorch 2.11."""

    def capture_begin(self, pool: tuple[int, int], **options: Any) -> None:
        """Begin as usual, but never be deleted: later versions end a capture then."""
        self.pool_used = pool
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        super().capture_begin(pool, **options)

    def capture_end(self) -> None:
        """CUDA ends it with an error, and PyTorch is told no more than this."""
        nothing = ctypes.c_void_p()
        assert ctypes.CDLL(None).cudaStreamEndCapture(None, ctypes.byref(nothing)) != 0
        raise RuntimeError("operation failed due to a previous error during capture")

    def reset(self) -> None:
        """There is no graph to be given back."""


def a_failed_capture_is_over_for_the_allocator() -> None:
    """Otherwise it gives back no more memory that several streams used."""
    denoiser, graphs = model(DEVICE), list[_Forgetful]()
    denoiser.model = _Waiting(denoiser.model)

    def noted() -> _Forgetful:
        graphs.append(_Forgetful())
        return graphs[-1]

    reserved = []
    for num in (1, 2):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(torch.cuda, "CUDAGraph", noted)
            list(made(denoiser, {"name": "heun", "steps": 4}, batch=3, num=3))
        assert len(graphs) == num
        with pytest.raises(RuntimeError, match="not currently recording"):
            torch._C._cuda_endAllocateToPool(0, graphs[-1].pool_used)
        torch.cuda.empty_cache()
        reserved.append(torch.cuda.memory_reserved())
        torch.randn(3, device=DEVICE)
    assert reserved[1] <= reserved[0]  # libraries keep memory from the first time on


def an_abandoned_capture_is_ended_once_and_on_its_device() -> None:
    """Memory is given back and numbers go on, on the current device if none is named."""
    torch.cuda.set_device(1)
    try:
        for name, index in (("cuda", 1), ("cuda:0", 0)):
            _end_abandoned(torch.device(name), index)
    finally:
        torch.cuda.set_device(0)


class _Believing:
    """A device's generator that believes in a capture until its state is another one.

    So it is left by PyTorch 2.11; later ones keep the belief with the graph.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator.manual_seed(7)
        self.generator.set_offset(12)
        self.clone_state = generator.clone_state
        self.believes = True

    def graphsafe_set_state(self, state: torch.Generator) -> None:
        """Take over a state, with its numbers."""
        self.believes &= state is self.generator
        self.generator.graphsafe_set_state(state)


def _end_abandoned(device: torch.device, index: int) -> None:
    generators = tuple(map(_Believing, torch.cuda.default_generators))
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(index)
    graph, pool = _Forgetful(), torch.cuda.graph_pool_handle()
    with torch.cuda.stream(torch.cuda.Stream(index)):
        graph.capture_begin(pool, capture_error_mode="thread_local")
        held = torch.empty(64 << 20, dtype=torch.uint8, device=device)
        with pytest.raises(RuntimeError, match="capturing"):
            held[0].item()
        with pytest.raises(RuntimeError, match="previous error"):
            graph.capture_end()
    del held
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.cuda, "default_generators", generators)
        for _ in range(2):  # the second time, the allocator knows
            end_abandoned(device, pool)
            torch.cuda.empty_cache()
            assert torch.cuda.memory_reserved(index) <= before, index
        for name in ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"):
            patched.delattr(torch._C, name, raising=False)
        end_abandoned(device, pool)  # in a PyTorch that has no such functions
    assert [each.believes for each in generators] == [place != index for place in (0, 1)]
    torch.randn(3, device=device)
    generator = torch.cuda.default_generators[index]
    assert (generator.initial_seed(), generator.get_offset()) == (7, 16)


def sampling_goes_on_where_the_cache_cannot_be_emptied() -> None:
    """With a capture under way, or one of somebody else's, PyTorch's allocator may refuse that."""

    def refuse() -> None:
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    for network, is_captured in ((_Waiting, False), (_Hungry, True)):
        denoiser = model(DEVICE)
        denoiser.model = network(denoiser.model)
        with pytest.MonkeyPatch.context() as patched, Events(names=True) as events:
            patched.setattr(torch.cuda, "empty_cache", refuse)
            batches = list(made(denoiser, {"name": "heun", "steps": 4}, batch=3, num=3))
        assert [len(batch.images) for batch in batches] == [3]
        assert (events.kernels[REPLAY] > 0) == is_captured, str(events)


class _Hungry(nn.Module):
    """A network for whose second call there is too little memory."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.num_calls = 0

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        self.num_calls += 1
        if self.num_calls == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        found: Tensor = self.inner(x, *conditions)
        return found


def a_capture_without_memory_is_tried_once_more() -> None:
    """PyTorch gives a capture nothing that is only cached; once freed, there is some."""
    denoiser = model(DEVICE)
    denoiser.model = _Hungry(denoiser.model)
    with Events(names=True) as events:
        batches = list(made(denoiser, {"name": "heun", "steps": 4}, batch=3, num=3))
    assert [len(batch.images) for batch in batches] == [3]
    assert events.kernels[REPLAY] > 0, str(events)
