"""Rates of ways that do the same, ours and published ones, in turn: what benchmarks write down."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.timing import interleaved, ratio, spread

OURS = "driftless"


def compared(
    ways: Mapping[str, Callable[[], object]],
    images: int,
    device: torch.device,
    rounds: int,
    warms_up: bool = True,
) -> dict[str, Any]:
    """Images a second of each way, and how many times as fast as each published one ours is.

    Args:
        ways: calls by name, one of them `OURS`; each goes through all images.
        images: how many.
        device: that they compute on.
        rounds: how often each is timed.
        warms_up: whether each is called once before.
    """
    times = interleaved(ways, device, rounds, warms_up)
    return {
        "images": images,
        "images_per_s": {
            name: spread([images / seconds for seconds in found]) for name, found in times.items()
        },
        "times_as_fast_as": {
            name: ratio(found, times[OURS]) for name, found in times.items() if name != OURS
        },
    }


def told(name: str, row: Mapping[str, Any]) -> str:
    """A row in one line."""
    rates = ", ".join(f"{way} {found['median']:g}" for way, found in row["images_per_s"].items())
    ratios = ", ".join(
        f"{found['median']:g} times {way} ({found['min']:g} to {found['max']:g})"
        for way, found in row["times_as_fast_as"].items()
    )
    return f"{name}: images/s: {rates}; {ratios}"
