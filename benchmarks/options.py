"""Options of the benchmarks."""

from collections.abc import Callable
from typing import Any

import click


def count_option(name: str, default: int, text: str, *, least: int = 1) -> Callable[[Any], Any]:
    """An option that takes a whole number.

    Args:
        name: with its dashes.
        default: its default, which the help shows.
        text: what it counts.
        least: the smallest number that it takes.
    """
    takes = click.IntRange(least)
    return click.option(name, default=default, type=takes, show_default=True, help=text)
