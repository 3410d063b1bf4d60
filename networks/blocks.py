"""The residual block of both U-Net families, and its self-attention.

Ho et al. 2020 (appendix B), Song et al. 2021 (appendix H), Dhariwal & Nichol 2021 (section 3), in
the common form of Karras et al. 2022 (appendix F).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from networks.layers import (
    Conv2d,
    Init,
    Linear,
    Resample,
    full_precision,
    has_tangent,
    is_channels_last,
    widen,
)
from networks.layout import Entry
from networks.norms import GroupNorm, is_fused
from networks.sums import residual_sum
from torch_utils.errors import UserError


@dataclass(frozen=True)
class BlockSettings:
    """What all blocks of a network have in common.

    Attributes:
        num_heads: attention heads; None for a head per `head_dim` channels, or per 64.
        head_dim: channels of a head; with both, the heads need not make up the block's channels.
        dropout: probability that a feature is dropped in training.
        skip_scale: factor on each residual sum, 1/sqrt(2) keeps the variance.
        eps: added to the variance by the norms.
        num_groups: groups of every norm; None for groups of four channels, at most 32 groups.
        resample_filter: taps of the resampling blocks; None is explained at `Resample`.
        resample_proj: whether a resampling shortcut has a 1x1 convolution when widths are equal.
        adaptive_scale: whether the embedding scales and shifts the second norm's output, instead
            of being added to its input.
        attn_norm: whether attention looks at the normed features, not at the features themselves.
        init: first values of ordinary layers.
        init_zero: first values of the layers that end a residual branch.
        init_attn: first values of the attention's input projection, None for `init`.
    """

    num_heads: int | None = None
    head_dim: int | None = None
    dropout: float = 0.0
    skip_scale: float = 1.0
    eps: float = 1e-5
    num_groups: int | None = None
    resample_filter: Sequence[float] | None = (1, 1)
    resample_proj: bool = False
    adaptive_scale: bool = True
    attn_norm: bool = True
    init: Init = field(default_factory=Init)
    init_zero: Init = field(default_factory=lambda: Init(weight_gain=0.0))
    init_attn: Init | None = None

    def heads(self, channels: int) -> int:
        """Number of attention heads in a block of this width.

        Raises:
            UserError: the width does not divide into heads.
        """
        if self.num_heads and self.head_dim:
            return self.num_heads
        # 64 channels a head is a rule of thumb; a head_dim that was given must divide the width.
        heads = self.num_heads or channels // (self.head_dim or 64)
        is_uneven = not self.num_heads and self.head_dim and channels % self.head_dim
        if heads == 0 or channels % heads or is_uneven:
            wanted = f"heads of {self.head_dim or 64} channels"
            raise UserError(
                f"attention over {channels} channels does not divide into"
                f" {f'{heads} heads' if self.num_heads else wanted}:"
                " change model_channels or channel_mult, or where attention is"
            )
        return heads

    def attention_channels(self, channels: int) -> int:
        """The width of all heads together in a block of this width."""
        return self.num_heads * self.head_dim if self.num_heads and self.head_dim else channels


def attention(qkv: Tensor, fused: bool | None = None) -> Tensor:
    """Softmax attention with scale 1/sqrt(c), the softmax in float32 (Vaswani et al. 2017, eq. 1).

    Fused kernels have no forward-mode derivative (torch.func.jvp); there the softmax is computed by
    plain operations in float32. So it is on CPUs in full precision, where that costs no more.
    Fused kernels can be differentiated only once: for a second derivative in half precision or on
    a GPU use torch.nn.attention.sdpa_kernel(SDPBackend.MATH).

    Args:
        qkv: queries, keys and values, [N, heads, c, 3, L].
        fused: whether to use the fused kernels; None uses them where they are faster. Under a
            forward-mode derivative they are never used.

    Returns:
        The attended values [N, heads, c, L].
    """
    if fused is None:
        fused = qkv.is_cuda or qkv.dtype not in (torch.float32, torch.float64)
    if has_tangent(qkv) or not fused:
        with full_precision(qkv):
            q, k, v = widen(qkv).unbind(3)
            weights = (q.mT @ (k / math.sqrt(k.shape[2]))).softmax(dim=-1)  # [N, heads, L, L]
            return (v @ weights.mT).to(qkv.dtype)
    # [3, N, heads, L, c], contiguous because the fused kernels ask for it.
    q, k, v = qkv.permute(3, 0, 1, 4, 2).contiguous().unbind(0)
    return F.scaled_dot_product_attention(q, k, v).mT


class UNetBlock(nn.Module):
    """Residual block with optional resampling and self-attention, conditioned on an embedding.

    Attributes:
        remat: in training, keep only the block's input and compute the rest again in the backward
            pass, which trades about a third more time for memory (Chen et al. 2016).
        fused: as in `attention`.
        compiler: what calls the block's arithmetic instead of `plain`, see `networks.compiled`; not
            under a forward-mode derivative, which compiled kernels do not have.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        settings: BlockSettings,
        *,
        resample: str | None = None,
        attention: bool = False,
    ) -> None:
        """Make the layers in the published order, which numbers the optimizer's parameters.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            emb_channels: width of the embedding.
            settings: what the blocks of the network share.
            resample: up, down or None.
            attention: whether self-attention follows the residual sum.
        """
        super().__init__()
        self.remat = False
        self.fused: bool | None = None
        self.compiler: Callable[[UNetBlock, Tensor, Tensor], Tensor] | None = None
        self.heads = settings.heads(out_channels) if attention else 0
        self.dropout = settings.dropout
        self.skip_scale = settings.skip_scale
        self.adaptive_scale = settings.adaptive_scale
        init, init_zero, taps = settings.init, settings.init_zero, settings.resample_filter
        eps, groups = settings.eps, settings.num_groups

        self.norm0 = GroupNorm(in_channels, groups=groups, eps=eps)
        self.conv0 = Conv2d(in_channels, out_channels, 3, resample=resample, taps=taps, init=init)
        affine_channels = out_channels * (2 if settings.adaptive_scale else 1)
        self.affine = Linear(emb_channels, affine_channels, init=init)
        self.norm1 = GroupNorm(out_channels, groups=groups, eps=eps)
        self.conv1 = Conv2d(out_channels, out_channels, 3, init=init_zero)

        self.skip: Resample | None = None
        if in_channels != out_channels or (resample is not None and settings.resample_proj):
            self.skip = Conv2d(
                in_channels, out_channels, 1, resample=resample, taps=taps, init=init
            )
        elif resample is not None:
            self.skip = Resample(resample, taps)

        if self.heads:
            width = settings.attention_channels(out_channels)
            norm = GroupNorm(out_channels, groups=groups, eps=eps) if settings.attn_norm else None
            self.norm2 = norm or nn.Identity()
            self.qkv = Conv2d(out_channels, 3 * width, 1, init=settings.init_attn or settings.init)
            self.proj = Conv2d(width, out_channels, 1, init=init_zero)
        # columns of a condition: the embedding's part, the biases of the two sums
        self.condition_widths = [
            affine_channels,
            out_channels,
            out_channels if self.heads else 0,
        ]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: features [N, in_channels, H, W].
            condition: what `conditions` made for this block, [N, k], or [1, k] for all.

        Returns:
            Features [N, out_channels, H', W'].
        """
        # no remat under a forward-mode derivative: what is computed again has no tangent
        is_dual = has_tangent(x) or has_tangent(condition)
        if is_dual:
            return self.plain(x, condition)
        if self.remat and self.training and torch.is_grad_enabled():
            again: Tensor = checkpoint(self._computed, x, condition, use_reentrant=False)
            return again
        return self._computed(x, condition)

    def _computed(self, x: Tensor, condition: Tensor) -> Tensor:
        compiler = self.compiler
        return self.plain(x, condition) if compiler is None else compiler(self, x, condition)

    def plain(self, x: Tensor, condition: Tensor) -> Tensor:
        """The block's arithmetic, as `forward`, without remat and compiler."""
        parts = torch.split(condition[:, :, None, None], self.condition_widths, dim=1)
        p, bias, attn_bias = parts
        rate = self.dropout if self.training else 0.0
        h, x = self.norm0.with_input(x, silu=True)
        if self.adaptive_scale:
            h = self.norm1(self.conv0(h), scale_shift=p, silu=True, dropout=rate)
        else:
            h = self.conv0.without_bias(h)
            if is_fused(h):
                h = self.norm1(h, added=p, silu=True, dropout=rate)
            else:  # a sum that takes the place of its part, for less memory
                h = h + p
                h = self.norm1(h, silu=True, dropout=rate)
        h = self.conv1.without_bias(h)
        y = self._sum(h, self._shortcut(x), bias)
        return self._attended(y, attn_bias) if self.heads else y

    def _shortcut(self, x: Tensor) -> Tensor:
        if isinstance(self.skip, Conv2d):
            return self.skip.without_bias(x)
        return x if self.skip is None else self.skip(x)

    def _sum(self, branch: Tensor, x: Tensor, bias: Tensor) -> Tensor:
        return residual_sum(branch, x, bias, self.skip_scale)

    def _attended(self, y: Tensor, bias: Tensor) -> Tensor:
        normed = y
        if isinstance(self.norm2, GroupNorm):
            normed, y = self.norm2.with_input(y)
        return self._sum(self._attend(normed, y), y, bias)

    def _attend(self, normed: Tensor, y: Tensor) -> Tensor:
        n, _, height, width = y.shape
        # Output channel (head * c + i) * 3 + {0: q, 1: k, 2: v}, as in published weights.
        qkv = self.qkv(normed).reshape(n, self.heads, -1, 3, height * width)
        attended = attention(qkv, self.fused)
        # Return to the memory layout of y. The fused kernels answer pixel by pixel; a plain reshape
        # may be a view of that, and all later layers would take that layout.
        if is_channels_last(y):
            pixels = attended.permute(0, 3, 1, 2).reshape(n, height, width, -1).contiguous()
            images = pixels.permute(0, 3, 1, 2)
        else:
            images = attended.reshape(n, -1, height, width).contiguous()
        return self.proj.without_bias(images)


def make_block(entry: Entry, emb_channels: int, settings: BlockSettings) -> UNetBlock:
    """The block of an entry of the plan."""
    return UNetBlock(
        entry.in_channels,
        entry.out_channels,
        emb_channels,
        settings,
        resample=entry.resample,
        attention=entry.attention,
    )


def set_remat(network: nn.Module, remat: bool) -> bool:
    """Switch activation checkpointing of all blocks of a network on or off.

    Returns:
        Whether it has any such blocks.
    """
    blocks = [module for module in network.modules() if isinstance(module, UNetBlock)]
    for block in blocks:
        block.remat = remat
    return bool(blocks)


def set_fused_attention(network: nn.Module, fused: bool | None) -> None:
    """Choose for all blocks whether attention uses fused kernels; None is the default."""
    for module in network.modules():
        if isinstance(module, UNetBlock):
            module.fused = fused
