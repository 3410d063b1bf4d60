"""CUDA graphs of denoiser calls, for sampling: a call of hundreds of kernels becomes one launch.

A graph repeats what was launched while it was captured, on the memory that was used then. So the
inputs of every call, the noise level too, are copied into fixed tensors, and the result is copied
out. Weights are read where they lie: if they change in place, the graph has the new ones.
"""

import contextlib
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import torch
from torch import Tensor

from diffusion.denoiser import ConditionalDenoiser, Denoiser, device_of, is_plain_call
from diffusion.preconditioning import broadcast_sigma
from torch_utils.failed_captures import end_abandoned
from torch_utils.notes import warn_here

# Rows x height x width of a call that is still captured. The host needs 5 to 10 ms for the launches
# of a call, whatever its size; the device needs as long for 64 images of 32x32 in half precision,
# and in float32 for about 10. Beyond that a graph saves no time, but has memory of its own.
MAX_PIXELS = 64 * 32 * 32

_Optional = tuple[Tensor | None, ...]


class Recorder(Protocol):
    """What makes calls repeatable: `CudaRecorder`, or in tests one that simply calls again."""

    def first(self, call: Callable[[], Tensor]) -> Tensor:
        """Make a call as usual, before another one like it is captured."""

    def capture(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Capture a call.

        Returns:
            Where its result lies, and what fills this in anew.

        Raises:
            RuntimeError: it cannot be captured.
        """

    def close(self) -> None:
        """Free the memory of all captures."""


class CudaRecorder:
    """CUDA graphs that share one pool of memory, as they are replayed one after the other.

    Threads take turns: what one of them launches on the side stream must not get into a graph of
    another one's. Each has a recorder of its own.
    """

    _turn = threading.RLock()

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _side_stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._is_used = False

    def first(self, call: Callable[[], Tensor]) -> Tensor:
        """Call on the side stream, so that libraries are ready there; nobody waits."""
        with self._turn:
            self._is_used = True
            current = torch.cuda.current_stream(self._device)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                made = call()
            current.wait_stream(self._stream)
        made.record_stream(current)
        return made

    def capture(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Capture on the side stream; see `Recorder`.

        `torch.cuda.graph` would wait for the device and empty its cache before. Other threads, e.g.
        those that write images, may use the device meanwhile.
        """
        with self._turn:
            with contextlib.suppress(torch.OutOfMemoryError):
                return self._captured(call)
            # what is only cached is not given to a capture; the first one's graph keeps the pool
            _empty_cache()
            return self._captured(call)

    def _captured(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        self._graphs.append(graph)
        with torch.cuda.stream(self._stream):
            graph.capture_begin(self._pool, capture_error_mode="thread_local")
            try:
                made = call()
            except BaseException:
                with contextlib.suppress(RuntimeError):  # which says only that there was an error
                    self._end(graph)
                raise
            self._end(graph)

        def replay() -> None:
            with self._turn:
                graph.replay()

        return made, replay

    def _end(self, graph: torch.cuda.CUDAGraph) -> None:
        try:
            graph.capture_end()
        except RuntimeError:
            end_abandoned(self._device, self._pool)
            raise

    def close(self) -> None:
        """Give the memory back to the device, as other work could not use what is kept for this."""
        with self._turn:
            for graph in self._graphs:
                graph.reset()
            self._graphs.clear()
            if self._is_used:
                self._is_used = False
                _empty_cache()


def _empty_cache() -> None:
    """Give back what is cached, unless PyTorch cannot: no reason for any work to end."""
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all graphs on a device: libraries keep memory for each stream for ever."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


@dataclass
class _Call:
    """Calls of one kind: the same inputs are given, and images have the same shape.

    Attributes:
        rows: images of a call. Calls with fewer are padded.
        x, level, others: its fixed inputs; none before the second call.
        made: where its result lies.
        replay: fills that in; None before the second call.
    """

    rows: int
    x: Tensor = field(init=False)
    level: Tensor = field(init=False)
    others: _Optional = field(init=False)
    made: Tensor = field(init=False)
    replay: Callable[[], None] | None = None

    def allocate(self, x: Tensor, others: _Optional) -> None:
        """Make the fixed inputs. Rows of padding hold zeros, or what an earlier call had there."""

        def fixed(given: Tensor) -> Tensor:
            return given.new_zeros(self.rows, *given.shape[1:])

        with torch.inference_mode(False):
            self.x, self.level = fixed(x), x.new_ones(1, 1, 1, 1)
            self.others = tuple(None if given is None else fixed(given) for given in others)

    def fill(self, x: Tensor, sigma: float | Tensor, others: _Optional) -> None:
        """Copy the inputs of a call to their places."""
        if isinstance(sigma, Tensor):
            self.level.copy_(broadcast_sigma(sigma, x))
        else:
            self.level.fill_(sigma)
        for place, given in zip((self.x, *self.others), (x, *others), strict=True):
            if place is not None and given is not None:
                place[: len(x)].copy_(given)


class GraphedDenoiser:
    """A denoiser whose calls are captured the second time, and replayed from then on.

    A call as usual is made instead of the first, where a derivative or gradients are taken, under
    autocast and modes that look at operations, for large batches, and if the capture fails.

    Args:
        denoiser: the model, in evaluation mode.
        recorder: what captures.
        give_up: called when a capture has failed; by default, only this model does without.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        recorder: Recorder,
        give_up: Callable[[], None] | None = None,
    ) -> None:
        self._denoiser = denoiser
        self._recorder = recorder
        self._give_up = self.stop if give_up is None else give_up
        self._calls: dict[object, _Call] = {}
        self._has_failed = False

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor | float,
        labels: Tensor | None = None,
        label_mask: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """As `Denoiser.forward`, to the bits of a call with as many rows as are captured."""
        others = labels, label_mask, augment_labels
        if self._has_failed or not _can_be_captured(x, sigma):
            return self._plain(x, sigma, others)
        kind = x.shape[1:], x.dtype, tuple(given is None for given in others)
        found = self._calls.get(kind)
        if found is None or found.rows < len(x):
            self._calls[kind] = _Call(len(x))
            return self._recorder.first(lambda: self._plain(x, sigma, others))
        if found.replay is None and not self._capture(found, x, others):
            return self._plain(x, sigma, others)
        assert found.replay is not None
        found.fill(x, sigma, others)
        found.replay()
        return found.made[: len(x)].clone()

    def stop(self) -> None:
        """Capture and replay nothing from now on."""
        self._has_failed = True
        self._calls.clear()

    def _plain(self, x: Tensor, sigma: Tensor | float, others: _Optional) -> Tensor:
        made: Tensor = self._denoiser(x, sigma, *others)
        return made

    def _capture(self, call: _Call, x: Tensor, others: _Optional) -> bool:
        """Capture a kind of call; whether it could be done."""
        call.allocate(x, others)
        reason = ""
        try:
            call.made, call.replay = self._recorder.capture(
                lambda: self._plain(call.x, call.level, call.others)
            )
        except RuntimeError as error:  # out of memory, and all that CUDA refuses, are such errors
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if reason:  # not before: the error holds what its call has made
            warn_here(f"sampling goes on without CUDA graphs, which may be slower: {reason}")
            self._give_up()
        return call.replay is not None


def _can_be_captured(x: Tensor, sigma: Tensor | float) -> bool:
    height, width = x.shape[-2:]
    return len(x) * height * width <= MAX_PIXELS and is_plain_call(x, sigma)


class Graphs:
    """The graphs of all models of one piece of sampling. A `with` block, which frees them.

    Args:
        recorder: what captures; None for CUDA graphs on CUDA, and calls as usual elsewhere.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._recorder = recorder
        self._graphed: dict[Denoiser, GraphedDenoiser] = {}
        self._has_failed = False

    def of(self, denoiser: Denoiser) -> ConditionalDenoiser:
        """What to call in a denoiser's place; always the same for the same one."""
        if self._recorder is None and device_of(denoiser).type == "cuda":
            self._recorder = CudaRecorder(device_of(denoiser))
        if self._recorder is None or self._has_failed:
            return denoiser
        if denoiser not in self._graphed:
            self._graphed[denoiser] = GraphedDenoiser(denoiser, self._recorder, self._give_up)
        return self._graphed[denoiser]

    def _give_up(self) -> None:
        """Do without graphs, of all models: those that there are keep memory that is wanting."""
        self._has_failed = True
        for graphed in self._graphed.values():
            graphed.stop()
        if self._recorder is not None:
            self._recorder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._graphed.clear()
        if self._recorder is not None:
            self._recorder.close()
