"""Averages of the weights for sampling; each average is a module of its own, updated in place.

EDM's half-life with ramp-up (Karras et al. 2022, Appendix F.2), a constant decay per step, and
the (1 + n) / (10 + n) ramp. Beside it, averages by power functions of the progress, from which
`models.posthoc` makes others after training (Karras et al. 2024, section 3).
"""

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn

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
def update_average(average: nn.Module, net: nn.Module, beta: float) -> None:
    """Move the average towards the weights: average = weights + beta (average - weights).

    Parameters only; buffers are constants of the network.
    """
    theirs = [parameter.detach() for parameter in average.parameters()]
    ours = [parameter.detach() for parameter in net.parameters()]
    torch._foreach_lerp_(theirs, ours, 1.0 - beta)


def power_averages(net: ModuleT, config: ResolvedEma) -> dict[str, ModuleT]:
    """A copy of the module for each length of `ema.posthoc`, by the length's name."""
    return {length_name(length): average_of(net) for length in config.posthoc}


def update_power_averages(
    averages: Mapping[str, nn.Module], net: nn.Module, *, seen: int, batch: int
) -> None:
    """Move averages towards the weights, each as its length says; see `power_decay`."""
    for name, average in averages.items():
        update_average(average, net, power_decay(float(name), seen=seen, batch=batch))
