"""How sampling calls its models: by CUDA graphs on a GPU, in two halves on the cores of a CPU."""

import contextlib

import torch
from torch import Tensor

from diffusion.denoiser import ConditionalDenoiser, Denoiser, device_of, is_plain_call
from diffusion.graphs import Graphs
from torch_utils.two_threads import TwoThreads, may_share

# Rows x height x width of a half. Python runs one thread at a time; with less work than this the
# halves wait for that longer than the threads of one call wait for each other.
MIN_PIXELS = 32 * 32


class HalvedDenoiser:
    """A denoiser whose batches are computed by two threads of a CPU, half of the rows by each.

    A call as usual is made for small batches, where a derivative or gradients are taken, under
    autocast and modes that look at operations, and with an odd number of PyTorch's threads.

    Args:
        denoiser: the model, in evaluation mode, on a CPU.
        threads: what computes.
    """

    def __init__(self, denoiser: Denoiser, threads: TwoThreads) -> None:
        self._denoiser = denoiser
        self._threads = threads

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor | float,
        labels: Tensor | None = None,
        label_mask: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """As `Denoiser.forward`, to the bits of calls with half as many rows."""
        others = labels, label_mask, augment_labels
        middle = len(x) // 2
        is_small = middle * x.shape[-2] * x.shape[-1] < MIN_PIXELS
        if is_small or not is_plain_call(x, sigma) or not may_share():
            made: Tensor = self._denoiser(x, sigma, *others)
            return made

        def half(rows: slice) -> Tensor:
            part = (None if given is None else given[rows] for given in others)
            denoised: Tensor = self._denoiser(x[rows], sigma, *part)
            return denoised

        first, second = slice(middle), slice(middle, None)
        return torch.cat(self._threads.both(lambda: half(first), lambda: half(second)))


class Calls(contextlib.ExitStack):
    """What is called in the place of all models of one piece of sampling.

    A `with` block, which frees graphs and ends threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self._graphs = self.enter_context(Graphs())
        self._threads = self.enter_context(TwoThreads())

    def of(self, denoiser: Denoiser) -> ConditionalDenoiser:
        """What to call in a denoiser's place."""
        if device_of(denoiser).type == "cpu":
            return HalvedDenoiser(denoiser, self._threads)
        return self._graphs.of(denoiser)
