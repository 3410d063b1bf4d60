"""Averages of the weights for sampling; each average is a module of its own, updated in place.

EDM's half-life with ramp-up (Karras et al. 2022, Appendix F.2), a constant decay per step, and
the (1 + n) / (10 + n) ramp. Beside it, averages by power functions of the progress, from which
`models.posthoc` makes others after training (Karras et al. 2024, section 3).
"""

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from models.posthoc import length_name, power_decay
from training.config import ResolvedEma

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def decay_at(config: ResolvedEma, *, seen: int, batch: int, update: int) -> float:
    """The share that the average keeps of itself in one update.

    Args:
        config: the rule.
        seen: images seen before this step.
        batch: images in this step.
        update: 1 for the first update, 2 for the next, ...

    Returns:
        beta in average = weights + beta (average - weights).
    """
    if config.starts == "first_step" and update == 1:
        return 0.0
    if config.kind == "constant":
        return config.decay
    if config.kind == "ramp":
        return min(config.decay, (1 + update) / (10 + update))
    halflife = float(config.halflife)
    if config.rampup_ratio is not None:
        halflife = min(halflife, config.rampup_ratio * seen)
    return float(0.5 ** (batch / max(halflife, 1e-8)))


def average_of(net: ModuleT) -> ModuleT:
    """A copy of the module to hold the average: evaluation mode, no gradients."""
    return copy.deepcopy(net).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: Sequence[Tensor], weights: Sequence[Tensor], beta: float) -> None:
    """Move averages towards weights: average = weights + beta (average - weights).

    Args:
        average: without gradients, updated in place; buffers are constants of the network.
        weights: of the same shapes.
        beta: of `decay_at`.
    """
    torch._foreach_lerp_([*average], [*weights], 1.0 - beta)


def power_averages(net: ModuleT, config: ResolvedEma) -> dict[str, ModuleT]:
    """A copy of the module for each length of `ema.posthoc`, by the length's name."""
    return {length_name(length): average_of(net) for length in config.posthoc}


def power_decays(config: ResolvedEma, *, seen: int, batch: int) -> dict[str, float]:
    """For each length of `ema.posthoc` by name, the share that its average keeps of itself."""
    names = [length_name(length) for length in config.posthoc]
    return {name: power_decay(float(name), seen=seen, batch=batch) for name in names}
