"""Clocks that wait for the device, for the programs that time parts of a computation."""

import time

import torch


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
