"""Clocks that wait for the device, and comparisons that hold on a noisy machine.

What is compared is called in turn, and the ratio is taken pair by pair: a pair shares the
machine's mood.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch

FEWEST_PAIRS = 7  # of a ratio that is written down


def now(device: torch.device) -> float:
    """Seconds, read when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Stopwatch:
    """Time spent between starts and stops.

    Attributes:
        seconds: so far.
        stops: how many times it was stopped.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self.stops = 0
        self._started = 0.0

    def start(self) -> None:
        """Begin a stretch."""
        self._started = now(self.device)

    def stop(self) -> None:
        """End it."""
        self.seconds += now(self.device) - self._started
        self.stops += 1


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    device: torch.device,
    rounds: int = FEWEST_PAIRS,
    warms_up: bool = True,
) -> dict[str, list[float]]:
    """Seconds of some calls, made in turn, forwards and backwards.

    Args:
        calls: what to time, by name.
        device: that they compute on.
        rounds: how often each is timed.
        warms_up: whether each is called once before; calls of many seconds need not be.

    Returns:
        name -> seconds, one a round.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values() if warms_up else ():
        call()
    for index in range(rounds):
        for name in calls if index % 2 else reversed(calls):
            start = now(device)
            calls[name]()
            times[name].append(now(device) - start)
    return times


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median, least and largest of some numbers, to so many significant digits."""
    found = {"median": median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.{digits}g}") for name, value in found.items()}


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """Median, least and largest of the ratios of pairs, e.g. of times of `interleaved`."""
    return spread([a / b for a, b in zip(numerators, denominators, strict=True)])
