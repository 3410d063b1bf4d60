"""A denoiser as sampling calls it: its network in half precision, or in the layout that is fast.

The weights of its blocks' convolutions are cast once, all else computes as under autocast: what is
sensitive to rounding (norms, softmax, embeddings, output convolutions) in float32. The
preconditioning is computed in the precision of the solver, as ever.
"""

import copy
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diffusion.denoiser import Denoiser, device_of
from torch_utils.precision import DTYPES, autocast


@runtime_checkable
class _WithInnerLayers(Protocol):
    """A network that knows which of its layers compute in half precision."""

    def half_layers(self) -> Iterator[nn.Module]: ...


@runtime_checkable
class _WithLayout(Protocol):
    """A network that knows whether channels last is faster for it in float32 on CPUs."""

    prefers_channels_last: bool


def memory_layout(device: torch.device) -> torch.memory_format:
    """The layout in which half-precision networks are faster on a device.

    On CPUs oneDNN's bf16 convolutions want pixels apart, and would turn every image around.
    """
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


class HalfDenoiser(Denoiser):
    """A denoiser in bf16 or fp16; made by `halved`.

    Attributes:
        precision: bf16 or fp16.
        layout: of the network's features.
    """

    def __init__(self, whole: Denoiser, model: nn.Module, precision: str) -> None:
        """Take over everything but the network.

        Args:
            whole: the denoiser in float32.
            model: its network, with layers already cast.
            precision: bf16 or fp16.
        """
        super().__init__(
            model,
            whole.preconditioning,
            img_resolution=whole.img_resolution,
            img_channels=whole.img_channels,
            label_dim=whole.label_dim,
        )
        self.u, self.log_levels = whole.u, whole.log_levels
        self.precision = precision
        self.layout = memory_layout(device_of(whole))
        self.train(whole.training)

    @property
    def _input_dtype(self) -> torch.dtype:
        return torch.float32

    def _network(self, x: Tensor, *conditions: Tensor | None) -> Tensor:
        with autocast(self.precision, x.device):
            raw = super()._network(x.contiguous(memory_format=self.layout), *conditions)
        return raw.contiguous()  # the solver's state keeps its layout


def halved(denoiser: Denoiser, precision: str, *, in_place: bool = False) -> Denoiser:
    """The same denoiser in another precision.

    Args:
        denoiser: in float32, without autocast.
        precision: fp32, bf16 or fp16. In fp32 it is the given denoiser itself; in place, its
            weights are laid out as its network prefers on a CPU.
        in_place: use up the given denoiser, so that no weight is in memory twice; it is not to be
            called afterwards. Otherwise it is left alone, and shares what stays in float32.
    """
    layout = memory_layout(device_of(denoiser))
    if precision == "fp32":
        if in_place and isinstance(denoiser.model, _WithLayout):
            is_last = denoiser.model.prefers_channels_last
            denoiser.model.to(memory_format=layout if is_last else torch.contiguous_format)
        return denoiser
    model, shared = denoiser.model, dict[int, Any]()
    if not in_place:
        tensors = [*model.parameters(), *model.buffers()]
        shared = {id(tensor): tensor for tensor in tensors}
        model = copy.deepcopy(model, shared)  # modules alone: every tensor is taken as it is
    for layer in _half_layers(model):
        for name, weights in list(layer.named_parameters()):
            if weights.ndim > 1:  # biases are added in float32
                setattr(layer, name, _cast(weights, precision, layout))
    return HalfDenoiser(denoiser, model, precision)


def _half_layers(model: nn.Module) -> Iterator[nn.Module]:
    """The layers whose weights can be cast; a network that does not know has none."""
    return model.half_layers() if isinstance(model, _WithInnerLayers) else iter(())


def _cast(weights: Tensor, precision: str, layout: torch.memory_format) -> nn.Parameter:
    half = weights.detach().to(DTYPES[precision])
    if half.ndim == 4:
        half = half.contiguous(memory_format=layout)
    return nn.Parameter(half, requires_grad=False)
