"""Numbers as users write them: YAML 1.1 takes 2e-3 for a text, people mean the number."""

import math
import re
from typing import Any

# with an exponent, or inf: other numbers are texts only where they were written in quotes
_NUMBER = re.compile(r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+|inf)")


def number(value: Any) -> Any:
    """A text that reads as a number, as that number; anything else as it is."""
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def is_integer(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether a value is an integer, and not a truth value, in an interval."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold, and not a truth value."""
    return isinstance(value, float) or is_integer(value, -1e308, 1e308)


def three_digits(value: float) -> str:
    """A positive number for people, to three digits or to the whole: 0.012, 42.4, 1,234."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"
