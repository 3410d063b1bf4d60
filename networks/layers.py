"""The primitive layers of the U-Nets: initialisers, linear, convolution, embeddings.

Parameters are float32. Under autocast, linear layers, which make up the embedding, still run in
float32, being sensitive to rounding. Every layer has a forward-mode derivative.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context in which autocast is off for the device of x."""
    device_type = x.device.type
    # meta tensors have no autocast, and in PyTorch 2.11 the question breaks graphs
    if device_type != "meta" and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def widen(x: Tensor) -> Tensor:
    """x in float32 if it has less precision, else x itself."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def working_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which convolutions of x compute and answer, by autocast or without it."""
    where = x.device.type
    is_cast = where != "meta" and x.dtype != torch.float64 and torch.is_autocast_enabled(where)
    if is_cast:
        return torch.get_autocast_dtype(where)
    return x.dtype


def has_tangent(x: Tensor) -> bool:
    """Whether a forward-mode derivative is being taken through x (torch.func.jvp, jacfwd)."""
    return forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]


def is_channels_last(x: Tensor) -> bool:
    """Whether images lie in memory pixel by pixel only, and not channel by channel as well."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _uniform(shape: Sequence[int]) -> Tensor:
    return torch.rand(*shape) * 2 - 1


def _normal(shape: Sequence[int]) -> Tensor:
    return torch.randn(*shape)


def _truncated_normal(shape: Sequence[int]) -> Tensor:
    """Normals cut at two standard deviations, with the smaller variance that this leaves."""
    return nn.init.trunc_normal_(torch.empty(*shape), a=-2, b=2)


_INITIALISERS: dict[str, tuple[Callable[[Sequence[int]], Tensor], Callable[[int, int], float]]] = {
    "xavier_uniform": (_uniform, lambda fan_in, fan_out: math.sqrt(6 / (fan_in + fan_out))),
    "xavier_normal": (_normal, lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
    "kaiming_uniform": (_uniform, lambda fan_in, _: math.sqrt(3 / fan_in)),
    "kaiming_normal": (_normal, lambda fan_in, _: math.sqrt(1 / fan_in)),
    "truncated_normal": (_truncated_normal, lambda fan_in, _: math.sqrt(1 / fan_in)),
}


def weight_init(shape: Sequence[int], mode: str, fan_in: int, fan_out: int) -> Tensor:
    """Draw a tensor from the global generator (Glorot & Bengio 2010, He et al. 2015 with gain 1).

    Args:
        shape: shape of the result.
        mode: xavier_uniform, xavier_normal, kaiming_uniform, kaiming_normal or truncated_normal.
        fan_in: inputs that one output sees.
        fan_out: outputs that one input reaches.
    """
    draw, scale = _INITIALISERS[mode]
    return draw(shape) * scale(fan_in, fan_out)


@dataclass(frozen=True)
class Init:
    """How a layer's first values are drawn: a mode of `weight_init`, a gain for each parameter."""

    mode: str = "kaiming_normal"
    weight_gain: float = 1.0
    bias_gain: float = 0.0

    def weight(self, shape: Sequence[int], fan_in: int, fan_out: int) -> nn.Parameter:
        """Draw a weight."""
        return self._drawn(shape, fan_in, fan_out, self.weight_gain)

    def bias(self, size: int, fan_in: int, fan_out: int) -> nn.Parameter:
        """Draw a bias; also with gain 0, so that published seeds give the published weights."""
        return self._drawn([size], fan_in, fan_out, self.bias_gain)

    def _drawn(self, shape: Sequence[int], fan_in: int, fan_out: int, gain: float) -> nn.Parameter:
        if torch.empty(0).is_meta:  # there, to draw no values would load PyTorch's compiler
            return nn.Parameter(torch.empty(*shape))
        return nn.Parameter(weight_init(shape, self.mode, fan_in, fan_out) * gain)


class Linear(nn.Module):
    """x W^T + b in float32, [..., in_features] -> [..., out_features]."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, init: Init | None = None
    ) -> None:
        super().__init__()
        init = init or Init()
        fans = in_features, out_features
        self.weight = init.weight([out_features, in_features], *fans)
        self.bias = init.bias(out_features, *fans) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; autocast has no effect on it."""
        with full_precision(x):
            return F.linear(widen(x), self.weight, self.bias)


class Resample(nn.Module):
    """Double or halve an image with a separable filter, [N, C, H, W] -> [N, C, 2H, 2W] or half.

    The taps [1, 1] give nearest neighbours and the mean of 2x2, [1, 3, 3, 1] a near-bilinear
    filter; an even number of taps keeps the sampling grid centred. None is [1, 1], with no filter
    in the state dict.
    """

    resample_filter: Tensor | None

    def __init__(self, resample: str | None, taps: Sequence[float] | None = (1, 1)) -> None:
        super().__init__()
        self.resample = resample
        self.filter_padding = 0 if taps is None else (len(taps) - 1) // 2
        # Equal pairs have native kernels, many times faster than a depthwise convolution.
        self.is_box = taps is None or (len(taps) == 2 and taps[0] == taps[1])
        kernel = None
        if resample is not None and taps is not None:
            total = sum(taps) ** 2
            values = [[first * second / total for second in taps] for first in taps]
            kernel = torch.tensor([[values]], dtype=torch.float32)
        self.register_buffer("resample_filter", kernel)

    def _down(self, x: Tensor, padding: int) -> Tensor:
        if self.is_box:
            return F.avg_pool2d(x, 2)
        assert self.resample_filter is not None
        kernel = self.resample_filter.expand(x.shape[1], -1, -1, -1)
        return F.conv2d(x, kernel, stride=2, padding=padding, groups=x.shape[1])

    def _up(self, x: Tensor) -> Tensor:
        if self.is_box:
            # exact, but on a GPU autocast would have it in float32, and copies before and after
            with full_precision(x) if x.is_cuda else nullcontext():
                return F.interpolate(x, scale_factor=2.0, mode="nearest")
        assert self.resample_filter is not None
        kernel = (4 * self.resample_filter).expand(x.shape[1], -1, -1, -1)
        return F.conv_transpose2d(
            x, kernel, stride=2, padding=self.filter_padding, groups=x.shape[1]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Resample x; x itself if there is nothing to do."""
        if self.resample == "down":
            return self._down(x, self.filter_padding)
        return self._up(x) if self.resample == "up" else x


class Conv2d(Resample):
    """A convolution after resampling, [N, Cin, H, W] -> [N, Cout, H', W'], H' = H at stride 1.

    With `fused` (halving only) the convolution comes first, on the padded image, and the filter
    runs over its result without padding: the layer of the residual image pyramid of NCSN++.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        resample: str | None = None,
        taps: Sequence[float] | None = (1, 1),
        fused: bool = False,
        init: Init | None = None,
    ) -> None:
        super().__init__(resample, taps)
        assert not fused or resample == "down", "only a halving convolution can be fused"
        init = init or Init()
        fans = in_channels * kernel**2, out_channels * kernel**2
        self.fused = fused
        self.padding = kernel // 2
        self.weight = init.weight([out_channels, in_channels, kernel, kernel], *fans)
        self.bias = init.bias(out_channels, *fans)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return self._convolved(x, self.bias)

    def without_bias(self, x: Tensor) -> Tensor:
        """Apply the layer but for its bias, which on a GPU takes a kernel to add and one to sum."""
        return self._convolved(x, None)

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if self.fused:
            padding = self.padding + self.filter_padding
            # The bias may go in first: the filter sums to one and sees no padding.
            return self._down(F.conv2d(x, self.weight, bias, padding=padding), 0)
        return F.conv2d(super().forward(x), self.weight, bias, padding=self.padding)


class StridedConv2d(Conv2d):
    """A 3x3 convolution with stride 2, [N, Cin, H, W] -> [N, Cout, H/2, W/2] for even H and W.

    With the padding `end` one line of zeros is added at the bottom and at the right only, with
    `both` on all sides: the windows of the two are one pixel apart.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, padding: str, init: Init | None = None
    ) -> None:
        super().__init__(in_channels, out_channels, 3, init=init)
        assert padding in ("end", "both"), padding
        self.pad_end = padding == "end"

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        if self.pad_end:
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, stride=2)
        return F.conv2d(x, self.weight, self.bias, stride=2, padding=1)


class PositionalEmbedding(nn.Module):
    """Cosines and sines of geometric frequencies from 1 to 1/10000 (Vaswani et al. 2017, 3.5).

    With `endpoint` the last frequency is 1/10000 itself, else the one before it. `by_exp` chooses
    which function rounds the frequencies in float32: as in ports of DDPM to PyTorch, or as in EDM.
    """

    def __init__(self, channels: int, *, endpoint: bool, by_exp: bool = False) -> None:
        super().__init__()
        self.by_exp = by_exp
        self.num_freqs = channels // 2
        self.last = self.num_freqs - 1 if endpoint else self.num_freqs

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embed x [N] as (cos, sin), each [N, channels / 2]."""
        index = torch.arange(self.num_freqs, dtype=x.dtype, device=x.device)
        last = max(self.last, 1)
        power = (-math.log(10000) * index / last).exp() if self.by_exp else 10000 ** -(index / last)
        phase = x[:, None] * power
        return phase.cos(), phase.sin()


class FourierEmbedding(nn.Module):
    """Fourier features of random frequencies, fixed at creation (Song et al. 2021, appendix C)."""

    freqs: Tensor

    def __init__(self, channels: int, *, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(channels // 2) * scale)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embed x [N] as (cos, sin), each [N, channels / 2]."""
        phase = x[:, None] * (2 * math.pi * self.freqs)
        return phase.cos(), phase.sin()
