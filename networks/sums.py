"""The residual sum of a block: a branch and the shortcut, scaled, and their biases."""

import torch
from torch import Tensor

from networks.imagined import is_imagined


def residual_sum(branch: Tensor, x: Tensor, bias: Tensor, scale: float) -> Tensor:
    """bias + scale (branch + x); on a GPU in eager mode one kernel, see `networks.fused_sum`.

    Args:
        branch, x: features [N, C, H, W].
        bias: [N, C, 1, 1] or [1, C, 1, 1].
        scale: a number.
    """
    # dynamo takes the first question for a constant, so that compiled graphs have no branch
    if not torch.compiler.is_compiling() and (x.is_cuda or is_imagined(x)):
        from networks import fused_sum

        found = fused_sum.attempt(branch, x, bias, scale)
        if found is not None:
            return found
    return composed(branch, x, bias, scale)


def composed(branch: Tensor, x: Tensor, bias: Tensor, scale: float) -> Tensor:
    """The sum in PyTorch's operations."""
    return torch.add(bias, branch + x, alpha=scale)
