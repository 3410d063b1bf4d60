"""Launches of the kernels of `networks.norm_kernels`: results, grids and tiles."""

import functools

import torch
import triton
from torch import Tensor

from networks.fused_norm import empty_gradients, empty_results
from networks.launching import Launcher, row_stride
from networks.norm_kernels import (
    ADDED,
    NOTHING,
    SCALE_SHIFT,
    group_norm_backward_kernel,
    group_norm_forward_kernel,
)

_launch_forward = Launcher(group_norm_forward_kernel)
_launch_backward = Launcher(group_norm_backward_kernel)
_WHOLE_FORWARD = 16384  # elements of a tile at most, for a group to be computed at once
_WHOLE_BACKWARD = 8192  # here two tiles are kept
_BLOCK = 4096  # elements of a tile of larger groups


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    condition: Tensor | None,
    kept: Tensor | None,
    groups: int,
    eps: float,
    silu: bool,
    factor: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The result [N, C, H, W] in `dtype`, and mean and 1/sqrt(variance + eps) [2, N, groups].

    Args:
        x: features [N, C, H, W], contiguous.
        weight, bias: [C].
        condition: [N, C, 1, 1] or [1, C, 1, 1] is added before, twice as wide it is scale and
            shift after; contiguous along its channels.
        kept: of x's shape, contiguous, uint8: 0 where dropout drops the result, else 1.
        groups: number of groups.
        eps: added to the variance.
        silu: whether SiLU follows.
        factor: on what dropout keeps.
        dtype: of the result.
    """
    y, statistics = empty_results(
        x, weight, bias, condition, kept, groups, eps, silu, factor, dtype
    )
    grid, sizes, tiles, warps = _plan(x.shape, groups, _WHOLE_FORWARD)
    own, mask = weight if condition is None else condition, x if kept is None else kept
    _launch_forward(
        grid,
        (x, weight, bias, own, mask, y, statistics),
        (*sizes, row_stride(condition), float(eps), float(factor)),
        (_modulation(x, condition), silu, kept is not None, *tiles),
        warps,
    )
    return y, statistics


def backward(
    gradient: Tensor,
    through: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    condition: Tensor | None,
    kept: Tensor | None,
    statistics: Tensor,
    silu: bool,
    factor: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, of weight and bias by each image [2, N, C], and of the condition.

    The last has a row for each image, in float32 if the condition has but one row; it is empty
    without a condition.

    Args:
        gradient: of the result, contiguous.
        through: what is added to the gradient of x, contiguous, in x's dtype.
        x, weight, bias, condition, kept, silu, factor: as in `forward`.
        statistics: of the groups, from `forward`.
    """
    dx, by_image, dcondition = empty_gradients(
        gradient, through, x, weight, bias, condition, kept, statistics, silu, factor
    )
    grid, sizes, tiles, warps = _plan(x.shape, statistics.shape[2], _WHOLE_BACKWARD)
    other, own = x if through is None else through, weight if condition is None else condition
    mask, columns = x if kept is None else kept, 0 if condition is None else condition.shape[1]
    _launch_backward(
        grid,
        (gradient, other, x, weight, bias, own, mask, statistics, dx, by_image, dcondition),
        (*sizes, row_stride(condition), columns, float(factor)),
        (_modulation(x, condition), silu, kept is not None, through is not None, *tiles),
        warps,
    )
    return dx, by_image, dcondition


def _modulation(x: Tensor, condition: Tensor | None) -> int:
    if condition is None:
        return NOTHING
    return ADDED if condition.shape[1] == x.shape[1] else SCALE_SHIFT


@functools.lru_cache(maxsize=1024)  # a launch shall not wait for such sums
def _plan(
    shape: torch.Size, groups: int, whole: int
) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[bool, int, int], int]:
    """The grid of a kernel, sizes, its tiles, and warps whose threads have 16 or 32 elements."""
    width, pixels = shape[1] // groups, shape[2] * shape[3]
    channels, block = triton.next_power_of_2(width), triton.next_power_of_2(pixels)
    is_whole = channels * block <= whole
    block = block if is_whole else _BLOCK // channels
    warps = min(max(channels * block // 512, 1), 16)
    grid = shape[0] * groups, 1, 1
    return grid, (groups, width, pixels), (is_whole, channels, block), warps
