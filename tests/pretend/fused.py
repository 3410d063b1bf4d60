"""What our fused kernels compute, in plain operations on the CPU, and the masks of dropout."""

from typing import Any

import torch
from torch import Tensor

from networks import sums
from networks.dropout import dropout
from networks.fused_norm import Options, formula


def _group_norm(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    """(result, means and 1/deviations), as the kernel returns them."""
    weight, bias, condition, kept, *options = arguments
    groups, eps = options[:2]
    u = _before(x, condition).unflatten(1, (groups, -1)).flatten(2)
    variance, mean = torch.var_mean(u, dim=2, correction=0)
    result = formula(x, weight, bias, condition, kept, Options(*options))
    return result, torch.stack([mean, (variance + eps).rsqrt()])


def _before(x: Tensor, condition: Tensor | None) -> Tensor:
    """What is normalised, in float32."""
    is_added = condition is not None and condition.shape[1] == x.shape[1]
    return x.float() + condition.float() if is_added and condition is not None else x.float()


def _group_norm_backward(
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
    """Gradients of x, of weight and bias by each image, and of the condition."""
    n, channels = x.shape[:2]
    mean, rstd = statistics
    is_added = condition is not None and condition.shape[1] == channels
    factors, shift = torch.ones(1, channels, 1, 1), torch.zeros(1, channels, 1, 1)
    if condition is not None and not is_added:
        scale, shift = condition.float().chunk(2, dim=1)
        factors = 1 + scale

    def grouped(values: Tensor) -> Tensor:
        return values.unflatten(1, (mean.shape[1], -1))

    at_groups = (..., None, None, None)
    xhat = (grouped(_before(x, condition)) - mean[at_groups]) * rstd[at_groups]
    xhat = xhat.flatten(1, 2)
    w, b = weight[:, None, None], bias[:, None, None]
    z = xhat * (w * factors) + b * factors + shift
    dz = gradient.float() if kept is None else gradient.float() * kept * factor
    if silu:
        s = z.sigmoid()
        dz = dz * s * (1 + z * (1 - s))
    of_xhat = dz * w * factors
    own = grouped(of_xhat)
    mean_of = own.mean(dim=(2, 3, 4), keepdim=True)
    mean_with = (own * grouped(xhat)).mean(dim=(2, 3, 4), keepdim=True)
    dx = (rstd[at_groups] * (own - mean_of - grouped(xhat) * mean_with)).flatten(1, 2)
    sums_dz = dz.sum(dim=(2, 3), keepdim=True)
    sums_xhat = (dz * xhat).sum(dim=(2, 3), keepdim=True)
    by_image = torch.stack([factors * sums_xhat, factors * sums_dz]).flatten(2)
    dcondition = x.new_empty(0)
    if condition is not None:
        dtype = condition.dtype if len(condition) == n else torch.float32
        after = torch.cat([w * sums_xhat + b * sums_dz, sums_dz], dim=1)
        dcondition = (dx.sum(dim=(2, 3), keepdim=True) if is_added else after).to(dtype)
    return (dx if through is None else dx + through).to(x.dtype), by_image, dcondition


def _sum_backward(gradient: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return gradient * scale, gradient.float().sum(dim=(2, 3), keepdim=True).to(dtype)


def _bernoulli(mask: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """The mask of dropout that a CPU draws; other variates are drawn as they are."""
    if mask.dtype != torch.uint8:
        return mask.bernoulli_(p, generator=generator)
    return mask.copy_(dropout(torch.ones(mask.shape), 1 - p, True) != 0)


FUSED = {
    "fused_group_norm.default": _group_norm,
    "fused_group_norm_backward.default": _group_norm_backward,
    "fused_sum.default": sums.composed,
    "fused_sum_backward.default": _sum_backward,
    "bernoulli_.float": _bernoulli,
}
