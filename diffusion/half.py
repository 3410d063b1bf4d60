"""A denoiser as sampling calls it: its network in half precision, or in the layout that is fast.

The weights of its blocks' convolutions are cast once, all else computes as under autocast: what is
sensitive to rounding (norms, softmax, embeddings, output convolutions) in float32. The
preconditioning is computed in the precision of the solver, as ever.
"""

import copy
from collections.abc import Iterator
from typing import Protocol, TypeVar, runtime_checkable

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
        precision: fp32, bf16 or fp16. In fp32 it is the given denoiser itself, unless weights are
            to be laid out as its network prefers on a CPU.
        in_place: use up the given denoiser, so that no weight is in memory twice; it is not to be
            called afterwards. Otherwise it is left alone, and shares what stays as it is.
    """
    layout = memory_layout(device_of(denoiser))
    if precision == "fp32":
        return _laid_out(denoiser, layout, in_place)
    model = denoiser.model if in_place else _with_same_tensors(denoiser.model)
    for layer in _half_layers(model):
        for name, weights in list(layer.named_parameters()):
            if weights.ndim > 1:  # biases are added in float32
                setattr(layer, name, _cast(weights, precision, layout))
    return HalfDenoiser(denoiser, model, precision)


def _laid_out(denoiser: Denoiser, layout: torch.memory_format, in_place: bool) -> Denoiser:
    """In float32, with the kernels of convolutions as the network prefers them on a CPU."""
    model = denoiser.model
    is_last = isinstance(model, _WithLayout) and model.prefers_channels_last
    if not is_last or layout != torch.channels_last:
        return denoiser
    if not in_place:
        denoiser = _with_same_tensors(denoiser)
    for layer in denoiser.model.modules():
        for name, weights in list(layer.named_parameters(recurse=False)):
            if weights.ndim == 4:
                laid = weights.detach().contiguous(memory_format=layout)
                setattr(layer, name, nn.Parameter(laid, requires_grad=False))
    return denoiser


_Module = TypeVar("_Module", bound=nn.Module)


def _with_same_tensors(module: _Module) -> _Module:
    """A copy of modules alone: every tensor is taken as it is."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def _half_layers(model: nn.Module) -> Iterator[nn.Module]:
    """The layers whose weights can be cast; a network that does not know has none."""
    return model.half_layers() if isinstance(model, _WithInnerLayers) else iter(())


def _cast(weights: Tensor, precision: str, layout: torch.memory_format) -> nn.Parameter:
    half = weights.detach().to(DTYPES[precision])
    if half.ndim == 4:
        half = half.contiguous(memory_format=layout)
    return nn.Parameter(half, requires_grad=False)
