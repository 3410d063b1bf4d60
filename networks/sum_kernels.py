"""Kernels of a residual sum bias + scale (branch + x), in Triton, and what launches them.

Backwards, one kernel scales the gradient, which is that of branch and of x, and sums it up over the
pixels for the bias. A program computes a tile of image rows, a row being a channel of an image.
Arithmetic is in float32. It needs triton, so that only `networks.fused_sum` imports it.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from networks.fused_sum import empty_gradients, empty_sum
from networks.launching import Launcher, row_stride

_TILE = 4096  # elements
_WARPS = _TILE // 512  # of 32 threads, which have 16 elements each


@triton.jit
def residual_sum_forward_kernel(
    branch,  # [rows, pixels]
    x,
    bias,  # of an image and channel, `stride` from image to image
    y,
    rows,
    channels,
    pixels,
    stride,
    scale,
    ROWS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """A tile of the sum."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    p = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    b = tl.load(bias + row // channels * stride + row % channels, mask=row < rows, other=0.0)
    offset = row[:, None] * pixels + p[None, :]
    mask = (row < rows)[:, None] & (p < pixels)[None, :]
    first = tl.load(branch + offset, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + offset, b.to(tl.float32)[:, None] + scale * (first + second), mask=mask)


@triton.jit
def residual_sum_backward_kernel(
    gradient,  # [N, channels, pixels], `stride` from image to image
    scaled,  # [rows, pixels]
    sums,  # [rows]
    rows,
    channels,
    pixels,
    stride,
    scale,
    ROWS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Some rows of the gradient, scaled, and their sums."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    start = row // channels * stride + row % channels * pixels
    total = tl.zeros([ROWS, PIXELS], tl.float32)
    for first in range(0, pixels, PIXELS):
        p = first + tl.arange(0, PIXELS)
        mask = (row < rows)[:, None] & (p < pixels)[None, :]
        place = start[:, None] + p[None, :]
        dy = tl.load(gradient + place, mask=mask, other=0.0).to(tl.float32)
        total += dy
        tl.store(scaled + row[:, None] * pixels + p[None, :], scale * dy, mask=mask)
    tl.store(sums + row, tl.sum(total, axis=1), mask=row < rows)


_launch_forward = Launcher(residual_sum_forward_kernel)
_launch_backward = Launcher(residual_sum_backward_kernel)


def forward(branch: Tensor, x: Tensor, bias: Tensor, scale: float) -> Tensor:
    """bias + scale (branch + x).

    Args:
        branch, x: [N, C, H, W], contiguous.
        bias: [N, C, 1, 1] or [1, C, 1, 1], contiguous along its channels.
        scale: a number.
    """
    y = empty_sum(branch, x, bias, scale)
    grid, sizes, tiles = _plan(x.shape)
    numbers = *sizes, row_stride(bias), float(scale)
    _launch_forward(grid, (branch, x, bias, y), numbers, tiles, _WARPS)
    return y


def backward(gradient: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The gradient [N, C, H, W] times `scale`, and its sums over the pixels, [N, C, 1, 1].

    Args:
        gradient: each image contiguous; a part of joined channels is read where it lies.
        scale: a number.
        dtype: of the sums.
    """
    shape = gradient.shape
    scaled, sums = empty_gradients(gradient, scale, dtype)
    grid, sizes, tiles = _plan(shape)
    numbers = *sizes, gradient.stride(0), float(scale)
    _launch_backward((grid[0], 1, 1), (gradient, scaled, sums), numbers, tiles, _WARPS)
    return scaled, sums


@functools.lru_cache(maxsize=1024)  # a launch shall not wait for such sums
def _plan(
    shape: torch.Size,
) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int]]:
    """The grid of a kernel, sizes, and its tiles."""
    rows, pixels = shape[0] * shape[1], shape[2] * shape[3]
    block = min(triton.next_power_of_2(pixels), _TILE)
    tile = _TILE // block, block
    grid = triton.cdiv(rows, tile[0]), triton.cdiv(pixels, block), 1
    return grid, (rows, shape[1], pixels), tile
