"""Restarts as an option: Xu et al. 2023 ("Restart"), Algorithm 1. No torch here.

An entry is [nodes, repetitions, sigma_low, sigma_high]. After the step that ends at the grid's
level nearest to sigma_low, noise raises the state to sigma_high, and the solver comes back down to
that level over so many nodes, as often as asked.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from torch_utils.errors import UserError
from torch_utils.numbers import is_integer, is_number
from torch_utils.registry import Rule

Entry = Sequence[float]  # [nodes, repetitions, sigma_low, sigma_high]

DEFAULT_RESTARTS: Sequence[Entry] = [[3, 2, 0.06, 0.3]]  # published for CIFAR-10 and 18 steps
MOST = 10_000  # nodes, and repetitions


def _is_entry(value: object) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 4:
        return False
    nodes, repetitions, low, high = value
    return (
        is_integer(nodes, 2, MOST)
        and is_integer(repetitions, 1, MOST)
        and is_number(low)
        and is_number(high)
        and 0 < low < high < math.inf
    )


RESTARTS = Rule(
    "a list of entries [nodes, repetitions, sigma_low, sigma_high] with at least 2 nodes, at least "
    "1 repetition and 0 < sigma_low < sigma_high",
    lambda value: isinstance(value, list | tuple) and all(map(_is_entry, value)),
)


def restarts_after(sigmas: Sequence[float], restarts: Sequence[Entry]) -> list[list[Entry]]:
    """The restarts that follow each step, in their order.

    A restart has no place if its sigma_low is nearest to the first level, where no step ends, or to
    a level that is not below its sigma_high.

    Args:
        sigmas: n + 1 noise levels, decreasing.
        restarts: entries.

    Returns:
        n lists.
    """
    after: list[list[Entry]] = [[] for _ in sigmas[1:]]
    for entry in restarts:
        place = _nearest(sigmas, entry[2])
        if place > 0 and sigmas[place] < entry[3]:
            after[place - 1].append(entry)
    return after


def _nearest(sigmas: Sequence[float], low: float) -> int:
    return min(range(len(sigmas)), key=lambda i: abs(sigmas[i] - low))


def check_restarts(
    sigmas: Sequence[float],
    restarts: Sequence[Entry],
    round_sigma: Callable[[float], float] = float,
) -> None:
    """Check that every restart has a place on a grid, which is not its end at 0.

    Args:
        sigmas: n + 1 noise levels, decreasing.
        restarts: entries.
        round_sigma: nearest level that the model knows.

    Raises:
        UserError: one has none.
    """
    ends = [sigma for sigma in sigmas[1:] if sigma > 0]
    for entry in restarts:
        _, _, low, high = entry
        level = sigmas[_nearest(sigmas, low)]
        what = f"sampler restart: {list(entry)} of restarts"
        if high > sigmas[0]:
            raise UserError(
                f"{what}: sigma_high is above the grid's highest level, {sigmas[0]:.5g}"
            )
        if level not in ends or level >= min(high, round_sigma(high)):
            raise UserError(
                f"{what}: the grid's noise level nearest to sigma_low is {level:.5g}; it must be "
                f"positive, below sigma_high and not the first: take other levels or more steps"
            )


def calls_with_restarts(num_steps: int, options: Mapping[str, object], to_zero: bool) -> int:
    """Calls of Heun's method with restarts that all have a place on the grid.

    Args:
        num_steps: of the grid.
        options: of the sampler; `restarts` is read.
        to_zero: whether the last step goes to 0.
    """
    restarts = options["restarts"]
    assert isinstance(restarts, Sequence)
    is_at_zero = num_steps == 1 and to_zero
    inner = (times * (2 * (nodes - 1) - is_at_zero) for nodes, times, _, _ in restarts)
    calls: int = 2 * num_steps - to_zero + sum(inner)
    return calls
