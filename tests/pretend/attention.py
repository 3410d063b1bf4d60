"""The memory-efficient attention kernels and their gradient, in plain operations on the CPU."""

from typing import Any

import torch
from torch import Tensor


def _forward(query: Tensor, key: Tensor, value: Tensor, *options: Any, **more: Any) -> Any:
    """(output, log-sum-exp, seed, offset), as the kernel returns them."""
    scores = query.float() @ key.float().mT * query.shape[-1] ** -0.5
    output = (scores.softmax(-1) @ value.float()).to(query.dtype)
    zero = torch.zeros((), dtype=torch.int64)
    return output, scores.logsumexp(-1), zero, zero


def _backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *saved: Any, **options: Any
) -> Any:
    """Gradients of query, key and value, and none of the bias."""
    scale = query.shape[-1] ** -0.5
    q, k, v, g = (tensor.float() for tensor in (query, key, value, gradient))
    weights = (q @ k.mT * scale).softmax(-1)
    of_weights = g @ v.mT
    of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True))
    found = of_scores @ k * scale, of_scores.mT @ q * scale, weights.mT @ g
    return (*(tensor.to(query.dtype) for tensor in found), None)


EFFICIENT_ATTENTION = {
    "_scaled_dot_product_efficient_attention.default": _forward,
    "_scaled_dot_product_efficient_attention_backward.default": _backward,
}
