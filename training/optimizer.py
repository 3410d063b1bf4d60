"""The optimizer and the learning rate as a function of images seen."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from training.config import OptimizerConfig, ResolvedOptimizer


def create_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Adam or AdamW in one fused kernel; the rate is set before every step."""
    common = {"lr": config.lr, "betas": config.betas, "eps": config.eps, "fused": True}
    if config.name == "adam":
        return torch.optim.Adam(parameters, **common)  # type: ignore[arg-type]
    return torch.optim.AdamW(parameters, weight_decay=config.weight_decay, **common)  # type: ignore[arg-type]


def learning_rate(config: ResolvedOptimizer, *, seen: int, batch: int, duration: int) -> float:
    """The rate of one step.

    Args:
        config: the rule.
        seen: images seen before this step.
        batch: images in this step.
        duration: images in the whole run.

    Returns:
        lr times warm-up times decay. EDM's first step has rate 0: it only fills the moments.
    """
    rate = config.lr
    counted = seen + (batch if config.warmup_inclusive else 0)
    if counted < config.warmup:
        rate *= counted / config.warmup
    if config.decay == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * min(seen / duration, 1.0)))
    elif config.decay_reference is not None:  # inverse_sqrt
        rate /= math.sqrt(max(seen / config.decay_reference, 1.0))
    return rate
